"""The field trial, as its users start it: a head becomes a row with figures, what is no head a row with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from animportrait3d_core.embedded.identities.export import embedded_portrait_files

ROOT = Path(__file__).parents[2]
TINY = json.loads((ROOT / "tests" / "shipped_graphs.json").read_text(encoding="utf-8"))["mesh_portrait"]["tiny"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_file_of_a_folder_gets_its_row(tmp_path):
    heads, output = tmp_path / "heads", tmp_path / "trial"
    heads.mkdir()
    (heads / "person.glb").write_bytes(Path(embedded_portrait_files("amara")[0]).read_bytes())
    trimesh.creation.box().export(heads / "box.obj")
    overrides = [word for setting in TINY for word in ("--set", setting)]
    # The pack need not be installed where the script runs, nor be the current folder.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, str(ROOT / "scripts" / "field_trial.py"), str(heads), str(output), *overrides]
    done = subprocess.run(line, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    names, _, box, person = ((output / "table.md").read_text(encoding="utf-8").splitlines())[:4]
    columns = [name.strip() for name in names.split("|")]
    box, person = (dict(zip(columns, map(str.strip, row.split("|")), strict=True)) for row in (box, person))
    assert (box["head"], box["ended"]) == ("box.obj", "exit 2")
    assert (person["head"], person["ended"]) == ("person.glb", "avatar")
    assert 0 < float(person["surface_rms_face"]) < 0.02 and float(person["coverage"]) > 0.9
    assert person["eyeball"] == "0" and person["outside lips"].endswith("%")
    assert "box.obj:\n- animportrait3d: error" in done.stdout

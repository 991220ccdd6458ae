"""What the quickstart promises, measured on its own results: likeness, holes, the fit against the true landmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from animportrait3d_core.avatar.io import load_avatar
from animportrait3d_core.body.landmark_files import read_landmarks
from animportrait3d_core.embedded.identities import PORTRAIT_NAMES, embedded_portrait_files
from animportrait3d_core.evaluation.avatar import fit_landmark_error
from animportrait3d_core.portrait.alignment import HeadAlignment
from animportrait3d_core.workflow import RunSettings, load_registry, run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PORTRAIT_NAMES)
def test_the_quickstart_keeps_its_promises(name: str, tmp_path: Path) -> None:
    graph = json.loads((ROOT / "workflows" / "quickstart.json").read_text(encoding="utf-8"))
    overrides = (
        f"AP3D_PortraitFromMesh.file=embedded: {name}",
        "AP3D_InitializeAvatar.iterations=300",  # of 1000: already enough
        "Hold Still.frames=2",
        "Turntable.size=64",
        "Animate.size=64",
    )
    result = run(graph, load_registry(ROOT), RunSettings(output_directory=tmp_path, overrides=overrides))
    metrics = result.report.metrics["initial"]
    assert metrics["gaussians"] >= 20_000
    assert metrics["psnr_portrait"] > 28
    assert metrics["coverage"] > 0.95

    avatar = load_avatar(tmp_path / "avatar.safetensors")
    alignment = HeadAlignment.from_json(avatar.metadata["portrait_alignment"])
    truth = alignment.apply(read_landmarks(embedded_portrait_files(name)[1]).points_3d)
    assert fit_landmark_error(avatar.body, avatar.parameters, truth) < 0.02

"""docs/architecture.md is true: its list of modules is complete, its example of a node runs. No page has dead links."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from animportrait3d_core.cameras import view_preset
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.portrait.views import render_views
from animportrait3d_core.workflow.registry import load_registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_list_of_modules_is_up_to_date():
    script = runpy.run_path(str(ROOT / "scripts" / "list_modules.py"))
    assert script["page_with_list"](PAGE) == PAGE, "run scripts/list_modules.py"
    names = {file.stem for file in (ROOT / "animportrait3d_core").rglob("*.py")} - {"__init__"}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_example_of_a_node_runs(copied_pack, run_node):
    _, _, rest = PAGE.partition("```python\n")
    example, _, _ = rest.partition("```")
    (copied_pack / "nodes" / "example.py").write_text(example)
    run_example = type(run_node)(load_registry(copied_pack))
    solid = trimesh.creation.icosphere(radius=0.4)
    vertices, faces = torch.from_numpy(np.array(solid.vertices)).float(), torch.from_numpy(np.array(solid.faces))
    portrait = MeshPortrait(Mesh(vertices, faces, vertex_colors=vertices + 0.5))
    done = run_example("AP3D_ExampleViews", portrait=portrait, size=32)
    wanted = render_views(portrait, view_preset("heldout", 32), torch.ones(3))
    assert torch.equal(done.views.images, wanted.images) and torch.equal(done.images, wanted.images)
    assert len(done.ui["images"]) == 4

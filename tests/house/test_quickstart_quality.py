"""What the shipped graphs promise, measured on their own results: surface, parts, fit, likeness, holes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.avatar.io import load_avatar
from animportrait3d_core.body.landmark_files import read_landmarks
from animportrait3d_core.embedded.identities import PORTRAIT_NAMES, embedded_portrait_files, identity_mesh
from animportrait3d_core.embedded.identities.export import true_landmarks
from animportrait3d_core.embedded.portraits import SHIPPED_PORTRAITS, portrait_identity
from animportrait3d_core.evaluation.avatar import fit_landmark_error
from animportrait3d_core.evaluation.parts import parts_iou, true_mesh_parts, visible_areas
from animportrait3d_core.evaluation.surface import surface_error
from animportrait3d_core.portrait.alignment import HeadAlignment
from animportrait3d_core.surface import RefineSettings
from animportrait3d_core.surface.marching_cubes import smooth_mesh
from animportrait3d_core.workflow.runner import RunSettings, run
from animportrait3d_core.workflow.subgraphs import flatten

ROOT = Path(__file__).parents[2]
SHORTER = (
    "AP3D_InitializeAvatar.iterations=300",  # of 1000: already enough
    "Hold Still.frames=2",
    "Turntable.size=64",
    "Animate.size=64",
)


LITTLE_LEARNING = tuple(  # what the second stage is worth has tests of its own
    f"AP3D_{stage}.length=0.01" for stage in ("PretrainEyes", "PretrainMouth", "ISMOptimize", "SDEditRefine")
)


def run_graph(
    node_classes: Mapping[str, Any], graph_name: str, folder: Path, overrides: tuple[str, ...]
) -> dict[str, Any]:
    """First output of each node class of a shipped graph, whose avatar's likeness and holes are within the limits."""
    graph = json.loads((ROOT / "workflows" / f"{graph_name}.json").read_text(encoding="utf-8"))
    settings = RunSettings(output_directory=folder, overrides=(*overrides, *SHORTER))
    result = run(graph, node_classes, settings)
    metrics = result.report.metrics["initial"]
    assert metrics["gaussians"] >= 20_000
    assert metrics["psnr_portrait"] > 28
    assert metrics["coverage"] > 0.95
    done = ((node.class_type, result.nodes.get(key)) for key, node in flatten(graph).nodes.items())
    outputs = {kind: node.outputs[0] for kind, node in done if node is not None and node.outputs}
    return {**outputs, "avatar": load_avatar(folder / "avatar.safetensors")}


def fit_error(avatar: RiggedAvatar, truth: Tensor) -> float:
    """Mean distance of the rest pose's landmarks to the true ones, over the distance of the outer eye corners."""
    return fit_landmark_error(avatar.body, avatar.parameters, truth)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SHIPPED_PORTRAITS)
def test_the_quickstart_keeps_its_promises(node_classes, name: str, tmp_path: Path) -> None:
    """The truth is the person whose pictures the portrait's field was fitted to."""
    chosen = f"AP3D_LoadPortrait3D.file=embedded: {name}"
    made = run_graph(node_classes, "quickstart", tmp_path, (chosen, *LITTLE_LEARNING))
    identity = portrait_identity(name)
    truth = identity_mesh(identity)
    raw, refined = made["AP3D_ExtractMesh"], surface_error(made["AP3D_RefineMesh"], truth).mean_angle
    assert refined < 0.7 * surface_error(raw, truth).mean_angle
    # Smoothing alone would reach 0.7, too: the normals must add to it.
    assert refined < 0.9 * surface_error(smooth_mesh(raw, RefineSettings().smoothing_steps), truth).mean_angle
    parts = made["AP3D_FaceRevote"]
    found = parts_iou(parts.part_of_face, true_mesh_parts(parts.mesh, identity), visible_areas(parts.mesh))
    assert min(found.values()) > 0.9, found
    assert fit_error(made["avatar"], true_landmarks(identity)) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PORTRAIT_NAMES)
def test_the_mesh_portrait_keeps_its_promises(node_classes, name: str, tmp_path: Path) -> None:
    chosen = f"AP3D_PortraitFromMesh.file=embedded: {name}"
    made = run_graph(node_classes, "mesh_portrait", tmp_path, (chosen,))
    avatar = made["avatar"]
    alignment = HeadAlignment.from_json(avatar.metadata["portrait_alignment"])
    truth = alignment.apply(read_landmarks(embedded_portrait_files(name)[1]).points_3d)
    assert fit_error(avatar, truth) < 0.02

"""The segmentation nodes, called as a host calls them; the networks answer with the truth."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import animportrait3d_core.embedded.weights
import animportrait3d_core.networks
from animportrait3d_core.errors import InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.parts import PART_CLASSES
from animportrait3d_core.segmentation import ViewLabels
from animportrait3d_core.segmentation.images import class_images
from animportrait3d_core.views import Views
from tests.segmentation.shapes import (
    CENTER,
    FACE,
    FRONT,
    HAIR_LABEL,
    SIZE,
    around_cameras,
    box,
    parts_of,
    rendered,
    side_labels,
    side_of,
)

CAMERAS = around_cameras()
VOTE = {"profile": "fixed", "smoothing": 0.0, "least_island": 0.0, "correction_class": "hair", "correction_views": ""}
LABEL = {"network": "embedded", "label_set": "animportrait3d", "hair_network": "none"}


@pytest.fixture(scope="module")
def scene() -> SimpleNamespace:
    mesh = box(0.4, CENTER, 6)
    labels = rendered(mesh, side_labels(mesh), CAMERAS)
    masks = (labels.labels > 0).float()
    images = class_images(labels) * 0.5
    background = torch.zeros(3)
    views = Views(images * masks[..., None], masks, CAMERAS, background)
    return SimpleNamespace(mesh=mesh, labels=labels, views=views)


@pytest.fixture
def run(run_node, monkeypatch):
    """Runs a node; its previews are tiny."""
    monkeypatch.setattr(run_node.module("AP3D_FaceRevote"), "PREVIEW_SIZE", 24)
    return run_node


def one_hot(labels: ViewLabels) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels.labels.long(), len(PART_CLASSES)).float()


@pytest.fixture
def networks(monkeypatch, scene):
    """Networks by folder name, each with the probabilities it answers."""
    answers = {"embedded": one_hot(scene.labels)}
    package = animportrait3d_core.networks
    folders = {False: Path("embedded"), True: Path("embedded on surfaces")}
    weights = animportrait3d_core.embedded.weights
    monkeypatch.setattr(weights, "embedded_network_folder", lambda role, on_surfaces: folders[on_surfaces])
    monkeypatch.setattr(
        package, "load_network", lambda path, role, device: SimpleNamespace(classes=PART_CLASSES, name=Path(path).name)
    )
    monkeypatch.setattr(package, "segment_images", lambda network, images, progress, normals: answers[network.name])
    return answers


def test_views_with_their_surface_are_seen_by_the_network_for_surfaces(run, networks, scene) -> None:
    """Of volumes, whose normals are rough, by the one for pictures."""
    networks["embedded on surfaces"] = networks["embedded"].flip(-1)
    views = dataclasses.replace(scene.views, depth=torch.ones_like(scene.views.masks))
    for seen, network in ((scene.views, "embedded"), (views, "embedded on surfaces")):
        labels = run("AP3D_SegmentViews", views=seen, **LABEL).labels.labels
        assert torch.equal(labels.long(), networks[network].argmax(-1))


def test_from_views_to_parts_with_the_network(run, networks, scene) -> None:
    labelled = run("AP3D_SegmentViews", views=scene.views, **LABEL)
    assert torch.equal(labelled.labels.labels, scene.labels.labels)
    assert labelled.overlay.shape == (12, SIZE, SIZE, 3) and len(labelled.ui["images"]) == 8
    voted = run("AP3D_FaceRevote", mesh=scene.mesh, labels=labelled.labels, views=scene.views, **VOTE)
    assert torch.equal(voted.parts.part_of_face, parts_of(side_labels(scene.mesh)))
    assert voted.parts.mesh is scene.mesh
    assert voted.image.shape == (4, 24, 24, 3)
    painted = voted.mesh_3d.vertex_colors[0][voted.mesh_3d.faces[0]]
    assert len(painted) == 432 and len(painted.reshape(-1, 3).unique(dim=0)) == len(voted.parts.part_of_face.unique())
    assert voted.report.startswith("432 faces: hair") and voted.ui["text"] == [voted.report]


def test_painted_class_colours_come_back(run, networks, scene) -> None:
    colours = run("AP3D_SegmentViews", views=scene.views, **LABEL).class_colours
    chosen = {**LABEL, "network": "label images", "label_set": "class colours"}
    again = run("AP3D_SegmentViews", views=scene.views, label_images=colours, **chosen)
    assert torch.equal(again.labels.labels, scene.labels.labels)
    numbers = (scene.labels.labels.float() / 255)[..., None].expand(-1, -1, -1, 3)
    chosen["label_set"] = "animportrait3d"
    again = run("AP3D_SegmentViews", views=scene.views, label_images=numbers, **chosen)
    assert torch.equal(again.labels.labels, scene.labels.labels)


def test_hair_of_a_second_network_or_of_a_mask(run, networks, scene, monkeypatch) -> None:
    bald = scene.labels.labels.clone()
    bald[bald == HAIR_LABEL] = FACE
    hair = scene.labels.mask("hair").float()
    networks["embedded"] = one_hot(ViewLabels(bald))
    by_mask = run("AP3D_SegmentViews", views=scene.views, hair_mask=hair, **LABEL).labels
    assert torch.equal(by_mask.labels, scene.labels.labels)
    networks["network.json"] = one_hot(scene.labels)
    monkeypatch.setattr(run.module("AP3D_SegmentViews").host, "model_file", lambda where, key, name: Path(name))
    chosen = {**LABEL, "hair_network": "hair/network.json"}
    by_network = run("AP3D_SegmentViews", views=scene.views, **chosen).labels
    assert torch.equal(by_network.labels, scene.labels.labels)
    with pytest.raises(InvalidInput, match="both a hair mask and hair network"):
        run("AP3D_SegmentViews", views=scene.views, hair_mask=hair, **chosen)


def test_a_correction_at_the_vote_equals_corrected_labels(run, scene) -> None:
    mesh, vote = scene.mesh, {**VOTE, "correction_views": "0"}
    painted = rendered(mesh, torch.where(side_of(mesh) == FRONT, FACE, 0), CAMERAS[0]).mask("face").float()
    painted[:, :, SIZE // 2 :] = 0
    at_vote = run("AP3D_FaceRevote", mesh=mesh, labels=scene.labels, views=scene.views, correction=painted, **vote)
    corrected = run("AP3D_CorrectLabels", labels=scene.labels, mask=painted, class_name="hair", views="0")
    before = run("AP3D_FaceRevote", mesh=mesh, labels=corrected.labels, views=scene.views, **VOTE)
    assert torch.equal(at_vote.parts.part_of_face, before.parts.part_of_face)
    centers = mesh.vertices[mesh.faces].mean(1)
    expected = parts_of(torch.where((side_of(mesh) == FRONT) & (centers[:, 0] < 0), HAIR_LABEL, side_labels(mesh)))
    assert torch.equal(before.parts.part_of_face, expected)


def test_what_was_left_out_is_logged(run, scene, caplog) -> None:
    numbers = scene.labels.labels.clone()
    numbers[4] = 0
    with caplog.at_level(logging.WARNING, logger="animportrait3d"):
        run("AP3D_FaceRevote", mesh=scene.mesh, labels=ViewLabels(numbers), views=scene.views, **VOTE)
    assert caplog.messages == ["AP3D_FaceRevote: Left out, view 4: it has no foreground."]


def test_mattes(run, networks, scene) -> None:
    given = {"views": scene.views, "network": "embedded"}
    assert run("AP3D_MatteViews", method="field", **given).views is scene.views
    half = 0.5 * scene.views.masks
    half[:, : SIZE // 2] = scene.views.masks[:, : SIZE // 2]
    masked = run("AP3D_MatteViews", method="mask", mask=half, **given)
    assert torch.equal(masked.masks, half) and masked.views.cameras is scene.views.cameras
    torch.testing.assert_close(masked.images, scene.views.images * (half / scene.views.masks.clamp(min=0.1))[..., None])
    networks["embedded"] = one_hot(scene.labels)
    torch.testing.assert_close(run("AP3D_MatteViews", method="network", **given).masks, scene.views.masks)


def test_inputs_that_contradict_each_other_are_refused(run, networks, scene) -> None:
    given = {"views": scene.views, "network": "embedded"}
    with pytest.raises(InvalidInput, match="method 'field' and the mask is connected"):
        run("AP3D_MatteViews", method="field", mask=scene.views.masks, **given)
    with pytest.raises(InvalidInput, match="method 'mask' and the mask is not connected"):
        run("AP3D_MatteViews", method="mask", **given)
    with pytest.raises(InvalidInput, match="network 'embedded' and label images are connected"):
        run("AP3D_SegmentViews", views=scene.views, label_images=scene.views.images, **LABEL)
    with pytest.raises(InvalidInput, match="network 'label images' and label images are not connected"):
        run("AP3D_SegmentViews", views=scene.views, **{**LABEL, "network": "label images"})
    few = {"label_images": scene.views.images[:5], **LABEL, "network": "label images"}
    with pytest.raises(ShapeMismatch, match=r"AP3D_SegmentViews: `label_images` has shape \[5, .* expected \[12, H, W"):
        run("AP3D_SegmentViews", views=scene.views, **few)


def test_a_missing_network_is_named(run, scene) -> None:
    with pytest.raises(MissingModelFile, match="AP3D_SegmentViews: no file 'mine/network.json'"):
        run("AP3D_SegmentViews", views=scene.views, **{**LABEL, "network": "mine/network.json"})

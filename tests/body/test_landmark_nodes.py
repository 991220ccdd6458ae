"""AP3D_DetectLandmarks, the pictures that it and the fit show, and what AP3D_FitSMPLX makes of its inputs."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.body.fit import BodyFit
from animportrait3d_core.body.landmark_images import CONFIDENCE_COLORS, FITTED_COLOR, detections_image, fit_image
from animportrait3d_core.body.landmarks import Landmarks, landmarks_of_views
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import AvatarPart, MeshParts
from animportrait3d_core.views import Views

YAWS = [0, 80, 40, 180, -74, -76]


def views_at(yaws: list[float], size: int = 64) -> Views:
    cameras = orbit_cameras(yaws, [0] * len(yaws), size)
    images = torch.full((len(yaws), size, size, 3), 0.9)
    return Views(images, torch.ones(len(yaws), size, size), cameras, torch.ones(3))


def fake_detector(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A face in all views but the second, whose points and confidence are mere guesses."""
    points = torch.arange(68.0)[None, :, None].expand(len(images), 68, 2) * 0.5 + 10
    return points, torch.full((len(images), 68), 0.9), torch.arange(len(images)) != 1


def test_only_views_from_the_front_are_looked_at():
    seen = []

    def detect(views):
        seen.append(len(views))
        return fake_detector(views.images)

    landmarks = landmarks_of_views(views_at(YAWS), detect)
    assert seen == [3]
    assert (landmarks.confidence_2d.amax(1) > 0).tolist() == [True, False, False, False, True, False]
    assert float(landmarks.confidence_2d[0, 5]) == pytest.approx(0.9)
    assert landmarks.points_2d[4, 7].tolist() == [13.5, 13.5]


def test_views_without_a_face_have_no_confidence():
    def nobody(views):
        points, confidence, found = fake_detector(views.images)
        return points, confidence, torch.zeros_like(found)

    assert not landmarks_of_views(views_at(YAWS), nobody).confidence_2d.any()
    with pytest.raises(InvalidInput, match="none of the 2 views is within 75 degrees .*nearest: 80 degrees"):
        landmarks_of_views(views_at([80, 180]), nobody)


def test_the_color_of_a_point_tells_its_confidence():
    pixels = torch.full((1, 68, 2), 32.5)
    pixels[0, :, 0] = 4.5 + torch.arange(68) % 56
    confidence = torch.zeros(1, 68)
    confidence[0, [0, 10, 20]] = torch.tensor([0.1, 0.5, 1.0])
    image = detections_image(views_at([0]), Landmarks(points_2d=pixels, confidence=confidence))
    assert image.shape == (1, 512, 512, 3)
    for number, color in ((0, 0), (10, 2), (20, 4)):
        x, y = (8 * pixels[0, number]).long().tolist()
        assert image[0, y, x].tolist() == pytest.approx(CONFIDENCE_COLORS[color])
    assert float((image != 0.9).any(-1).float().sum()) == 3 * 9  # three squares, nothing else


def test_the_fit_is_shown_with_its_landmarks(mannequin_body):
    neutral = mannequin_body.neutral_parameters()
    parameters = neutral.replace(scale=torch.tensor([[2.78]]))
    parameters = parameters.replace(translation=torch.tensor([[0.0, -0.33, 0.0]]))
    views = views_at([90, 1, -41, 180, 38])
    fit = BodyFit(parameters, mannequin_body, {})
    image = fit_image(views, fit)
    assert image.shape == (4, 512, 512, 3)
    front = views[1].cameras.resized(512, 512)
    nose = project(front, mannequin_body(parameters).landmarks[0, 30:31])[0][0, 0]
    assert image[0, int(nose[1]), int(nose[0])].tolist() == pytest.approx(FITTED_COLOR)
    pixels, _ = project(views.cameras, mannequin_body(parameters).landmarks[0, :68] + torch.tensor([0.0, 0.1, 0.0]))
    marked = fit_image(views, fit, Landmarks(points_2d=pixels))
    green = torch.tensor(CONFIDENCE_COLORS[-1])
    assert int(((marked - green).abs().amax(-1) < 1e-6).sum((1, 2)).min()) > 60
    in_space = Landmarks(points_3d=mannequin_body(parameters).landmarks[0, :68] + torch.tensor([0.0, 0.1, 0.0]))
    assert torch.allclose(fit_image(views, fit, in_space), marked)
    # Detections in other views are shown by what they agree on.
    turned, points = views[[1, 2]].cameras, in_space.points_3d
    elsewhere = Landmarks(points_2d=project(turned, points)[0], cameras=turned)
    agreed = dataclasses.replace(fit, landmarks=(points, torch.ones(68)))
    assert torch.allclose(fit_image(views, agreed, elsewhere), marked)
    same = Landmarks(points_2d=pixels, cameras=views.cameras)
    assert torch.allclose(fit_image(views, fit, same), marked)


def test_the_node_detects_and_shows(run_node, monkeypatch, tmp_path):
    from animportrait3d_core import networks

    monkeypatch.setattr(networks, "load_network", lambda path, role, device: SimpleNamespace(role=role))
    monkeypatch.setattr(networks, "detect_landmarks", lambda network, images, progress, normals: fake_detector(images))
    from animportrait3d_core.embedded import weights

    monkeypatch.setattr(weights, "embedded_network_folder", lambda role, on_surfaces: tmp_path / role)
    seen = run_node("AP3D_DetectLandmarks", views=views_at(YAWS), most_yaw=75.0)
    assert seen.landmarks.points_2d.shape == (6, 68, 2)
    assert seen.image.shape == (3, 512, 512, 3)
    assert "text" not in seen.ui
    wide = run_node("AP3D_DetectLandmarks", views=views_at(YAWS), most_yaw=180.0).landmarks
    assert int((wide.confidence_2d.amax(1) > 0).sum()) == 5


def test_the_node_says_when_there_is_no_face(run_node, monkeypatch, tmp_path):
    from animportrait3d_core import networks

    def nobody(network, images, progress, normals):
        points, confidence, found = fake_detector(images)
        return points, confidence, torch.zeros_like(found)

    monkeypatch.setattr(networks, "load_network", lambda path, role, device: SimpleNamespace(role=role))
    monkeypatch.setattr(networks, "detect_landmarks", nobody)
    seen = run_node("AP3D_DetectLandmarks", views=views_at(YAWS), most_yaw=75.0)
    assert not seen.landmarks.confidence_2d.any()
    (said,) = seen.ui["text"]
    assert re.search("^warning: no face found in any of the 3 views within 75 .* 6 views, 64 x 64 pixels", said)


def test_a_missing_network_is_named(run_node):
    with pytest.raises(MissingModelFile, match="AP3D_DetectLandmarks: no file 'mine/network.json'.*ap3d_landmarks"):
        run_node("AP3D_DetectLandmarks", views=views_at(YAWS), network="mine/network.json")


def test_parts_stand_for_the_mesh_and_tell_what_covers_the_body(run_node, mannequin_body, monkeypatch):
    fits = []

    def fit(views, body, mesh, landmarks, settings, progress, covering):
        fits.append((mesh, covering))
        return BodyFit(body.neutral_parameters(), body, {}, () if covering is None else ("left out",))

    monkeypatch.setattr("animportrait3d_core.portrait.body_fit.fit_to_portrait", fit)
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 0]]))
    parts = MeshParts(mesh, torch.tensor([AvatarPart.HAIR, AvatarPart.SKIN, AvatarPart.CLOTHES], dtype=torch.uint8))
    given = {"views": views_at([0, 40]), "body": mannequin_body, "fit_expression": True, "error_limit": 0.035}
    assert run_node("AP3D_FitSMPLX", **given, parts=parts).ui["text"] == ["warning: left out"]
    assert "text" not in run_node("AP3D_FitSMPLX", **given, mesh=mesh).ui
    assert fits[0][0] is mesh and fits[0][1].tolist() == [True, False, True]
    assert fits[1] == (mesh, None)
    with pytest.raises(InvalidInput, match="AP3D_FitSMPLX: `mesh` and `parts` are connected; connect one"):
        run_node("AP3D_FitSMPLX", **given, mesh=mesh, parts=parts)

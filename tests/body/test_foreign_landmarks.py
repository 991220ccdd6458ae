"""Landmarks of MediaPipe and face-alignment: which point is which, sizes, several faces, consensus, bad input."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from animportrait3d_core.body.foreign_landmarks import (
    MEDIAPIPE_TO_IBUG,
    consensus_of_sources,
    landmarks_of_host,
    read_foreign_landmarks,
)
from animportrait3d_core.body.landmarks import Landmarks
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.landmarks import MIRRORED_LANDMARKS
from animportrait3d_core.views import Views

MEDIAPIPE_MIRROR = {33: 263, 133: 362, 61: 291, 78: 308, 234: 454, 105: 334, 97: 326, 152: 152, 13: 13, 14: 14, 4: 4}
"""Vertices of MediaPipe's mesh and their mirror images, by its documentation: eye corners, mouth corners, temples."""


def face(points: torch.Tensor, box=(0, 0, 10, 10), score=1.0, presence=20.0) -> dict:
    return {"landmarks_xy": points.numpy(), "bbox_xyxy": box, "score": score, "presence": presence}


def mesh_of(ibug: torch.Tensor) -> torch.Tensor:
    """478 points of which the right ones lie at the 68 given ones [68, 2]."""
    points = torch.full((478, 2), -50.0)
    points[list(MEDIAPIPE_TO_IBUG)] = ibug
    return points


def test_the_points_are_sixty_eight_and_mirror_each_other():
    assert len(set(MEDIAPIPE_TO_IBUG)) == 68 and max(MEDIAPIPE_TO_IBUG) < 468
    place = {vertex: number for number, vertex in enumerate(MEDIAPIPE_TO_IBUG)}
    for vertex, mirrored in MEDIAPIPE_MIRROR.items():
        assert MIRRORED_LANDMARKS[place[vertex]] == place[mirrored]
    assert place[33] == 36 and place[263] == 45 and place[152] == 8 and place[61] == 48  # the subject's right first


def test_the_hosts_value_becomes_pixels_of_the_views():
    """Pictures of 200 x 100 for views of 100 x 50; the larger of two faces; a picture without a face."""
    ibug = torch.rand(68, 2, generator=torch.Generator().manual_seed(0)) * 80
    frames = [[face(mesh_of(ibug * 0)), face(mesh_of(ibug), box=(0, 0, 60, 60), score=0.8, presence=0.0)], []]
    found = landmarks_of_host({"frames": frames, "image_size": (100, 200)}, 2, (50, 100))
    pixels, confidence = found.detections
    torch.testing.assert_close(pixels[0], ibug / 2)
    torch.testing.assert_close(confidence[0, 17:], torch.full((51,), 0.4))
    torch.testing.assert_close(confidence[0, :17], torch.full((17,), 0.2))
    assert float(confidence[1].max()) == 0


def test_files_of_both_layouts(tmp_path):
    ibug = torch.rand(68, 2, generator=torch.Generator().manual_seed(1))
    plain = {"image_size": [40, 80], "views": [(ibug * 40).tolist(), None]}
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    found = read_foreign_landmarks(tmp_path / "plain.json", 2, (20, 40))
    torch.testing.assert_close(found.detections[0][0], ibug * 20)
    task = {"face_landmarks": [[{"x": x, "y": y} for x, y in mesh_of(ibug).tolist()], []]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    found = read_foreign_landmarks(tmp_path / "task.json", 2, (20, 40))
    torch.testing.assert_close(found.detections[0][0], ibug * torch.tensor([40.0, 20.0]))


def test_sources_that_agree_are_averaged_and_a_lone_one_counts_half():
    points = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(2)) * 20
    points[:, 36], points[:, 45] = torch.tensor([0.0, 0.0]), torch.tensor([100.0, 0.0])
    near, far = points + torch.tensor([2.0, 0.0]), points.clone()
    far[:, 30] += 40
    first = Landmarks(points_2d=points, confidence=torch.full((1, 68), 0.9))
    others = [Landmarks(points_2d=p, confidence=torch.full((1, 68), 0.3)) for p in (near, far)]
    pixels, confidence = consensus_of_sources([first, others[0]]).detections
    torch.testing.assert_close(pixels, points + torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(confidence, torch.full((1, 68), 0.9))
    pixels, confidence = consensus_of_sources([first, others[1]]).detections
    torch.testing.assert_close(pixels, points)
    assert float(confidence[0, 30]) == pytest.approx(0.45) and float(confidence[0, 31]) == pytest.approx(0.9)


def test_sources_saw_the_same_views():
    points, (near, far) = torch.rand(1, 68, 2), (orbit_cameras([yaw], [0], 64) for yaw in (0, 20))
    bare, seen = Landmarks(points_2d=points), Landmarks(points_2d=points, cameras=near)
    assert consensus_of_sources([bare, bare]).cameras is None
    assert consensus_of_sources([bare, seen]).cameras is near and consensus_of_sources([seen, bare]).cameras is near
    with pytest.raises(InvalidInput, match="the sources saw different views"):
        consensus_of_sources([seen, Landmarks(points_2d=points, cameras=far)])


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="is no FACE_LANDMARKS"):
        landmarks_of_host([], 1, (8, 8))
    with pytest.raises(InvalidInput, match="landmarks of 1 pictures, expected 3"):
        landmarks_of_host({"frames": [[]], "image_size": (8, 8)}, 3, (8, 8))
    with pytest.raises(InvalidInput, match=r"picture 0 have shape \[70, 2\]"):
        landmarks_of_host({"frames": [[face(torch.zeros(70, 2))]], "image_size": (8, 8)}, 1, (8, 8))
    for text, words in {
        "{": "is not JSON",
        '{"x": 1}': "no landmarks of views",
        '{"views": [null]}': "'image_size'",
    }.items():
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidInput, match=words):
            read_foreign_landmarks(tmp_path / "bad.json", 1, (8, 8))


def test_the_node_takes_the_hosts_value(run_node):
    cameras = orbit_cameras([0.0, 40.0], [0.0, 0.0], 32)
    views = Views(torch.rand(2, 32, 32, 3), torch.ones(2, 32, 32), cameras, torch.ones(3))
    ibug = torch.rand(68, 2, generator=torch.Generator().manual_seed(3)) * 30
    value = {"frames": [[face(mesh_of(ibug))], []], "image_size": (32, 32)}
    made = run_node("AP3D_LandmarksFromHost", views=views, file="(none)", face_landmarks=value)
    torch.testing.assert_close(made.landmarks.detections[0][0], ibug)
    assert made.ui["text"] == ["1 of 2 views show a face; 1 sources"] and made.image.shape[0] == 1
    with pytest.raises(InvalidInput, match="connect `face_landmarks`, or choose a file"):
        run_node("AP3D_LandmarksFromHost", views=views, file="(none)")
    # Another source counts if it saw the same views.
    other = Landmarks(points_2d=made.landmarks.points_2d + 0.1, cameras=cameras)
    again = run_node("AP3D_LandmarksFromHost", views=views, file="(none)", face_landmarks=value, landmarks=other)
    moved = again.landmarks.points_2d[0] - ibug
    assert float(moved.min()) > 0.01 and float(moved.max()) < 0.09
    assert again.landmarks.cameras.same_as(cameras)
    elsewhere = dataclasses.replace(other, cameras=orbit_cameras([0.0, 41.0], [0.0, 0.0], 32))
    with pytest.raises(InvalidInput, match="different views"):
        run_node("AP3D_LandmarksFromHost", views=views, file="(none)", face_landmarks=value, landmarks=elsewhere)

"""Frames and films: cameras that go around, frames that are the posed avatar, mp4 files that play."""

from __future__ import annotations

import av
import pytest
import torch

from animportrait3d_core.animation import (
    front_cameras,
    render_motion,
    rest_motion,
    stress_clip,
    turntable_cameras,
    write_film,
)
from animportrait3d_core.animation.clips import StressClipSettings
from animportrait3d_core.animation.video import choose_encoder
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.cameras import yaw_of
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.parts import part_of_faces
from animportrait3d_core.render import render_gaussians

SIZE = 48


@pytest.fixture(scope="module")
def avatar(mannequin_body: BodyModel) -> RiggedAvatar:
    generator = torch.Generator().manual_seed(0)
    binding = torch.randint(len(mannequin_body.faces), (800,), generator=generator)
    gaussians = Gaussians(
        torch.zeros(800, 3), torch.tensor([[1.0, 0, 0, 0]]).repeat(800, 1), torch.full((800, 3), 0.7),
        torch.full((800,), 2.0), torch.rand(800, 1, 3, generator=generator),
    )  # fmt: skip
    rest = mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.32, 0.0]])
    )
    return RiggedAvatar(
        gaussians, binding, part_of_faces(mannequin_body.assets.face_regions)[binding], mannequin_body, rest
    )


def test_the_turntable_is_one_turn_that_starts_in_front() -> None:
    yaw = yaw_of(turntable_cameras(8, SIZE))
    torch.testing.assert_close(yaw.abs()[[0, 2, 4, 6]], torch.tensor([0.0, 90.0, 180.0, 90.0]), rtol=0, atol=1e-3)
    assert yaw[1] > 0
    assert yaw_of(front_cameras(3, SIZE)).abs().max() < 1e-4
    with pytest.raises(InvalidInput, match="0 frames"):
        turntable_cameras(0, SIZE)


def test_frames_are_the_posed_avatar_from_each_camera(avatar: RiggedAvatar) -> None:
    motion = stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))[:3]
    cameras, blue = turntable_cameras(3, SIZE), torch.tensor([0.1, 0.2, 0.9])
    seen = []
    frames = list(render_motion(avatar, motion, cameras, blue, lambda *report: seen.append(report)))
    for index, frame in enumerate(frames):
        gaussians = pose_avatar(avatar, motion.parameters[index])
        expected = render_gaussians(gaussians, cameras[index], background=blue).color[0].clamp(0, 1)
        assert torch.equal(frame, expected)
    assert [(step, total) for step, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert not torch.equal(frames[0], frames[1])
    with pytest.raises(InvalidInput, match="2 cameras for 3 frames"):
        next(render_motion(avatar, motion, turntable_cameras(2, SIZE)))


def test_frames_are_made_one_at_a_time(avatar: RiggedAvatar) -> None:
    seen = []
    frames = render_motion(
        avatar, rest_motion(avatar.parameters, 1000), front_cameras(1, 16), progress=lambda *report: seen.append(report)
    )
    next(frames)
    assert len(seen) == 1


def decoded(path) -> tuple[list, object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream.average_rate


@pytest.mark.parametrize("fps", [25.0, 29.97, 12.0])
def test_a_film_holds_its_frames_in_order(tmp_path, fps: float) -> None:
    levels = [0.1, 0.5, 0.9, 0.3]
    path = tmp_path / "film.mp4"
    frames = (torch.full((33, 47, 3), level) for level in levels)
    assert write_film(frames, path, fps) == choose_encoder()
    images, rate = decoded(path)
    assert [image.shape for image in images] == [(32, 46, 3)] * 4
    assert [image.mean() / 255 for image in images] == pytest.approx(levels, abs=0.03)
    assert float(rate) == pytest.approx(fps, rel=1e-3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


def test_colours_survive(tmp_path) -> None:
    frame = torch.zeros(64, 64, 3)
    frame[:32, :, 0] = 0.8
    frame[32:, :, 2] = 0.8
    write_film(frame[None], tmp_path / "film.mp4")
    image = decoded(tmp_path / "film.mp4")[0][0] / 255
    assert image[8:24, 8:56].mean(axis=(0, 1)) == pytest.approx([0.8, 0, 0], abs=0.06)
    assert image[40:56, 8:56].mean(axis=(0, 1)) == pytest.approx([0, 0, 0.8], abs=0.06)


def test_a_failed_film_leaves_nothing(tmp_path) -> None:
    def failing():
        yield torch.zeros(16, 16, 3)
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        write_film(failing(), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match="0 frames"):
        write_film([], tmp_path / "film.mp4")
    with pytest.raises(ShapeMismatch, match="a frame has shape"):
        write_film([torch.zeros(16, 16, 3), torch.zeros(16, 18, 3)], tmp_path / "film.mp4")
    with pytest.raises(InvalidInput, match="0 frames per second"):
        write_film([torch.zeros(16, 16, 3)], tmp_path / "film.mp4", fps=0)
    assert list(tmp_path.iterdir()) == []


def test_the_index_of_a_film_comes_before_its_pictures(tmp_path) -> None:
    """Or a browser loads all of the file before it shows the first one."""
    write_film(torch.rand(5, 32, 32, 3), tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    boxes, place = [], 0
    while place < len(data):
        boxes.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big")
    assert boxes.index(b"moov") < boxes.index(b"mdat")

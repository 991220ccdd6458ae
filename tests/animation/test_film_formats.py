"""Sound tracks, films with alpha, frames as pictures: each read back, and by the node that makes them."""

from __future__ import annotations

import dataclasses
import math

import av
import numpy as np
import pytest
import torch
from PIL import Image

from animportrait3d_core.animation import (
    front_cameras,
    over_background,
    render_motion,
    sound_of_audio,
    write_film,
    write_png_frames,
)
from animportrait3d_core.animation.clips import StressClipSettings, rest_motion, stress_clip
from animportrait3d_core.animation.sound import FILM_RATE, length_words
from animportrait3d_core.avatar import pose_avatar
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.render import rasterize_mesh, render_gaussians

SIZE, FPS, FRAMES = 32, 25.0, 25


def tone(seconds: float, rate: int = 44100, hertz: tuple[float, ...] = (440.0,)) -> dict:
    """An AUDIO of sines, one per channel, at half of full loudness."""
    time = torch.arange(round(seconds * rate)) / rate
    return {
        "waveform": 0.5 * torch.stack([torch.sin(2 * math.pi * one * time) for one in hertz])[None],
        "sample_rate": rate,
    }


def pictures(channels: int, count: int = FRAMES) -> torch.Tensor:
    """Frames [T, SIZE, SIZE, C], each of one colour, brighter from frame to frame."""
    level = torch.linspace(0.1, 0.9, count)[:, None, None, None]
    frames = level.expand(count, SIZE, SIZE, channels).clone()
    if channels == 4:
        frames[..., :16, 3], frames[:, :16, 16:, 3], frames[:, 16:, 16:, 3] = 0.0, 0.5, 1.0
    return frames


def read_sound(path) -> tuple[np.ndarray, str]:
    """Samples [C, T], and their codec."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        assert stream.rate == FILM_RATE
        samples = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(samples, 1), stream.codec_context.name


def read_cut_out(path) -> np.ndarray:
    """Frames [T, H, W, 4] of a webm: FFmpeg's own decoder leaves alpha out, the library's does not."""
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0])]
        frames = [frame for packet in packets for frame in decoder.decode(packet if packet.size else None)]
        return np.stack([frame.to_ndarray(format="rgba") for frame in frames]) / 255


@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.7], ids=["shorter", "as long", "longer"])
@pytest.mark.parametrize(("suffix", "channels", "codec"), [(".mp4", 3, "aac"), (".webm", 4, "opus")])
def test_a_sound_track_is_heard_where_it_was(tmp_path, suffix, channels, codec, seconds):
    path = tmp_path / f"film{suffix}"
    write_film(pictures(channels), path, FPS, sound_of_audio(tone(seconds, hertz=(440.0, 880.0))))
    samples, name = read_sound(path)
    assert name == codec and len(samples) == 2
    assert samples.shape[1] / FILM_RATE == pytest.approx(FRAMES / FPS, abs=0.03)
    time = np.arange(samples.shape[1]) / FILM_RATE
    for channel, hertz in zip(samples, (440.0, 880.0)):
        wanted = np.where(time < seconds, 0.5 * np.sin(2 * np.pi * hertz * time), 0.0)
        # A sample too early or too late costs 0.02 and more; the encoder's own loss is less. Not its edges.
        heard = (time > 0.03) & (time < min(seconds, 1.0) - 0.03)
        assert np.abs(channel - wanted)[heard].mean() < 0.015
        assert np.abs(channel[time > seconds + 0.03]).max(initial=0) < 0.01
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(container.streams.video[0])) == FRAMES


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_sounds_of_any_rate_keep_their_pitch(tmp_path, rate):
    write_film(pictures(3), tmp_path / "film.mp4", 29.97, sound_of_audio(tone(2.0, rate)))
    samples, _ = read_sound(tmp_path / "film.mp4")
    assert len(samples) == 1
    spectrum = np.abs(np.fft.rfft(samples[0][2000:] * np.hanning(samples.shape[1] - 2000)))
    assert np.argmax(spectrum) * FILM_RATE / (samples.shape[1] - 2000) == pytest.approx(440, abs=3)


def test_what_is_cut_or_silent_is_told():
    sound = sound_of_audio(tone(2.0))
    assert length_words(sound, 2.004) == []
    assert length_words(sound, 1.5) == ["The sound lasts 2.00 s, the film 1.50 s: the last 0.50 s are cut."]
    assert length_words(sound, 3.0) == ["The sound lasts 2.00 s, the film 3.00 s: it ends 1.00 s in silence."]


def test_sounds_that_cannot_be_are_refused():
    good = tone(0.1)
    for wrong, words in (
        ([0.0], "expected an AUDIO"),
        ({"waveform": good["waveform"]}, "expected an AUDIO"),
        (good | {"waveform": good["waveform"][0]}, r"\[1, 4410\], expected floats"),
        (good | {"waveform": good["waveform"].int()}, "expected floats"),
        (good | {"waveform": good["waveform"].repeat(2, 1, 1)}, "2 sounds"),
        (good | {"waveform": good["waveform"].repeat(1, 6, 1)}, "6 channels"),
        (good | {"waveform": good["waveform"][..., :0]}, "0 samples"),
        (good | {"sample_rate": 0}, "at 0 per second"),
        (good | {"waveform": good["waveform"] * float("nan")}, "not finite"),
    ):
        with pytest.raises(InvalidInput, match=words):
            sound_of_audio(wrong)
    assert sound_of_audio(good | {"waveform": good["waveform"] * 9}).waveform.abs().max() == 1


def test_a_film_keeps_its_alpha(tmp_path):
    frames = pictures(4)
    assert write_film(frames, tmp_path / "film.webm", FPS) == "libvpx-vp9"
    read = read_cut_out(tmp_path / "film.webm")
    assert read.shape == frames.shape
    inner = (slice(None), slice(4, 12), slice(20, 28))  # not at the borders
    assert np.abs(read[..., 3][inner] - 0.5).max() < 0.02
    assert read[:, 20:28, 20:28, 3].min() > 0.99 and read[:, :, 2:13, 3].max() < 0.01
    assert np.abs(read[:, 20:28, 20:28, :3].mean((1, 2, 3)) - frames[:, 0, 0, 0].numpy()).max() < 0.03
    with pytest.raises(ShapeMismatch, match=r"expected \[H, W, 4\]"):
        write_film(pictures(3), tmp_path / "other.webm")
    with pytest.raises(InvalidInput, match="'.gif', expected .mp4 or .webm"):
        write_film(pictures(3), tmp_path / "other.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["film.webm"]


def test_pictures_are_exact_and_all_or_none(tmp_path):
    frames = torch.rand(3, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    paths = write_png_frames(frames, tmp_path / "frames")
    assert [path.name for path in paths] == ["00000.png", "00001.png", "00002.png"]
    for path, frame in zip(paths, frames):
        assert np.array_equal(np.asarray(Image.open(path)), (frame * 255).round().byte().numpy())
    with pytest.raises(InvalidInput, match="is there already"):
        write_png_frames(frames, tmp_path / "frames")
    with pytest.raises(ShapeMismatch, match="the first"):
        write_png_frames([frames[0], frames[1, :4]], tmp_path / "frames", overwrite=True)
    assert len(write_png_frames(frames[:2], tmp_path / "frames", overwrite=True)) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["00000.png", "00001.png", "frames"]
    (tmp_path / "frames" / "diary.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="diary.txt"):
        write_png_frames(frames, tmp_path / "frames", overwrite=True)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_avatar_that_is_cut_out_is_the_same_before_any_background(make_avatar, level):
    avatar = make_avatar(300)
    motion, cameras = rest_motion(avatar.parameters, 1), front_cameras(1, 48)
    (frame,) = render_motion(avatar, motion, cameras, torch.full((3,), level), cut_out=True)
    assert frame.shape == (48, 48, 4) and 0.1 < float(frame[..., 3].mean()) < 0.9
    assert torch.equal(frame[0, 0], torch.tensor([level] * 3 + [0.0]))
    blue = torch.tensor([0.1, 0.2, 0.9])
    (wanted,) = render_motion(avatar, motion, cameras, blue)
    torch.testing.assert_close(over_background(frame, blue), wanted, rtol=0, atol=2e-3)  # alpha below half a byte
    (black,) = render_motion(avatar, motion, cameras, torch.zeros(3))
    visible = frame[..., 3] > 0.1
    torch.testing.assert_close((frame[..., :3] * frame[..., 3:])[visible], black[visible], rtol=0, atol=1e-5)


@pytest.fixture()
def animate(run_node, make_avatar):
    """The node, on a small avatar that holds still for four frames."""
    avatar = make_avatar(300)
    motion = rest_motion(avatar.parameters, 4, FPS)
    return lambda **inputs: run_node("AP3D_AnimateAvatar", avatar=avatar, motion=motion, size=64, **inputs)


def test_the_node_tells_what_became_of_the_sound(animate, tmp_path, caplog):
    done = animate(sound=tone(1.0))
    assert done.path == str(tmp_path / "output" / "motion.mp4")
    assert done.ui["text"] == ["warning: The sound lasts 1.00 s, the film 0.16 s: the last 0.84 s are cut."]
    assert done.ui["text"][0].removeprefix("warning: ") in caplog.text
    assert np.abs(read_sound(done.path)[0]).max() > 0.4
    silent = animate(sound=tone(4 / FPS))
    assert "text" not in silent.ui and silent.ui["animated"] == [True]
    assert torch.equal(silent.frames, animate().frames) and not av.open(silent.path).streams.audio


def test_the_node_makes_a_film_with_alpha(animate, tmp_path):
    done = animate(format="webm", sound=tone(4 / FPS))
    assert done.path == str(tmp_path / "output" / "motion.webm") and done.ui["images"][0]["filename"] == "motion.webm"
    read, wanted = read_cut_out(done.path), animate().frames
    assert read.shape == (4, 64, 64, 4) and read[:, 0, 0, 3].max() == 0 and read[..., 3].max() > 0.9
    torch.testing.assert_close(done.frames, wanted, rtol=0, atol=2e-3)
    shown = over_background(torch.from_numpy(read).float(), torch.ones(3))
    assert float((shown - wanted).abs().mean()) < 0.03
    assert read_sound(done.path)[1] == "opus"


def test_the_node_makes_pictures_with_alpha(animate, tmp_path):
    folder = tmp_path / "output" / "takes" / "motion_frames"
    for _ in range(2):  # the output folder belongs to one workflow, which may run again
        done = animate(format="png", filename="takes/motion", background="black")
    assert done.path == str(folder) and len(list(folder.iterdir())) == 4
    entry = {"filename": "00001.png", "subfolder": "takes/motion_frames", "type": "output"}
    assert done.ui == {"images": [entry]}
    pixels = torch.from_numpy(np.array(Image.open(folder / "00001.png"))).float() / 255
    torch.testing.assert_close(over_background(pixels, torch.zeros(3)), done.frames[1], rtol=0, atol=6e-3)
    with pytest.raises(InvalidInput, match="hold no sound; choose 'mp4' or 'webm'"):
        animate(format="png", sound=tone(1.0))


def test_alpha_is_the_renderers_own(make_avatar):
    avatar = make_avatar(300)
    motion, cameras = rest_motion(avatar.parameters, 1), front_cameras(1, 48)
    (frame,) = render_motion(avatar, motion, cameras, cut_out=True)
    gaussians = pose_avatar(avatar, motion.parameters[0])
    assert torch.equal(frame[..., 3], render_gaussians(gaussians, cameras).alpha[0].clamp(0, 1))


@pytest.mark.parametrize("camera", ["front", "turntable"])
def test_the_body_beside_the_avatar_stands_where_the_avatar_stands(make_avatar, run_node, camera):
    """An avatar of dots on the body: each lies within the body's picture, in motion and from all sides, but for the
    pixel by which a dot is wider than nothing."""
    avatar = make_avatar(4000)
    dots = dataclasses.replace(
        avatar.gaussians, means=torch.zeros(4000, 3), log_scales=torch.full((4000, 3), -4.0),
        logit_opacities=torch.full((4000,), 4.0),
    )  # fmt: skip
    avatar = dataclasses.replace(avatar, gaussians=dots)
    motion = stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))[::6]
    asked = {"avatar": avatar, "motion": motion, "size": 96, "camera": camera}
    alone, done = run_node("AP3D_AnimateAvatar", **asked), run_node("AP3D_AnimateAvatar", **asked, beside="body")
    assert done.frames.shape == (len(motion), 96, 192, 3) and len(done.highlights) == len(alone.highlights)
    left, right = done.frames.split(96, dim=2)
    assert torch.equal(left, alone.frames)
    dotted, covered = ((1 - side).amax(-1) > 0.1 for side in (left, right))
    near = torch.nn.functional.max_pool2d(covered.float(), 3, 1, 1) > 0
    assert 0.1 < float(dotted.float().mean()) and float((dotted & ~near).sum() / dotted.sum()) < 0.002
    assert float((right[1] - right[0]).abs().max()) > 0.1  # it moves
    with av.open(done.path) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (192, 96)


def test_normals_beside_the_avatar_are_those_of_its_body(make_avatar):
    """In the axes of the camera; where the body is not, the background, and no alpha."""
    avatar = make_avatar(50)
    motion, camera, size = rest_motion(avatar.parameters, 1), orbit_cameras([35.0], [10.0], 64), 64
    shown = {
        cut_out: next(render_motion(avatar, motion, camera, torch.zeros(3), None, cut_out, "normals"))[:, size:]
        for cut_out in (False, True)
    }
    alpha = shown[True][..., 3]
    assert set(alpha.unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}
    torch.testing.assert_close(over_background(shown[True], torch.zeros(3)), shown[False], rtol=0, atol=1e-6)
    vertices, faces = avatar.body(motion.parameters).vertices[0], avatar.body.faces_outward
    image = rasterize_mesh(vertices, faces, camera)
    a, b, c = vertices[faces].double().unbind(1)
    flat = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)[image.face_id[0].clamp_min(0)]
    rotation = camera.world_to_camera[0, :3, :3].double() * torch.tensor([1.0, -1.0, -1.0])[:, None]
    inner = alpha == 1
    cosine = ((flat @ rotation.T)[inner] * (2 * shown[False][inner] - 1).double()).sum(-1)
    assert float(cosine.median()) > 0.99 and float((cosine > 0.9).double().mean()) > 0.9
    assert torch.equal(shown[False][alpha == 0], torch.zeros(int((alpha == 0).sum()), 3))
    with pytest.raises(InvalidInput, match="'mesh', expected one of nothing, body, normals"):
        next(render_motion(avatar, motion, camera, beside="mesh"))


def test_the_body_stands_beside_the_avatar_in_every_format(animate):
    film = animate(format="webm", beside="normals")
    assert read_cut_out(film.path).shape == (4, 64, 128, 4)
    frames = animate(format="png", beside="body")
    assert np.array(Image.open(f"{frames.path}/00003.png")).shape == (64, 128, 4)


def test_four_views_are_four_films_in_one_and_the_body_stands_below(make_avatar, run_node):
    avatar = make_avatar(300)
    motion = stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))[:2]
    asked = {"avatar": avatar, "motion": motion, "size": 64, "camera": "four views"}
    alone, done = run_node("AP3D_AnimateAvatar", **asked), run_node("AP3D_AnimateAvatar", **asked, beside="normals")
    assert alone.frames.shape == (2, 64, 256, 3) and done.frames.shape == (2, 128, 256, 3)
    assert torch.equal(done.frames[:, :64], alone.frames)
    for column, yaw in enumerate((0.0, 45.0, 90.0, 180.0)):
        place = slice(64 * column, 64 * column + 64)
        one = list(render_motion(avatar, motion, orbit_cameras([yaw], [0.0], 64), beside="normals"))
        assert torch.equal(done.frames[:, :64, place], torch.stack(one)[:, :, :64])
        assert torch.equal(done.frames[:, 64:, place], torch.stack(one)[:, :, 64:])

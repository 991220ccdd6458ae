"""Small whole motion files of every format: a few frames each."""

from __future__ import annotations

import csv
import functools
import io
import json
from typing import Any

import numpy as np
import torch

from animportrait3d_core.animation import Motion
from animportrait3d_core.animation.arkit import ARKIT_NAMES
from animportrait3d_core.animation.files import save_motion
from tests.fuzz.format import Seed
from tests.fuzz.model_seeds import body, npz_of, written

FRAMES = 4


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Small numbers, some of them below 0."""
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def own_seeds() -> list[Seed]:
    rest = body().neutral_parameters()
    moved = rest.expand(FRAMES).replace(jaw_pose=torch.from_numpy(numbers(FRAMES, 3)))
    clips = (Motion(moved, 25.0, ("a",) * FRAMES), Motion(rest, 60.0))
    save = [functools.partial(save_motion, clip, body()) for clip in clips]
    return [Seed({"m.safetensors": written("m.safetensors", one)}) for one in save]


def npy_of(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def authors_seeds() -> list[Seed]:
    exp, pose = npy_of(numbers(FRAMES, 100)), npy_of(numbers(FRAMES, 15, seed=1))
    wide = npy_of(numbers(FRAMES, 50).astype(np.float64))
    return [Seed({"exp.npy": exp, "pose.npy": pose}, alike=True), Seed({"pose.npy": pose}), Seed({"exp.npy": wide})]


def flame_arrays(frames: int) -> dict[str, Any]:
    """As VHAP saves them, with what is not read."""
    widths = {"expr": 100, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    arrays: dict[str, Any] = {name: numbers(frames, width, seed=width) for name, width in widths.items()}
    return arrays | {"shape": np.zeros(300, np.float32), "image_size": np.array("none")}


def flame_seeds() -> list[Seed]:
    few = {name: flame_arrays(FRAMES)[name] for name in ("expr", "jaw_pose")}
    return [Seed({"m.npz": npz_of(flame_arrays(FRAMES))}), Seed({"m.npz": npz_of(few, compressed=True)})]


def folder_seeds() -> list[Seed]:
    frames = {f"flame_param/{index:05d}.npz": npz_of(flame_arrays(1)) for index in range(FRAMES)}
    return [Seed(frames, alike=True)]


def csv_seeds() -> list[Seed]:
    """Live Link Face's table, with one dropped frame, and one of a few columns without time codes."""
    names = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
    turns = ["HeadYaw", "HeadPitch", "HeadRoll"]
    head = [["Timecode", "BlendShapeCount", *names, *turns]]
    values = np.abs(numbers(FRAMES, len(names) + 3)).round(4)
    rows = [[f"10:20:30:{f}.5", len(names), *row] for f, row in zip((1, 2, 4, 5), values.tolist())]
    short = [["jawOpen", "eyeBlink_L"], [0.5, 0.1], [0.25, 0]]
    seeds = []
    for table in (head + rows, short):
        text = io.StringIO()
        csv.writer(text).writerows(table)
        seeds.append(Seed({"m.csv": text.getvalue().encode()}))
    return seeds


def json_seeds() -> list[Seed]:
    """Frames by name; names and weights; the host's faces with matrices, one frame without a face."""
    plain = [{"jawOpen": 0.1 * index, "eyeBlinkLeft": 0.5} for index in range(FRAMES)]
    matrix = np.eye(4).tolist()
    faces = [[{"blendshapes": frame, "transformation_matrix": matrix}] for frame in plain]
    named = {"fps": 30, "names": list(ARKIT_NAMES), "frames": [{"weights": [0.1] * 52}] * FRAMES}
    media = [[{"categoryName": "jawOpen", "score": 0.5}, {"categoryName": "_neutral", "score": 0.1}]] * FRAMES
    contents = (plain, named, {"metadata": {"fps": 24.0}, "frames": [*faces, []]}, media)
    return [Seed({"m.json": json.dumps(content).encode()}) for content in contents]

"""FLAME parameters of VHAP and GaussianAvatars: one npz of a sequence, or a folder with one npz per frame."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInput, MissingModelFile, ShapeMismatch
from .arrays import number_tensor, read_arrays
from .pose_track import PoseTrack, check_radians

WIDTHS: dict[str, int] = {"expr": 0, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
"""Arrays that are read; 0 is any width."""

PASSED_OVER = ("shape", "static_offset", "dynamic_offset", "lights", "focal_length", "camera_pose")
"""Arrays that trackers save beside them, which are no motion."""

LAYOUT = f"Expected arrays [T, n] named as VHAP and GaussianAvatars do: {', '.join(WIDTHS)}; the others are not needed."
MOST_FRAMES = 100_000


def read_flame(path: Path) -> PoseTrack:
    """The track of one npz. Expressions are those of FLAME, which are not SMPL-X's.

    As for the authors' files, FLAME's global rotation drives the neck and its neck the head.
    """
    arrays = read_arrays("read_motion", path)
    parts = _parts(path, arrays)
    return _track(parts, _unread(arrays, len(next(iter(parts.values())))))


def frame_files(folder: Path) -> list[Path]:
    """The files of a folder with one per frame, in the order of their numbers; also of its subfolder `flame_param`."""
    for place in (folder / "flame_param", folder):
        files = [file for file in place.glob("*.npz") if re.search(r"\d+$", file.stem)] if place.is_dir() else []
        if files:
            return sorted(files, key=_number)
    return []


def _number(file: Path) -> tuple[int, str]:
    return int(re.findall(r"\d+", file.stem)[-1]), file.name


def read_frames(folder: Path) -> PoseTrack:
    """The track of a folder as NeRSemble sequences have it, one npz per frame."""
    files = frame_files(folder)
    if not files:
        raise MissingModelFile(
            f"read_motion: '{folder}' holds no frames; expected files as flame_param/00000.npz, one per frame."
        )
    if len(files) > MOST_FRAMES:
        raise InvalidInput(f"read_motion: '{folder}' has {len(files)} frames, expected at most {MOST_FRAMES}.")
    frames = [_parts(file, read_arrays("read_motion", file)) for file in files]
    for file, frame in zip(files, frames):
        found = {name: tuple(value.shape) for name, value in frame.items()}
        first = {name: tuple(value.shape) for name, value in frames[0].items()}
        if found != first or any(shape[0] != 1 for shape in found.values()):
            raise ShapeMismatch(
                f"read_motion: '{file}' holds {found}, the first frame {first}; expected one frame each, alike."
            )
    numbers = [_number(file)[0] for file in files]
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    notes = (f"{missing} frames between {numbers[0]} and {numbers[-1]} have no file; the motion skips them.",)
    joined = {name: torch.cat([frame[name] for frame in frames]) for name in frames[0]}
    return _track(joined, notes if missing > 0 else ())


def _unread(arrays: Mapping[str, Any], frames: int) -> tuple[str, ...]:
    """What is told of numbers by frame, [T, n], under names that are not known: a motion of another format."""
    known = (*WIDTHS, *PASSED_OVER)
    names = [
        name
        for name, value in arrays.items()
        if name not in known and getattr(value, "ndim", 0) == 2 and len(value) == frames > 1
    ]
    told = f"Arrays of other names were not read: {', '.join(str(name)[:40] for name in names[:6])}. {LAYOUT}"
    return (told,) if names else ()


def _parts(path: Path, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """The known ones of a file's arrays, each [T, n]; a single frame may be a vector."""
    known = {name: value for name, value in arrays.items() if name in WIDTHS}
    if not set(known) & {"expr", "jaw_pose", "rotation", "neck_pose"}:
        names = ", ".join(sorted(str(name)[:40] for name in arrays)[:12]) or "none"
        raise InvalidInput(f"read_motion: '{path}' has no motion of FLAME; its arrays: {names}. {LAYOUT}")
    parts = {name: _part(path, name, value) for name, value in known.items()}
    lengths = {name: len(value) for name, value in parts.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ShapeMismatch(f"read_motion: '{path}': its arrays have unlike numbers of frames ({found}), expected one.")
    return parts


def _part(path: Path, name: str, value: Any) -> Tensor:
    tensor = number_tensor("read_motion", f"{path.name}: {name}", value)
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    if tensor.ndim != 2 or (WIDTHS[name] and tensor.shape[1] != WIDTHS[name]) or tensor.shape[1] > 300:
        wanted = WIDTHS[name] or "up to 300"
        raise ShapeMismatch(f"read_motion: '{path}': `{name}` has shape {list(tensor.shape)}, expected [T, {wanted}].")
    if name not in ("expr", "translation"):
        check_radians(f"read_motion: '{path}'", name, tensor)
    return tensor


def _track(parts: dict[str, Tensor], notes: tuple[str, ...]) -> PoseTrack:
    joints = {"rotation": "neck_pose", "neck_pose": "head_pose", "jaw_pose": "jaw_pose"}
    poses = {joint: parts[name] for name, joint in joints.items() if name in parts}
    if "eyes_pose" in parts:
        poses |= {"left_eye_pose": parts["eyes_pose"][:, :3], "right_eye_pose": parts["eyes_pose"][:, 3:]}
    return PoseTrack("flame", poses, parts.get("expr"), parts.get("translation"), notes=notes)

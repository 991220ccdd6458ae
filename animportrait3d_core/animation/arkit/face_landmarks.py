"""The host's FACE_LANDMARKS (MediaPipe faces of each frame of a video) as a track."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...rotations import matrix_to_axis_angle
from .frames import filled, track_weights
from .track import ArkitTrack

LAYOUT = (
    "Expected what MediaPipe Face Landmarker gives: {'frames': a list of faces for each frame, each with 'blendshapes' "
    "{name: strength}}."
)


def track_of_face_landmarks(landmarks: Any, fps: float, face: int = 0) -> ArkitTrack:
    """The track of one person. face: which face of the first frame that has so many; then the one nearest to it.

    The head is turned as `transformation_matrix` says, whose axes are the world's here. Raises `InvalidInput` for
    other values and where no frame has that many faces.
    """
    where = "track_of_face_landmarks"
    frames = landmarks.get("frames") if isinstance(landmarks, Mapping) else None
    if not isinstance(frames, Sequence) or not all(isinstance(faces, Sequence) for faces in frames):
        raise InvalidInput(f"{where}: a {type(landmarks).__name__} is no FACE_LANDMARKS. {LAYOUT}")
    chosen = _faces_of_one(frames, face)
    if not any(chosen):
        most = max((len(faces) for faces in frames), default=0)
        raise InvalidInput(
            f"{where}: no face {face} in {len(frames)} frames, which show at most {most} at once; choose face 0, or a "
            "lower confidence in the detector."
        )
    shapes = [found.get("blendshapes") if found else None for found in chosen]
    weights, notes = track_weights(where, shapes)
    return ArkitTrack(weights, fps, _head(where, chosen), notes)


def _faces_of_one(frames: Sequence[Sequence[Any]], face: int) -> list[Mapping[str, Any] | None]:
    """One face per frame, or None: the nearest to where it was seen last, if it can be the same person's."""
    shown = [[found for found in faces if isinstance(found, Mapping)] for faces in frames]
    alone = max((len(faces) for faces in shown), default=0) <= 1
    chosen: list[Mapping[str, Any] | None] = []
    last: Mapping[str, Any] | None = None
    lost = 0  # frames since it was seen
    for faces in shown:
        found = faces[face] if last is None and len(faces) > face else None
        if last is not None:
            found = min(faces, key=functools.partial(_distance, last), default=None)
            reach = math.inf if alone else (1 + lost) * _size(last)
            found = found if found is not None and _distance(last, found) <= reach else None
        chosen.append(found)
        last, lost = (last, lost + 1) if found is None else (found, 0)
    return chosen


def _distance(last: Mapping[str, Any], face: Mapping[str, Any]) -> float:
    return float((_center(face) - _center(last)).norm())


def _size(face: Mapping[str, Any]) -> float:
    """The longer side of the face's box in pixels: how far a face moves in a frame at most. Without a box, any way."""
    box = _box(face)
    return float((box[2:] - box[:2]).max()) if len(box) == 4 else math.inf


def _center(face: Mapping[str, Any]) -> Tensor:
    """Middle of the face's box in pixels."""
    box = _box(face)
    return (box[:2] + box[2:4]) / 2 if len(box) == 4 else torch.zeros(2)


def _box(face: Mapping[str, Any]) -> Tensor:
    """Left, top, right, bottom [4] in pixels; other numbers of them mean that there is no box."""
    return torch.as_tensor(face.get("bbox_xyxy", ()), dtype=torch.float32).reshape(-1)


def _head(where: str, faces: Sequence[Mapping[str, Any] | None]) -> Tensor | None:
    """Rotations [T, 3] of the faces; frames without a face are filled; None if no face has a matrix."""
    present = [index for index, face in enumerate(faces) if face and face.get("transformation_matrix") is not None]
    if not present:
        return None
    head = torch.zeros(len(faces), 3)
    for index in present:
        head[index] = rotation_of_matrix(where, (faces[index] or {})["transformation_matrix"])
    return filled(head, present)


def rotation_of_matrix(where: str, matrix: Any) -> Tensor:
    """Axis-angle [3] of the nearest rotation to the upper left of a matrix [4, 4] that also scales."""
    try:
        values = torch.as_tensor(matrix, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        # Texts, rows of unlike lengths, whole numbers that no float holds.
        raise InvalidInput(f"{where}: a transformation matrix is no table of numbers ({str(error)[:80]}).") from error
    if values.numel() != 16 or not bool(torch.isfinite(values).all()):
        raise InvalidInput(f"{where}: a transformation matrix of {values.numel()} numbers, expected 4 x 4 finite ones.")
    u, _, v = torch.linalg.svd(values.reshape(4, 4)[:3, :3])
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(u @ v).sign())]))
    return matrix_to_axis_angle(u @ flip @ v)

"""Landmarks that other detectors found in the views: MediaPipe's 478 points, the 68 of face-alignment; and a consensus.

MediaPipe's mesh has no jawline of iBUG's kind: those 17 points are taken from its face oval and count half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..files import json_of_file, require_file
from ..landmarks import JAWLINE, NUM_FACE_LANDMARKS
from .landmarks import Landmarks, outer_eye_distance

MEDIAPIPE_POINTS = (468, 478)
"""Without and with the irises."""

MEDIAPIPE_TO_IBUG = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""For each of the 68 landmarks the vertex of MediaPipe's face mesh that lies there."""

OVAL_CONFIDENCE = 0.5
AGREE = 0.05  # of the outer-eye distance: detections of several sources that mean one place
LAYOUT = (
    'Expected {"image_size": [height, width], "views": [points or null, ...]} or MediaPipe\'s own '
    '{"face_landmarks": [[{"x", "y"}, ...], ...]} with shares of width and height; 68, 468 or 478 points.'
)


def landmarks_of_host(value: Any, views: int, size: tuple[int, int]) -> Landmarks:
    """The host's FACE_LANDMARKS, found in the pictures of `views` views in their order, as pixels of views of `size`
    (height, width). Of several faces in a picture the largest counts; without any the confidence is 0."""
    where = "landmarks_of_host"
    frames = value.get("frames") if isinstance(value, Mapping) else None
    found = value.get("image_size") if isinstance(value, Mapping) else None
    if not isinstance(frames, Sequence) or not isinstance(found, Sequence) or len(found) != 2:
        raise InvalidInput(
            f"{where}: a {type(value).__name__} is no FACE_LANDMARKS, expected a dictionary of 'frames', a list of "
            "faces for each picture, and 'image_size' (height, width), as MediaPipe Face Landmarker gives."
        )
    _check_count(where, len(frames), views)
    chosen = [max((f for f in faces if isinstance(f, Mapping)), key=_extent, default=None) for faces in frames]
    rows = [None if face is None else face.get("landmarks_xy") for face in chosen]
    trust = [_trust(face) for face in chosen]
    return _of_rows(where, rows, trust, (float(found[0]), float(found[1])), size)


def read_foreign_landmarks(path: str | Path, views: int, size: tuple[int, int]) -> Landmarks:
    """Landmarks of the views from a JSON file of MediaPipe or face-alignment; see `LAYOUT`.

    Raises `MissingModelFile` without the file, `InvalidInput` for another layout, another number of views or points.
    """
    where = "read_foreign_landmarks"
    path = require_file(where, path, LAYOUT)
    try:
        content = json_of_file(path)
    except ValueError as error:
        raise InvalidInput(f"{where}: '{path.name}' is not JSON ({error}). {LAYOUT}") from error
    if isinstance(content, Mapping) and isinstance(content.get("face_landmarks"), list):
        rows = [_shares(where, path, face) for face in content["face_landmarks"]]
        found = (1.0, 1.0)
    elif isinstance(content, Mapping) and isinstance(content.get("views"), list):
        found = _size(where, path, content.get("image_size"))
        rows = content["views"]
    else:
        raise InvalidInput(f"{where}: '{path.name}' holds no landmarks of views. {LAYOUT}")
    _check_count(where, len(rows), views)
    return _of_rows(where, rows, [1.0] * len(rows), found, size)


def consensus_of_sources(sources: Sequence[Landmarks]) -> Landmarks:
    """One set of detections from several detectors' in the same views.

    Point by point: the mean, by confidence, of those within `AGREE` of the surest one; alone against another source
    even the surest counts half.
    """
    if not sources:
        raise InvalidInput("consensus_of_sources: there are no landmarks, expected at least one source.")
    known = [source.cameras for source in sources if source.cameras is not None]
    if not all(cameras.same_as(known[0]) for cameras in known):
        raise InvalidInput(
            "consensus_of_sources: the sources saw different views, expected the same ones (where Detect Landmarks "
            "has `close_views`, those)."
        )
    pixels = torch.stack([source.detections[0] for source in sources])
    confidence = torch.stack([source.detections[1] for source in sources])
    surest = confidence.argmax(0, keepdim=True)
    anchor = pixels.gather(0, surest[..., None].expand(1, -1, -1, 2))[0]
    unit = outer_eye_distance(anchor).clamp(min=1e-6)
    near = (pixels - anchor).norm(dim=-1) < AGREE * unit[None, :, None]
    weights = confidence * near
    total = weights.sum(0)
    mean = (pixels * weights[..., None]).sum(0) / total.clamp(min=1e-12)[..., None]
    against = ((confidence > 0) & ~near).any(0) & ((confidence > 0) & near).sum(0).eq(1)
    best = confidence.amax(0) * torch.where(against, 0.5, 1.0)
    points = torch.where(total[..., None] > 0, mean, anchor)
    return Landmarks(points_2d=points, confidence=best, cameras=known[0] if known else None)


def _check_count(where: str, found: int, views: int) -> None:
    if found != views:
        raise InvalidInput(
            f"{where}: landmarks of {found} pictures, expected {views}: give the detector the `images` of these views, "
            "all of them and in their order."
        )


def _extent(face: Mapping[str, Any]) -> float:
    box = [float(number) for number in face.get("bbox_xyxy", (0, 0, 0, 0))]
    return max(box[2] - box[0], box[3] - box[1]) if len(box) == 4 else 0.0


def _trust(face: Mapping[str, Any] | None) -> float:
    """Score times presence (a logit) of a face of the host, 0 to 1."""
    if face is None:
        return 0.0
    score = torch.tensor(float(face.get("score", 1.0))).clamp(0, 1)
    return float(score * torch.tensor(float(face.get("presence", 10.0))).sigmoid())


def _shares(where: str, path: Path, face: Any) -> list[list[float]] | None:
    if not face:
        return None
    try:
        return [[float(point["x"]), float(point["y"])] for point in face]
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(f"{where}: '{path.name}' holds a face without x and y ({error}). {LAYOUT}") from error


def _size(where: str, path: Path, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, (int, float)) and n > 0 for n in value):
        raise InvalidInput(f"{where}: '{path.name}' has no 'image_size' of two numbers. {LAYOUT}")
    return float(value[0]), float(value[1])


def _of_rows(
    where: str, rows: Sequence[Any], trust: Sequence[float], found: tuple[float, float], size: tuple[int, int]
) -> Landmarks:
    """Landmarks of rows of points, None without a face; in pixels of `found` (height, width), for `size`."""
    points = torch.zeros(len(rows), NUM_FACE_LANDMARKS, 2)
    confidence = torch.zeros(len(rows), NUM_FACE_LANDMARKS)
    scale = torch.tensor([size[1] / found[1], size[0] / found[0]])
    for view, row in enumerate(rows):
        if row is None:
            continue
        values, sure = _ibug(where, view, row)
        points[view], confidence[view] = values * scale, sure * trust[view]
    return Landmarks(points_2d=points, confidence=confidence)


def _ibug(where: str, view: int, row: Any) -> tuple[Tensor, Tensor]:
    """The 68 points [68, 2] of a face's, and how surely each of them is what iBUG means [68]."""
    try:
        values = torch.as_tensor(row, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{where}: the landmarks of picture {view} are no numbers ({error}). {LAYOUT}") from error
    sure = torch.ones(NUM_FACE_LANDMARKS)
    counts = (NUM_FACE_LANDMARKS, *MEDIAPIPE_POINTS)
    if values.ndim != 2 or len(values) not in counts or values.shape[1] not in (2, 3) or not values.isfinite().all():
        raise InvalidInput(
            f"{where}: the landmarks of picture {view} have shape {list(values.shape)}, expected finite ones of "
            f"{', '.join(map(str, counts))} points with x and y. {LAYOUT}"
        )
    if len(values) != NUM_FACE_LANDMARKS:
        values = values[list(MEDIAPIPE_TO_IBUG)]
        sure[JAWLINE] = OVAL_CONFIDENCE
    return values[:, :2], sure

"""The lids of a head by its shape alone, for heads on whose pictures no face is found.

The relief of the eyes (`face_relief`) is looked for around its place; with what nose and mouth give, the head is placed
anew, and so again. Measured on three heads that others made (docs/field.md): the lids come within 6 to 9 % of the
outer-eye distance, where a fit to the surface alone leaves them 11 to 16 % off, for skin without landmarks slides. Nose
and mouth are found too loosely to be more than a help on the way.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..body.landmarks import Landmarks
from ..landmarks import INNER_FACE, LEFT_BROW, LEFT_EYE, NUM_FACE_LANDMARKS, RIGHT_BROW, RIGHT_EYE
from ..meshes import Mesh
from .alignment import HandAlignment, HeadAlignment, align_by_hand, fit_similarity
from .face_relief import FEATURES, STEP, WINDOW, correlations, depth_maps, first_hits, relief_of, window_at
from .head_target import HeadTarget

ROUNDS = 3
DOWN, ACROSS = range(-8, 9), range(-3, 4)  # shifts in ray spacings
NEARER = 0.001  # correlation that one spacing squared costs
LEAST_EYES = 0.6  # correlation: glasses and fringes are below it
NEAR = 0.15  # of the head's height: how far a landmark may lie from the body's
WITH = {"right eye": RIGHT_BROW, "left eye": LEFT_BROW}


@dataclasses.dataclass(frozen=True)
class EyesByRelief:
    """landmarks: in space, of confidence 1 on the lids and 0 elsewhere.  correlation: of the eyes' relief, 0 to 1."""

    landmarks: Landmarks
    correlation: float

    @property
    def is_sure(self) -> bool:
        """Whether they are worth a fit."""
        return self.correlation >= LEAST_EYES


def eyes_by_relief(mesh: Mesh, target: HeadTarget) -> EyesByRelief:
    """The lids on a mesh that lies in the head frame about as the target does."""
    placed, inner = align_by_hand(HandAlignment()), list(range(NUM_FACE_LANDMARKS))[INNER_FACE]
    for _ in range(ROUNDS):
        shifts, correlation = _shifts(mesh, target, placed)
        points = placed.inverse_apply(_on_surface(_moved(target, shifts), mesh, target, placed))
        rotation, scale, translation, _ = fit_similarity(points[inner], target.landmarks[inner])
        placed = HeadAlignment(rotation.float(), scale, translation.float(), "landmarks")
    confidence = torch.zeros(NUM_FACE_LANDMARKS)
    confidence[RIGHT_EYE] = confidence[LEFT_EYE] = 1.0
    return EyesByRelief(Landmarks(points_3d=points.float(), confidence=confidence), correlation)


def _shifts(mesh: Mesh, target: HeadTarget, placed: HeadAlignment) -> tuple[dict[str, tuple[float, float]], float]:
    """How far each feature lies from the target's, across and up in head units; and the correlation of the eyes."""
    depths = depth_maps(mesh, target, placed)
    if not (depths.own_seen & depths.other_seen).any():
        return dict.fromkeys(FEATURES, (0.0, 0.0)), 0.0
    own, other = (
        relief_of(depth, mask, target.height)
        for depth, mask in ((depths.own, depths.own_seen), (depths.other, depths.other_seen))
    )
    places, seen = target.landmarks.double().numpy(), depths.other_seen.astype(np.float64)
    cost = NEARER * (np.square(DOWN)[:, None] + np.square(ACROSS)[None])
    found = {}
    for name, points in FEATURES.items():
        window = window_at(depths, places[points].mean(0), WINDOW * target.height) * depths.own_seen
        found[name] = correlations(own, other, window, seen, DOWN, ACROSS) - cost
    unit = STEP * target.height
    both = (found["right eye"] + found["left eye"][:, ::-1]) / 2
    up, across = _peak(both)
    shifts = {"right eye": (-across * unit, -up * unit), "left eye": (across * unit, -up * unit)}
    middle = slice(len(ACROSS) // 2 - 1, len(ACROSS) // 2 + 2)
    for name in ("nose", "mouth"):
        alone = np.full_like(found[name], -1.0)
        alone[:, middle] = found[name][:, middle]
        up, across = _peak(alone)
        shifts[name] = (-across * unit, -up * unit)
    return shifts, float(both.max())


def _peak(values: np.ndarray) -> tuple[float, float]:
    """Shifts down and across of the largest value, between the steps by a parabola."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return DOWN[row] + _vertex(values[:, column], int(row)), ACROSS[column] + _vertex(values[row], int(column))


def _vertex(values: np.ndarray, place: int) -> float:
    if not 0 < place < len(values) - 1:
        return 0.0
    before, here, after = values[place - 1 : place + 2]
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))


def _moved(target: HeadTarget, shifts: dict[str, tuple[float, float]]) -> Tensor:
    """The target's landmarks [68, 3] float64, each with its feature; brows go with their eyes, the jaw stays."""
    points = target.landmarks[:NUM_FACE_LANDMARKS].double().clone()
    for name, part in FEATURES.items():
        shift = torch.tensor(shifts[name], dtype=torch.float64)
        points[part, :2] += shift
        if name in WITH:
            points[WITH[name], :2] += shift
    return points


def _on_surface(points: Tensor, mesh: Mesh, target: HeadTarget, placed: HeadAlignment) -> Tensor:
    """Points [N, 3] of the head frame moved along z onto the mesh, where it is near."""
    start = points.clone()
    start[:, 2] = float(target.mesh.vertices[:, 2].max()) + 0.3 * target.height
    toward = np.array([0.0, 0.0, -1.0]) @ placed.rotation.double().numpy()
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
    hit, distance = first_hits(vertices, faces, placed.inverse_apply(start).numpy(), toward)
    depth = start[:, 2] - torch.from_numpy(distance) * placed.scale
    is_near = torch.from_numpy(hit >= 0) & ((depth - points[:, 2]).abs() < NEAR * target.height)
    return torch.cat([points[:, :2], torch.where(is_near, depth, points[:, 2])[:, None]], dim=1)

"""Bringing a mesh into the head frame: by landmarks, by hand, or (in `head_search`) by itself.

The head frame is the world of the standard cameras: y up, face to +z, the subject's left at +x, eyes near y = 0.42.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..cameras import project, view_preset
from ..errors import InvalidInput, check_finite, check_shape
from ..head_frame import EYE_HEIGHT, VIEW_BOTTOM, VIEW_RADIUS
from ..landmarks import LANDMARK_NAMES, NUM_BODY_LANDMARKS, NUM_FACE_LANDMARKS
from ..meshes import Mesh, compact
from .head_target import HeadTarget

SCHEMA_VERSION = 1
AXES = {"+x": (1, 0, 0), "-x": (-1, 0, 0), "+y": (0, 1, 0), "-y": (0, -1, 0), "+z": (0, 0, 1), "-z": (0, 0, -1)}


@dataclasses.dataclass(frozen=True)
class HeadAlignment:
    """A similarity transform into the head frame: head = scale * rotation @ file + translation.

    rotation: [3, 3] float32, proper.  scale: more than 0.  translation: [3] float32.  method: 'landmarks', 'by hand',
    'found' or 'seen'.  residual: root mean square landmark error, or mean distance of the face to the surface, in head
    units (a head is about 0.65 high); 0 by hand.  relief: agreement of the face's relief with the body's, -1 to 1,
    where the alignment was found; else None.
    """

    rotation: Tensor
    scale: float
    translation: Tensor
    method: str
    residual: float = 0.0
    relief: float | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("HeadAlignment", "rotation", self.rotation, [3, 3])
        check_shape("HeadAlignment", "translation", self.translation, [3])
        check_finite("HeadAlignment", "translation", self.translation)
        error = float((self.rotation.double() @ self.rotation.double().T - torch.eye(3).double()).abs().max())
        if not error < 1e-4 or float(torch.linalg.det(self.rotation.double())) < 0:
            raise InvalidInput(
                f"HeadAlignment: `rotation` is off a proper rotation by {error:.3g}, expected under 1e-4."
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InvalidInput(f"HeadAlignment: scale {self.scale}, expected more than 0.")

    def apply(self, points: Tensor) -> Tensor:
        """Points [..., 3] of the file in the head frame; float64 inside."""
        moved = self.scale * points.double() @ self.rotation.double().T + self.translation.double()
        return moved.to(points.dtype)

    def apply_to_mesh(self, mesh: Mesh) -> Mesh:
        """The mesh in the head frame."""
        return dataclasses.replace(mesh, vertices=self.apply(mesh.vertices))

    def to_json(self) -> str:
        """The transform as JSON, for the metadata of what is made of the portrait."""
        values = {"rotation": self.rotation.tolist(), "scale": self.scale, "translation": self.translation.tolist()}
        return json.dumps({"method": self.method, **values})

    @classmethod
    def from_json(cls, text: str) -> HeadAlignment:
        """Inverse of `to_json`."""
        values = json.loads(text)
        return cls(
            torch.tensor(values["rotation"]), values["scale"], torch.tensor(values["translation"]), values["method"]
        )

    def inverse_apply(self, points: Tensor) -> Tensor:
        """Points [..., 3] of the head frame in the file's frame."""
        moved = (points.double() - self.translation.double()) @ self.rotation.double() / self.scale
        return moved.to(points.dtype)


@dataclasses.dataclass(frozen=True)
class HandAlignment:
    """An alignment typed in by the user.

    up, face: the file's axes that point up and out of the face, of '+x' ... '-z'.  turn_degrees: small turns about the
    head's own x (nod), y (turn) and z (tilt) axes, applied in this order after the axes.  scale: head units per unit of
    the file.  translation: moves the result, in head units.
    """

    up: str = "+y"
    face: str = "+z"
    turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, alignment: HeadAlignment) -> HandAlignment:
        """What to type for an alignment: the nearest axes, and turns for the rest. `align_by_hand` gives it again."""
        rotation = alignment.rotation.double()
        up = int(rotation[1].abs().argmax())
        face = int(rotation[2].abs().index_fill(0, torch.tensor(up), -1.0).argmax())
        names = [f"{'+' if rotation[row, axis] > 0 else '-'}{'xyz'[axis]}" for row, axis in ((1, up), (2, face))]
        axes = cls(up=names[0], face=names[1])
        rest = rotation @ align_by_hand(axes).rotation.double().T  # tilt after turn after nod
        nod = math.atan2(rest[2, 1], rest[2, 2])
        turn = math.asin(max(-1.0, min(1.0, -float(rest[2, 0]))))
        tilt = math.atan2(rest[1, 0], rest[0, 0])
        nod, turn, tilt = (math.degrees(angle) for angle in (nod, turn, tilt))
        x, y, z = alignment.translation.tolist()
        return cls(axes.up, axes.face, (nod, turn, tilt), alignment.scale, (x, y, z))

    def words(self) -> str:
        """The settings by the names of their inputs."""
        nod, turn, tilt = self.turn_degrees
        numbers = {"nod": nod, "turn": turn, "tilt": tilt, "scale": self.scale}
        numbers |= dict(zip(("move_x", "move_y", "move_z"), self.translation))
        return ", ".join([f"up {self.up}", f"face {self.face}", *(f"{name} {n:.5g}" for name, n in numbers.items())])


def align_by_hand(settings: HandAlignment) -> HeadAlignment:
    """The alignment of typed axes, turns, scale and translation."""
    for name in (settings.up, settings.face):
        if name not in AXES:
            raise InvalidInput(f"align_by_hand: axis '{name}' is unknown, expected one of {', '.join(AXES)}.")
    up = torch.tensor(AXES[settings.up], dtype=torch.float64)
    face = torch.tensor(AXES[settings.face], dtype=torch.float64)
    if float(up @ face) != 0:
        raise InvalidInput(f"align_by_hand: up {settings.up} and face {settings.face} lie on one axis; choose two.")
    rotation = torch.stack([torch.linalg.cross(up, face), up, face])
    for axis, degrees in enumerate(settings.turn_degrees):
        rotation = _turn(axis, math.radians(degrees)) @ rotation
    translation = torch.tensor(settings.translation, dtype=torch.float32)
    return HeadAlignment(rotation.float(), settings.scale, translation, "by hand")


def _turn(axis: int, angle: float) -> Tensor:
    """Right-handed rotation [3, 3] float64 about a coordinate axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def align_by_landmarks(landmarks: Mapping[str, Tensor] | Tensor, target: HeadTarget) -> HeadAlignment:
    """The similarity that brings 3D landmarks of the mesh onto those of the target.

    landmarks: points of the file, either [68, 3] or [70, 3] in iBUG order, or by name (`LANDMARK_NAMES`), at least
    three that are not in one line.
    """
    if isinstance(landmarks, Mapping):
        unknown = sorted(set(landmarks) - set(LANDMARK_NAMES))
        if unknown:
            raise InvalidInput(
                f"align_by_landmarks: landmark '{unknown[0]}' is unknown, expected some of {', '.join(LANDMARK_NAMES)}."
            )
        index = [LANDMARK_NAMES[name] for name in landmarks]
        rows = [torch.as_tensor(point, dtype=torch.float32).reshape(-1) for point in landmarks.values()]
        if any(len(row) != 3 for row in rows):
            raise InvalidInput("align_by_landmarks: every landmark needs 3 coordinates.")
        source = torch.stack(rows) if rows else torch.zeros(0, 3)
    else:
        source = torch.as_tensor(landmarks, dtype=torch.float32)
        if source.ndim != 2 or source.shape[1] != 3 or len(source) not in (NUM_FACE_LANDMARKS, NUM_BODY_LANDMARKS):
            raise InvalidInput(
                f"align_by_landmarks: landmarks of shape {list(source.shape)}, expected [68, 3] or [70, 3]."
            )
        index = list(range(len(source)))
    check_finite("align_by_landmarks", "landmarks", source)
    rotation, scale, translation, residual = fit_similarity(source, target.landmarks[index])
    return HeadAlignment(rotation.float(), scale, translation.float(), "landmarks", residual)


def fit_similarity(
    source: Tensor, target: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, float, Tensor, float]:
    """Rotation [3, 3], scale and translation [3] (float64) of least squares from source [N, 3] to target [N, 3].

    Closed form of Umeyama (1991), "Least-squares estimation of transformation parameters between two point patterns",
    never a reflection.  weights: [N], not negative.  The last value is the weighted root mean square error.  Fewer than
    three points, or points in one line, are refused.
    """
    check_shape("fit_similarity", "target", target, [len(source), 3])
    source, target = source.double(), target.double()
    weights = torch.ones(len(source)).double() if weights is None else weights.double()
    share = weights / weights.sum().clamp(min=1e-30)
    source_mean, target_mean = share @ source, share @ target
    centred_source, centred_target = source - source_mean, target - target_mean
    spread = torch.linalg.svdvals(centred_source * share.sqrt()[:, None])
    if len(source) < 3 or not bool(spread[1] > 1e-6 * spread[0]):
        raise InvalidInput(
            f"fit_similarity: {len(source)} points that do not span a plane, expected at least 3 not in one line."
        )
    covariance = centred_target.T @ (centred_source * share[:, None])
    left, values, right = torch.linalg.svd(covariance)
    sign = torch.ones(3, dtype=torch.float64)
    # The reflection guard: the least significant direction is turned when the best orthogonal matrix mirrors.
    sign[2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = left @ torch.diag(sign) @ right
    scale = float((values * sign).sum() / (share * centred_source.pow(2).sum(1)).sum())
    if not scale > 0:
        raise InvalidInput("fit_similarity: the points are mirror images of each other; are left and right exchanged?")
    translation = target_mean - scale * rotation @ source_mean
    error = scale * source @ rotation.T + translation - target
    return rotation, scale, translation, float((share * error.pow(2).sum(1)).sum().sqrt())


def crop_to_view(mesh: Mesh) -> Mesh:
    """The part of an aligned mesh that the standard cameras can see: torso and far-away parts are left out.

    Keeps the faces with a corner above y = -0.85 and within 1.3 of the vertical axis; a mesh with none is refused.
    """
    vertices = mesh.vertices
    inside = (vertices[:, 1] > VIEW_BOTTOM) & (vertices[:, [0, 2]].norm(dim=1) < VIEW_RADIUS)
    keep = inside[mesh.faces].any(dim=1)
    if bool(keep.all()):
        return mesh
    if not bool(keep.any()):
        low, high = vertices.min(0).values.tolist(), vertices.max(0).values.tolist()
        raise InvalidInput(
            f"crop_to_view: no face of the mesh is in view: it lies at {_numbers(low)} to {_numbers(high)}, the view "
            f"is above y = {VIEW_BOTTOM} and within {VIEW_RADIUS} of the vertical axis; align the mesh first."
        )
    return compact(mesh, keep)


def framing_warnings(mesh: Mesh) -> list[str]:
    """A sentence for the user if standard views cut off the top of an aligned mesh: what none shows cannot be learned.

    They always cut a bust at its lower end.
    """
    cameras, highest = view_preset("heldout", 64), mesh.vertices[mesh.vertices[:, 1].argmax()]
    rows = project(cameras, highest[None])[0][:, 0, 1]
    cut = int((rows < 0).sum())
    if cut == 0:
        return []
    return [
        f"the mesh reaches up to y = {float(highest[1]):.2f} (eyes are at {EYE_HEIGHT}), which {cut} of {len(cameras)} "
        "standard views cut off: what lies above is badly seen. Align it by hand with a smaller scale, or take it off."
    ]


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"

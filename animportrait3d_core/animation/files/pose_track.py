"""Poses as trackers record them, and how they become the motion of an avatar."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...body.model import BodyModel
from ...body.parameters import BodyParameters
from ...errors import InvalidInput, ShapeMismatch, check_finite
from ..motion import Motion

EXPRESSIONS = ("matching", "always", "never")
POSES = ("neck_pose", "head_pose", "jaw_pose", "left_eye_pose", "right_eye_pose")
MOST_RADIANS = 10.0
"""A rotation beyond this is no axis-angle vector in radians: degrees, most likely."""


def check_radians(where: str, name: str, turns: Tensor) -> None:
    """Raise `InvalidInput` unless axis-angle vectors [T, 3 n] can be radians."""
    most = float(turns.reshape(-1, 3).norm(dim=1).max())
    if most > MOST_RADIANS:
        raise InvalidInput(
            f"{where}: `{name}` turns by {most:.0f}, expected axis-angle in radians of at most {MOST_RADIANS:.0f}; "
            "convert degrees to radians."
        )


@dataclasses.dataclass(frozen=True)
class PoseTrack:
    """T frames of a tracked head.

    poses: name of `POSES` -> [T, 3] axis-angle in radians; those that the file lacks stay at rest.  expression: [T, n]
    coefficients in `basis`, or None.  translation: [T, 3] metres, or None.  fps: of the file, or None.  notes: for the
    user.
    """

    basis: str
    poses: dict[str, Tensor]
    expression: Tensor | None = None
    translation: Tensor | None = None
    fps: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = dict(self.poses)
        known |= {"expression": self.expression} if self.expression is not None else {}
        known |= {"translation": self.translation} if self.translation is not None else {}
        lengths = {name: len(value) for name, value in known.items()}
        if not known or len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ShapeMismatch(f"PoseTrack: frames by name are {lengths or 'none'}, expected one number above 0.")
        for name, value in known.items():
            check_finite("PoseTrack", name, value)
            if value.ndim != 2 or (name != "expression" and value.shape[1] != 3):
                wanted = "[T, n]" if name == "expression" else "[T, 3]"
                raise ShapeMismatch(f"PoseTrack: `{name}` has shape {list(value.shape)}, expected {wanted}.")
        for name, value in self.poses.items():
            check_radians("PoseTrack", name, value)


def expression_basis(body: BodyModel) -> str:
    """The name of a body's expression directions: coefficients of another basis mean other faces."""
    return "mannequin" if body.assets.name == "mannequin" else "smplx"


def motion_of_poses(
    track: PoseTrack, body: BodyModel, rest: BodyParameters, fps: float, expressions: str, follow: bool
) -> tuple[Motion, tuple[str, ...]]:
    """The motion of an avatar in its rest pose (a batch of one), and notes of what was left out.

    expressions: 'matching' takes them if their basis is the body's, 'always' whatever it is, 'never' not at all.
    follow: whether the head also moves through space as recorded, from where it rests.
    """
    changes = {name: value.to(rest.neck_pose) for name, value in track.poses.items()}
    notes = list(track.notes)
    if track.expression is not None and expressions != "never":
        taken, note = _expression(track.expression, track.basis, body, rest, expressions == "always")
        notes += [note] if note else []
        changes |= {"expression": taken} if taken is not None else {}
    if track.translation is not None and follow:
        moved = (track.translation - track.translation[:1]).to(rest.translation)
        changes["translation"] = rest.translation[:1] + rest.scale[:1] * moved
    if not changes:
        raise InvalidInput(
            f"read_motion: nothing of the file can be used: it holds expressions of '{track.basis}' alone, and the "
            f"body '{body.assets.name}' has those of '{expression_basis(body)}'. Choose expressions 'always' to "
            "try them."
        )
    return Motion(rest[0].awake().replace(**changes), fps), tuple(notes)


def _expression(
    found: Tensor, basis: str, body: BodyModel, rest: BodyParameters, always: bool
) -> tuple[Tensor | None, str]:
    """Coefficients [T, ne] of the body, or None, and a note."""
    own, count, wanted = expression_basis(body), found.shape[1], body.num_expression
    if basis != own and not always:
        return None, (
            f"The {count} expression coefficients are of '{basis}', those of the body '{body.assets.name}' of '{own}': "
            "other directions, so they were left out; jaw, eyes, neck and head were taken. Choose expressions 'always' "
            "to take them nevertheless."
        )
    taken = torch.zeros(len(found), wanted, dtype=rest.expression.dtype)
    common = min(count, wanted)
    taken[:, :common] = found[:, :common]
    note = (
        "" if basis == own else f"Expression coefficients of '{basis}' were put on directions of '{own}' as they are. "
    )
    if count > wanted:
        lost = float(found[:, wanted:].norm() / found.norm().clamp_min(1e-12))
        note += f"The body has {wanted} expression coefficients, the file {count}: the last {count - wanted} were left "
        note += f"out, {100 * lost:.0f} % of the movement."
    elif count < wanted:
        note += f"The file has {count} expression coefficients, the body {wanted}: the others are 0."
    return taken, note.strip()

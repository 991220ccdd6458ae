"""What follows the skin when it moves: eyeballs and teeth as rigid things, lids, and the joints of the eyes.

Eyeballs and what hangs in the mouth are pieces of their own: they take a shift and one scale from the lids or the lips
around them, so that they keep their shapes. Where the skin before the mouth has come nearer, all of the mouth goes
back, so that no chin that moves lets it through. Lids close by straight ways to their closed places: the upper one's
border still ends where the lower one's does, and both pass the eyeball.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.spatial import cKDTree

from .lids import fitted_sphere
from .model import BodyModel
from .parameters import BodyParameters
from .personal import PersonalOffsets
from .personal_sheet import Sheet
from .reader import JOINTS
from .visible_skin import outer_skin

_AROUND_EYE = 1.5  # of the eyeball's radius: skin from which an eyeball takes its place
_SCALES = (0.85, 1.2)
_NEIGHBOURS = 6
_COLUMN = 0.0015  # [m], half the width of a column of a lid
_SKIN_ABOVE = 0.5  # of the way of the border: skin that moves less keeps its own offset
_CLEAR_CLOSED = 1.045  # of the eyeball's radius: closed lids stay so far out
_MOUTH_DEPTH = 0.012  # [m], behind the skin: what of the mouth is nearer would be the first to come through
_NEAREST_SHARE = 0.95  # of these vertices are then at least as far behind it as they were
_LINING_DEPTH = 0.003  # [m], how much deeper the lining lies than the template's: splats have a thickness
_CLEAR = 1.02  # of the eyeball's radius: skin that was outside of it stays so far out


@dataclasses.dataclass(frozen=True)
class Piece:
    """Vertices [k] of the body that move as one, by the skin [s] of the sheet around them."""

    vertices: np.ndarray
    around: np.ndarray


@dataclasses.dataclass(frozen=True)
class Eye:
    """An eyeball: its piece, its joint, its centre [3] and radius at rest, and which lid is its."""

    piece: Piece
    joint: int
    lid: int
    center: np.ndarray
    radius: float


@dataclasses.dataclass(frozen=True)
class Lining:
    """Vertices [k] of the sheet that line the mouth, and those [s] of the skin that hides them."""

    vertices: np.ndarray
    skin: np.ndarray


@dataclasses.dataclass(frozen=True)
class Followers:
    """All that is not skin.  rest: [V', 3] metres."""

    sheet: Sheet
    rest: np.ndarray
    joints: np.ndarray
    eyes: tuple[Eye, ...]
    mouth: tuple[Piece, ...]
    lining: Lining

    def everywhere(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets [V', 3] of the whole body by those of the skin [n, 3]."""
        full = np.zeros_like(self.rest)
        full[self.sheet.ids] = offsets
        for piece in (*(eye.piece for eye in self.eyes), *self.mouth):
            full[piece.vertices] = moved_along(
                self.rest[piece.vertices], self.sheet.rest[piece.around], offsets[piece.around]
            )
        return full


def followers(body: BodyModel, parameters: BodyParameters, sheet: Sheet) -> Followers:
    """The pieces of a body beside its skin."""
    shape = body.shape(parameters.betas)
    rest, joints = shape.vertices[0].double().numpy(), shape.joints[0].double().numpy()
    eyes = []
    for lid, side in enumerate(("left", "right")):
        ball = body.region_vertices(f"{side}_eyeball").numpy()
        center, radius = fitted_sphere(rest[ball])
        around = np.flatnonzero(np.linalg.norm(sheet.rest - center, axis=1) < _AROUND_EYE * radius)
        eyes.append(Eye(Piece(ball, around), JOINTS[f"{side}_eye"], lid, center, radius))
    taken = np.zeros(len(rest), dtype=bool)
    taken[sheet.ids] = True
    for eye in eyes:
        taken[eye.piece.vertices] = True
    lips = np.flatnonzero(np.isin(sheet.ids, body.region_vertices("lips").numpy()))
    others = np.flatnonzero(~taken)
    mouth = (Piece(others, lips),) if len(others) and len(lips) else ()
    return Followers(sheet, rest, joints, tuple(eyes), mouth, _lining(body, sheet))


def _lining(body: BodyModel, sheet: Sheet) -> Lining:
    skin = torch.unique(body.faces[outer_skin(body)]).numpy()
    inner = np.setdiff1d(body.region_vertices("mouth_interior").numpy(), skin)
    return Lining(np.flatnonzero(np.isin(sheet.ids, inner)), np.flatnonzero(np.isin(sheet.ids, skin)))


def moved_along(places: np.ndarray, around: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Offsets [k, 3] of places that take the shift and the scale, of least squares, from offsets [s, 3] around them."""
    middle, shift = around.mean(0), offsets.mean(0)
    spread = around - middle
    scale = 1 + float((spread * (offsets - shift)).sum() / np.square(spread).sum())
    return shift + (np.clip(scale, *_SCALES) - 1) * (places - middle)


def following(body: BodyModel, parts: Followers, offsets: np.ndarray) -> PersonalOffsets:
    """The offsets of skin [n, 3] with those of all that follows it."""
    offsets = offsets.copy()
    joints = np.zeros_like(parts.joints)
    for eye in parts.eyes:
        _keep_out(parts, eye, offsets)
    full = parts.everywhere(offsets)
    _put_back(parts, full)
    lids = np.zeros((2, len(full), 3))
    closing = body.assets.eyelid_offsets.double().numpy()
    for eye in parts.eyes:
        around = parts.sheet.rest[eye.piece.around], offsets[eye.piece.around]
        joints[eye.joint] = moved_along(parts.joints[eye.joint][None], *around)[0]
        lids[eye.lid] = _lids(parts, eye, closing[eye.lid], full)
    vertices, turning, eyelids = (torch.from_numpy(value).float() for value in (full, joints, lids))
    return PersonalOffsets(vertices, turning, eyelids, body.fingerprint)


def _ball(parts: Followers, eye: Eye, offsets: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the eyeball with the offsets."""
    around = parts.sheet.rest[eye.piece.around], offsets[eye.piece.around]
    ends = np.stack([eye.center, eye.center + [eye.radius, 0, 0]])
    ends = ends + moved_along(ends, *around)
    return ends[0], float(np.linalg.norm(ends[1] - ends[0]))


def _keep_out(parts: Followers, eye: Eye, offsets: np.ndarray) -> None:
    """Lift skin that was outside of the eyeball and would now be in it, in place."""
    center, radius = _ball(parts, eye, offsets)
    skin = eye.piece.around
    before = np.linalg.norm(parts.sheet.rest[skin] - eye.center, axis=1) / eye.radius
    ways = parts.sheet.rest[skin] + offsets[skin] - center
    offsets[skin] += _lifted(ways, radius, before, _CLEAR) - ways


def _put_back(parts: Followers, full: np.ndarray) -> None:
    """Move the mouth back by what the skin before it has come nearer, and the lining a little more, in place."""
    ids = parts.sheet.ids
    skin, lining = ids[parts.lining.skin], ids[parts.lining.vertices]
    full[lining, 2] -= _LINING_DEPTH
    moved = parts.rest + full
    for piece in parts.mouth:
        before, after = (cKDTree(places[skin]).query(places[piece.vertices])[0] for places in (parts.rest, moved))
        near = before < _MOUTH_DEPTH
        if near.any():
            nearer = max(float(np.quantile((before - after)[near], _NEAREST_SHARE)), 0.0)
            full[np.concatenate([piece.vertices, lining]), 2] -= nearer


def _lifted(ways: np.ndarray, radius: float, before: np.ndarray, clear: float) -> np.ndarray:
    """Ways [k, 3] from an eyeball's centre: what was outside of the ball, at `before` [k] radii, ends at least as far
    out again, up to `clear` radii."""
    now = np.linalg.norm(ways, axis=1) / radius
    wanted = np.maximum(now, np.where(before >= 1, np.minimum(before, clear), 0))
    return ways * (wanted / np.maximum(now, 1e-9))[:, None]


def _lids(parts: Followers, eye: Eye, closing: np.ndarray, full: np.ndarray) -> np.ndarray:
    """What is added [V', 3] to the offsets that close a lid.

    The lower lid, which moves little, keeps its own offsets. The border of the upper one goes where the lower one is;
    the skin above it less and less.
    """
    moving = np.flatnonzero(np.linalg.norm(closing, axis=1) > 1e-7)
    falls = closing[moving, 1] < 0
    upper, lower = moving[falls], moving[~falls]
    closed, carried = parts.rest + closing, full.copy()
    if len(upper) and len(lower):
        met = _interpolated(closed[lower], full[lower], closed[upper])
        share = _at_border(parts.rest[upper, 0], np.linalg.norm(closing[upper], axis=1))[:, None]
        carried[upper] += share * (met - full[upper])
    center, radius = _ball(parts, eye, full[parts.sheet.ids])
    before = np.linalg.norm(closed[moving] - eye.center, axis=1) / eye.radius
    ways = (closed + carried)[moving] - center
    added = np.zeros_like(full)
    added[moving] = center + _lifted(ways, radius, before, _CLEAR_CLOSED) - (closed + full)[moving]
    return added


def _interpolated(places: np.ndarray, offsets: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Offsets [q, 3] at queries by those [k, 3] of the nearest places, by inverse squared distance."""
    distance, found = cKDTree(places).query(queries, min(_NEIGHBOURS, len(places)))
    weights = 1 / np.square(np.maximum(distance, 1e-5)).reshape(len(queries), -1)
    return (weights[..., None] * offsets[found.reshape(len(queries), -1)]).sum(1) / weights.sum(1, keepdims=True)


def _at_border(across: np.ndarray, way: np.ndarray) -> np.ndarray:
    """How near each place [u] of the upper lid is to its border, 0 to 1: who moves as far as anybody at its place
    across the eye is the border."""
    order = np.argsort(across)
    sorted_way = way[order]
    first = np.searchsorted(across[order], across - _COLUMN)
    last = np.searchsorted(across[order], across + _COLUMN)
    most = np.array([sorted_way[a:b].max() for a, b in zip(first, last)])
    share = np.clip((way / np.maximum(most, 1e-9) - _SKIN_ABOVE) / (1 - _SKIN_ABOVE) * 1.25, 0, 1)
    return share * share * (3 - 2 * share)

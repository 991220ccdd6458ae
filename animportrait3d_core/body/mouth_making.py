"""Teeth, gums, tongue and a mouth lining for a body file that has none, fitted behind its lips.

The shapes are those of `mouth_shapes`. They are scaled by the width of the mouth and put so far behind the border of
the lips that the front teeth have the distance that they have in the mannequin; upper pieces follow the head, lower
ones the jaw.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..landmarks import MOUTH_CORNERS, OUTER_EYE_CORNERS
from ..regions import LABEL_TEETH
from .mouth_pieces import MouthPieces
from .mouth_shapes import (
    ARCH_HALF_WIDTH,
    LIP_GAP,
    MOUTH_WIDTH,
    SACK_RINGS,
    SEAM_Y,
    GridShape,
    arch_front,
    gum_row,
    sack_rings,
    teeth_row,
    tongue,
)
from .reader import JOINTS
from .shape_grids import grid_faces
from .skin_regions import LIP_DEPTH
from .surface_parts import border_loops

INNER_LIPS = slice(60, 68)
SACK_DEPTH = 0.3  # of the mouth's width: skin that goes so far in behind the lips is a mouth of its own
BOX = (0.7, 0.6, 1.5)  # of the mouth's width: half width, half height and depth of where the inside of a mouth lies
HOLE_WIDTHS = (0.4, 1.3)  # of the mouth's width: from where to where a hole is one that a lining is sewn to


@dataclasses.dataclass(frozen=True)
class MouthSite:
    """What is known of the mouth of a cropped template.

    vertices: [V', 3] metres.  faces: [F', 3].  weights: [V', 55].  landmarks: [68, 3].  lips: [m] vertices of the loop
    through the inner landmarks of the lips.  behind: [V'] bool, skin behind that loop.  pieces: [V'] number of the
    connected piece.  loose: [V'] bool, neither skin nor eyeball.  winding_outward: of the faces.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    landmarks: np.ndarray
    lips: np.ndarray
    behind: np.ndarray
    pieces: np.ndarray
    loose: np.ndarray
    winding_outward: bool

    @property
    def eye_distance(self) -> float:
        """Metres between the outer corners of the eyes."""
        right, left = self.landmarks[list(OUTER_EYE_CORNERS)]
        return float(np.linalg.norm(left - right))

    @property
    def width(self) -> float:
        """Metres from corner to corner."""
        right, left = self.landmarks[list(MOUTH_CORNERS)]
        return float(np.linalg.norm(left - right))

    def to_shape_space(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 3] of the template in the millimetres of `mouth_shapes`."""
        return points / self._scale - self._origin

    def from_shape_space(self, points: np.ndarray) -> np.ndarray:
        """Inverse of `to_shape_space`."""
        return (points + self._origin) * self._scale

    @property
    def _scale(self) -> float:
        return self.width / MOUTH_WIDTH

    @property
    def _origin(self) -> np.ndarray:
        """Where the origin of the shapes lies, in template metres over the scale."""
        border = self.vertices[self.lips] / self._scale
        x = self.landmarks[list(MOUTH_CORNERS), 0].mean() / self._scale
        y = self.landmarks[INNER_LIPS, 1].mean() / self._scale - SEAM_Y
        across = border[:, 0] - x
        before = np.abs(across) < ARCH_HALF_WIDTH
        return np.array([x, y, (border[before, 2] - arch_front(across[before])).min() - LIP_GAP])


@dataclasses.dataclass(frozen=True)
class MadeMouth:
    """pieces: what is added.  faces: [F, 3] into the V' kept vertices and, from V' on, the added ones.  teeth, lips:
    [F] bool.  labels: [A] condition-map labels."""

    pieces: MouthPieces
    faces: np.ndarray
    teeth: np.ndarray
    lips: np.ndarray
    labels: np.ndarray


def own_pieces(site: MouthSite) -> list[np.ndarray]:
    """Vertices of each loose piece that lies in the mouth and follows head or jaw."""
    center = site.landmarks[INNER_LIPS].mean(axis=0)
    carried = site.weights[:, [JOINTS["head"], JOINTS["jaw"]]].sum(axis=1)
    found = []
    for number in np.unique(site.pieces[site.loose]):
        ids = np.flatnonzero((site.pieces == number) & site.loose)
        if _in_box((site.vertices[ids].mean(axis=0) - center) / site.width) and carried[ids].mean() > 0.5:
            found.append(ids)
    return found


def own_teeth(site: MouthSite, pieces: list[np.ndarray]) -> np.ndarray:
    """Vertices [V'] bool of a file's own teeth: of the arches that follow head and jaw, those that come to the bite."""
    teeth = np.zeros(len(site.vertices), dtype=bool)
    arches = [ids for ids in pieces if _is_arch(site, ids)]
    lower = [ids for ids in arches if site.weights[ids, JOINTS["jaw"]].mean() > 0.5]
    upper = [ids for ids in arches if site.weights[ids, JOINTS["jaw"]].mean() <= 0.5]
    if upper:
        teeth[min(upper, key=lambda ids: site.vertices[ids, 1].min())] = True
    if lower:
        teeth[max(lower, key=lambda ids: site.vertices[ids, 1].max())] = True
    return teeth


def _is_arch(site: MouthSite, ids: np.ndarray) -> bool:
    """Whether a piece spans the mouth and leaves the middle behind its front empty, as a tongue does not."""
    points = site.vertices[ids]
    size, middle = np.ptp(points, axis=0), 0.5 * (points.min(axis=0) + points.max(axis=0))
    within = (np.abs(points[:, 0] - middle[0]) < 0.2 * size[0]) & (points[:, 2] < points[:, 2].max() - 0.45 * size[2])
    return bool(size[0] > 0.6 * site.width and not within.any())


def make_mouth(site: MouthSite, kept: np.ndarray, file_vertices: int) -> MadeMouth | None:
    """What the mouth of a body lacks; None if its lips have no opening or pieces of its own lie behind them.

    kept: [V'] numbers of the site's vertices in the file, which has `file_vertices`.
    """
    border = _mouth_border(site)
    if own_pieces(site) or (border is None and not _has_sack(site)):
        return None
    parts = [
        _rigid(site, teeth_row(True), jaw=0.0, teeth=True),
        _rigid(site, gum_row(True), jaw=0.0),
        _rigid(site, teeth_row(False), jaw=1.0, teeth=True),
        _rigid(site, gum_row(False), jaw=1.0),
        _rigid(site, tongue(), jaw=1.0),
    ]
    if border is not None:
        parts.append(_lining(site, border))
    return _joined(site, parts, kept, file_vertices)


def _mouth_border(site: MouthSite) -> np.ndarray | None:
    """The longest border of a hole in the skin that lies in the mouth and is not wider than it; None without one."""
    center = site.landmarks[INNER_LIPS].mean(axis=0)
    found = []
    for loop in border_loops(site.faces[~site.loose[site.faces].any(axis=1)]):
        points = (site.vertices[loop] - center) / site.width
        across = np.ptp(points[:, 0])
        if _in_box(points.mean(axis=0)) and HOLE_WIDTHS[0] < across < HOLE_WIDTHS[1]:
            found.append(loop)
    return max(found, key=len) if found else None


def _in_box(middle: np.ndarray) -> bool:
    """Whether a place [3], in widths of the mouth from the middle of its lips, lies in the mouth."""
    return bool(abs(middle[0]) < BOX[0] and abs(middle[1]) < BOX[1] and -BOX[2] < middle[2] < 0.1)


def _has_sack(site: MouthSite) -> bool:
    """Whether the skin behind the lips goes in as a closed mouth does."""
    behind, lips = site.vertices[site.behind], site.vertices[site.lips]
    return bool(len(behind) and lips[:, 2].mean() - behind[:, 2].min() > SACK_DEPTH * site.width)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One added piece of n vertices.

    points: [n, 3] metres.  faces: [F, 3], own vertices counted from V' on.  jaw, share: [n].  anchors: [n] kept ones.
    """

    points: np.ndarray
    faces: np.ndarray
    jaw: np.ndarray
    anchors: np.ndarray
    share: np.ndarray
    teeth: bool = False


def _rigid(site: MouthSite, shape: GridShape, jaw: float, teeth: bool = False) -> _Part:
    """A piece that follows one joint; its anchor is any vertex, as it copies nothing of it."""
    count = len(shape.points)
    points, faces = site.from_shape_space(shape.points), len(site.vertices) + shape.faces
    return _Part(points, faces, np.full(count, jaw), np.full(count, site.lips[0]), np.zeros(count), teeth)


def _lining(site: MouthSite, loop: np.ndarray) -> _Part:
    """A sack sewn to the border [m] of the file's open mouth."""
    border, along, side = _halves(site.vertices, loop if site.winding_outward else loop[::-1])
    rings = sack_rings(
        site.to_shape_space(site.vertices[border]), along, side, site.weights[border, JOINTS["jaw"]].astype(np.float64)
    )
    own = len(site.vertices) + np.arange(SACK_RINGS * len(border)).reshape(SACK_RINGS, -1)
    sheet, _ = grid_faces(np.concatenate([border[None], own]), wrap=True)
    throat = own[-1]
    cap = np.stack([np.full(len(throat) - 2, throat[0]), throat[2:], throat[1:-1]], axis=1)
    anchors = np.tile(border, SACK_RINGS)
    faces = np.concatenate([sheet, cap])
    return _Part(site.from_shape_space(rings.points), faces, rings.jaw, anchors, rings.border_share)


def _halves(vertices: np.ndarray, loop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A border from its right corner over the upper side and back: vertices, and `along`, `side` of `sack_rings`.

    Edges of faces that are wound outward run clockwise round a hole, so that the upper side comes first even where
    closed lips lie on each other.
    """
    loop = np.roll(loop, -int(np.argmin(vertices[loop, 0])))
    turn = int(np.argmax(vertices[loop, 0]))
    points = vertices[np.append(loop, loop[0])]
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    up, down = way[: turn + 1] / way[turn], (way[-1] - way[turn:-1]) / (way[-1] - way[turn])
    along = 2 * np.concatenate([up, down[1:]]) - 1
    side = np.where(np.arange(len(loop)) < turn, 1.0, -1.0)
    side[[0, turn]] = 0.0
    return loop, along, side


def _joined(site: MouthSite, parts: list[_Part], kept: np.ndarray, file_vertices: int) -> MadeMouth:
    first, faces, teeth, labels = len(site.vertices), [], [], []
    for part in parts:
        faces.append(np.where(part.faces >= len(site.vertices), part.faces - len(site.vertices) + first, part.faces))
        first += len(part.points)
        teeth.append(np.full(len(part.faces), part.teeth))
        labels.append(np.full(len(part.points), LABEL_TEETH if part.teeth else 0.0))
    points, anchors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("points", "anchors"))
    jaw, share = (np.concatenate([getattr(part, name) for part in parts]) for name in ("jaw", "share"))
    pieces = MouthPieces(
        vertices=torch.from_numpy(points.astype(np.float32)),
        jaw=torch.from_numpy(jaw.astype(np.float32)),
        anchors=torch.from_numpy(kept[anchors]),
        anchor_share=torch.from_numpy(share.astype(np.float32)),
        lips=torch.from_numpy(kept[site.lips]),
        file_vertices=file_vertices,
    )
    wound = np.concatenate(faces) if site.winding_outward else np.concatenate(faces)[:, [0, 2, 1]]
    everything = np.concatenate([site.vertices, points])
    copies = np.concatenate([np.ones(len(site.vertices)), share]) > 0
    near = copies[wound].all(axis=1) & (_gap(everything[wound], site) < LIP_DEPTH * site.eye_distance)
    return MadeMouth(pieces, wound, np.concatenate(teeth), near, np.concatenate(labels))


def _gap(corners: np.ndarray, site: MouthSite) -> np.ndarray:
    """Greatest distance [F] of a face's corners [F, 3, 3] to the border of the lips."""
    border = cKDTree(site.vertices[site.lips])
    return border.query(corners.reshape(-1, 3))[0].reshape(-1, 3).max(axis=1)

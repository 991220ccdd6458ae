"""The whole figure of an identity as one triangle mesh: bare bust, lashes, hair, clothes; and how it is posed.

The bust's vertices come first, in the mannequin's order. Hair rides on the head (and, where it is long, on neck and
torso); clothes take skinning and shape from the skin underneath; lashes from the lid margins.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from ...parts import FigurePart
from ..mannequin import Mannequin, build_mannequin
from .atlas import body_corner_uvs, placed
from .clothes import ClothShell, build_cloth_shell
from .geometry import bent_rest, skin_vertices, welded_normals
from .hair import HairShell, build_hair_shell
from .hair_styles import STYLES
from .identity import Identity
from .knots import build_knot
from .lashes import build_lashes
from .locks import SEGMENTS, Locks, build_locks
from .shells import Band, GridSource, cloth_grid, grid_triangles, hair_grid, smooth_ramp

JOINTS = (9, 12, 15, 22, 23, 24)  # SMPL-X spine3, neck, head, jaw, left eye, right eye
_BODY_PARTS = {
    "skin": FigurePart.SKIN,
    "lid_rim": FigurePart.EYES,
    "mouth_bag": FigurePart.MOUTH_INTERIOR,
    "teeth": FigurePart.TEETH,
    "gum": FigurePart.MOUTH_INTERIOR,
    "tongue": FigurePart.MOUTH_INTERIOR,
    "eyeball": FigurePart.EYES,
    "ear": FigurePart.EARS,
}
_MM = 1e-3


@dataclasses.dataclass(frozen=True)
class Figure:
    """Rest state and rig of one identity. Metres in template space, V vertices, F faces.

    rest: [V, 3] lids open.  lids: [2, V, 3] left, right.  faces: [F, 3] outward.  corner_uvs: [F, 3, 2] float32, v up.
    face_parts: [F] uint8 of `FigurePart`.  weld: [V] representative for normals.  flow: [V, 2] direction of strands
    in the chart (across, down), zero elsewhere.  weights: [V, 6] for JOINTS.  follows: [V] bust vertex whose expression
    a vertex shares, -1 for none.  joints: [55, 3].  num_body, num_body_faces: how many belong to the bare bust.
    hair, cloth, locks: what the textures are painted from.
    """

    rest: np.ndarray
    lids: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray
    face_parts: np.ndarray
    weld: np.ndarray
    flow: np.ndarray
    weights: np.ndarray
    follows: np.ndarray
    joints: np.ndarray
    num_body: int
    num_body_faces: int
    hair: HairShell | None
    locks: Locks | None
    cloth: ClothShell

    def without_faces(self, gone: np.ndarray) -> Figure:
        """The same vertices without some of the faces, gone [F] bool."""
        faces, uvs, parts = (values[~gone] for values in (self.faces, self.corner_uvs, self.face_parts))
        kept_of_body = int((~gone[: self.num_body_faces]).sum())
        return dataclasses.replace(self, faces=faces, corner_uvs=uvs, face_parts=parts, num_body_faces=kept_of_body)


@dataclasses.dataclass
class Piece:
    """A part of a figure that is not the bare bust, n vertices; fields as those of `Figure`.

    points: [n, 3] metres in template space, but from `template_origin` where `follows` is None.  uvs: [n, 2].
    """

    points: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    part: int
    weights: np.ndarray
    weld: np.ndarray
    flow: np.ndarray
    lids: np.ndarray | None = None
    follows: np.ndarray | None = None


def template_origin() -> np.ndarray:
    """Where the millimetre frame of shells and paint (origin between the eyes) lies in template space, metres."""
    from ..mannequin.model import TEMPLATE_ORIGIN

    return TEMPLATE_ORIGIN


@lru_cache(maxsize=2)
def _nearest_skin(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """For every point of a shell grid the four nearest skin vertices [N, 4] and their weights [N, 4]."""
    from scipy.spatial import cKDTree

    body = build_mannequin()
    grid = hair_grid() if kind == "hair" else cloth_grid()
    skin = body.vertices[body.part_vertices["skin"]]
    points = grid.skin_points.reshape(-1, 3) * _MM + template_origin()
    distance, index = cKDTree(skin).query(points, k=4)
    weight = 1 / (distance + 1e-3) ** 2
    return index, weight / weight.sum(axis=1, keepdims=True)


def _on_grid(kind: str, values: np.ndarray) -> np.ndarray:
    """Values [V, k] of the bust's vertices interpolated at the points of a shell grid [N, k]."""
    index, weight = _nearest_skin(kind)
    return np.einsum("nk,nkc->nc", weight, values[index])


def _hair_weights(points: np.ndarray) -> np.ndarray:
    """Skinning [n, 6] of hair at points in mm: head above the chin, torso from the shoulders down, neck between."""
    torso = smooth_ramp(-140.0, -235.0, points[:, 1])
    neck = smooth_ramp(-95.0, -175.0, points[:, 1]) * (1 - torso)
    weights = np.zeros((len(points), len(JOINTS)))
    weights[:, 0], weights[:, 1], weights[:, 2] = torso, neck, 1 - torso - neck
    return weights


def _hair_pieces(identity: Identity, moved: np.ndarray) -> tuple[HairShell | None, Locks | None, list[Piece]]:
    shell = build_hair_shell(identity.attributes.hair_style, identity.seed + 17, identity.hairline_shift)
    style = STYLES[identity.attributes.hair_style]
    if shell is None or style is None:
        return None, None, []
    field = _on_grid("hair", moved)
    sheet = shell.sheet
    uvs = placed("hair", np.stack([sheet.chart[:, 0], 1 - sheet.chart[:, 1]], axis=1))
    flow = np.tile([0.0, 1.0], (len(sheet.points), 1))
    points = sheet.points * _MM + sheet.source.gather(field)
    pieces = [Piece(points, sheet.faces, uvs, FigurePart.HAIR, _hair_weights(sheet.points), sheet.weld, flow)]
    locks = build_locks(hair_grid(), shell, style, np.random.default_rng(identity.seed + 23))
    if locks is not None:
        pieces.append(_lock_piece(locks, field))
    knot = build_knot(style, np.random.default_rng(identity.seed + 29))
    if knot is not None:
        near = field[np.argmin(np.sum((hair_grid().skin_points.reshape(-1, 3) - knot.center) ** 2, axis=1))]
        index = np.arange(len(knot.points))
        uvs = placed("knot", np.stack([knot.chart[:, 0], 1 - knot.chart[:, 1]], axis=1))
        weights = np.tile([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], (len(index), 1))
        flow = np.tile([0.0, 1.0], (len(index), 1))
        points, weld = knot.points * _MM + near, knot.weld[index]
        pieces.append(Piece(points, knot.faces, uvs, FigurePart.HAIR, weights, weld, flow))
    return shell, locks, pieces


def _lock_piece(locks: Locks, field: np.ndarray) -> Piece:
    count = len(locks.points)
    points = locks.points.reshape(count, -1, 3)
    chart = np.stack(np.meshgrid([0.05, 0.5, 0.95], 1 - np.linspace(0.02, 0.98, SEGMENTS)), axis=-1).reshape(-1, 2)
    across = (np.arange(count)[:, None, None] + chart[None, :, :1]) / count
    uvs = placed("locks", np.concatenate([across, np.broadcast_to(chart[None, :, 1:], across.shape)], axis=-1))
    faces = grid_triangles(SEGMENTS, 3)[None] + (np.arange(count) * SEGMENTS * 3)[:, None, None]
    flat = points.reshape(-1, 3)
    moved = np.repeat(field[locks.place], SEGMENTS * 3, axis=0)
    flow = np.tile([0.0, 1.0], (len(flat), 1))
    return Piece(
        flat * _MM + moved,
        faces.reshape(-1, 3),
        uvs.reshape(-1, 2),
        FigurePart.HAIR,
        _hair_weights(flat),
        np.arange(len(flat)),
        flow,
    )


def _cloth_pieces(identity: Identity, moved: np.ndarray, body: Mannequin) -> tuple[ClothShell, list[Piece]]:
    shell = build_cloth_shell(identity.attributes.garment, identity.seed + 31)
    weights = body.skinning_weights[:, JOINTS]
    values = _on_grid("cloth", np.concatenate([moved, weights], axis=1))
    sheet = shell.sheet

    def bound(source: GridSource) -> tuple[np.ndarray, np.ndarray]:
        gathered = source.gather(values)
        own = np.clip(gathered[:, 3:], 0, None)
        own[:, 3:] = 0.0
        return gathered[:, :3], own / own.sum(axis=1, keepdims=True)

    offset, skinning = bound(sheet.source)
    uvs = placed("cloth", np.stack([sheet.chart[:, 0], 1 - sheet.chart[:, 1]], axis=1))
    still = np.zeros((len(sheet.points), 2))
    pieces = [Piece(sheet.points * _MM + offset, sheet.faces, uvs, FigurePart.CLOTHES, skinning, sheet.weld, still)]
    pieces += [_band_piece(band, *bound(band.source)) for band in shell.collar]
    return shell, pieces


def _band_piece(band: Band, offset: np.ndarray, skinning: np.ndarray) -> Piece:
    steps, count = band.points.shape[:2]
    points = (band.points * _MM + offset[None]).reshape(-1, 3)
    faces = grid_triangles(steps, count)
    faces = faces[:, ::-1] if band.flipped else faces
    uvs = placed("collar", np.stack([band.chart[..., 0], 1 - band.chart[..., 1]], axis=-1).reshape(-1, 2))
    column = np.tile(np.arange(count), steps)
    row = np.repeat(np.arange(steps), count)
    weld = row * count + np.where(column == count - 1, 0, column) if band.closed else np.arange(steps * count)
    still, skinning = np.zeros((len(points), 2)), np.tile(skinning, (steps, 1))
    return Piece(points, faces, uvs, FigurePart.CLOTHES, skinning, weld, still)


def _lash_piece(identity: Identity, moved: np.ndarray, body: Mannequin) -> Piece:
    woman = identity.attributes.sex == "woman"
    generator = np.random.default_rng(identity.seed + 37)
    lashes = build_lashes(body, 5.0 if woman else 3.2, 0.40 if woman else 0.30, generator)
    closing = lashes.closed - lashes.opened
    lids = np.stack([closing * lashes.left[:, None], closing * ~lashes.left[:, None]])
    points = lashes.opened + moved[lashes.follows]
    uvs = placed("lash", np.full((len(points), 2), 0.5))
    weights = body.skinning_weights[lashes.follows][:, JOINTS]
    zeros = np.zeros((len(points), 2))
    index = np.arange(len(points))
    return Piece(points, lashes.faces, uvs, FigurePart.LASHES, weights, index, zeros, lids, lashes.follows)


def _body_face_parts(body: Mannequin) -> np.ndarray:
    codes = np.array([_BODY_PARTS[name] for name in body.part_names], dtype=np.uint8)
    parts = codes[body.face_parts]
    return np.where(body.face_regions["lips"], np.uint8(FigurePart.LIPS), parts)


def build_figure(identity: Identity) -> Figure:
    """Assemble the figure of an identity; about 30k vertices. Deterministic."""
    body = build_mannequin()
    moved = body.shape_directions @ identity.betas + identity.displacement
    hair, locks, hair_pieces = _hair_pieces(identity, moved)
    cloth, cloth_pieces = _cloth_pieces(identity, moved, body)
    pieces = [_lash_piece(identity, moved, body), *hair_pieces, *cloth_pieces]
    num_body = len(body.vertices)
    bare = Figure(
        body.vertices + moved, body.eyelid_offsets, body.faces, body_corner_uvs(), _body_face_parts(body),
        np.arange(num_body), np.zeros((num_body, 2)), body.skinning_weights[:, JOINTS], np.arange(num_body),
        body.joint_regressor @ (body.vertices + moved), num_body, len(body.faces), hair, locks, cloth,
    )  # fmt: skip
    return with_pieces(bare, pieces)


def with_pieces(figure: Figure, pieces: list[Piece]) -> Figure:
    """The figure with further pieces, whose vertices and faces come last."""
    origin, base = template_origin(), len(figure.rest)
    rest, lids, faces = [figure.rest], [figure.lids], [figure.faces]
    uvs, parts = [figure.corner_uvs], [figure.face_parts]
    weld, flow, weights, follows = [figure.weld], [figure.flow], [figure.weights], [figure.follows]
    for piece in pieces:
        count = len(piece.points)
        rest.append(piece.points + (0.0 if piece.follows is not None else origin))
        lids.append(piece.lids if piece.lids is not None else np.zeros((2, count, 3)))
        faces.append(piece.faces + base)
        uvs.append(piece.uvs[piece.faces])
        parts.append(np.full(len(piece.faces), piece.part, dtype=np.uint8))
        weld.append(piece.weld + base)
        flow.append(piece.flow)
        weights.append(piece.weights)
        follows.append(piece.follows if piece.follows is not None else np.full(count, -1))
        base += count
    return dataclasses.replace(
        figure, rest=np.concatenate(rest), lids=np.concatenate(lids, axis=1), faces=np.concatenate(faces),
        corner_uvs=np.concatenate(uvs).astype(np.float32), face_parts=np.concatenate(parts), weld=np.concatenate(weld),
        flow=np.concatenate(flow), weights=np.ascontiguousarray(np.concatenate(weights)),
        follows=np.concatenate(follows),
    )  # fmt: skip


def posed_vertices(figure: Figure, transforms: np.ndarray, expression: np.ndarray, eyelids: np.ndarray) -> np.ndarray:
    """World vertices [V, 3] float64 for joint transforms [6, 3, 4], expression [10] and eyelids [2]."""
    offset = np.tensordot(build_mannequin().expression_directions, expression, axes=1)
    rest = bent_rest(figure.rest, figure.lids, figure.follows, eyelids, offset)
    return skin_vertices(rest, figure.weights, transforms)


def figure_normals(figure: Figure, vertices: np.ndarray) -> np.ndarray:
    """Unit vertex normals [V, 3] of posed vertices."""
    return welded_normals(vertices, figure.faces, figure.weld)

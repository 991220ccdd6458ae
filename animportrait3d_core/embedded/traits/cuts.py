"""Heads that end at the neck, and surfaces of few flat facets."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...parts import FigurePart
from ..identities import PreparedIdentity
from ..identities.figure import JOINTS, Figure, Piece, figure_normals, template_origin, with_pieces
from ..mannequin import build_mannequin
from ..mannequin.bust import lid_zone

_NECK = JOINTS.index(12)


def cut_at_the_neck(figure: Figure, generator: np.random.Generator) -> Figure:
    """The figure above a tilted plane through the neck, closed there, without clothes."""
    height, tilt = generator.uniform(-178.0, -142.0), generator.uniform(-0.35, 0.35)
    points = (figure.rest - template_origin()) * 1e3
    over = points[:, 1] - height - tilt * (points[:, 2] - 20.0)
    gone = (over < 0)[figure.faces].all(axis=1) | (figure.face_parts == FigurePart.CLOTHES)
    rest = _drawn_to_the_plane(figure.rest, figure.faces[~gone], over)
    bust = np.arange(len(figure.faces)) < figure.num_body_faces
    skin = bust & (figure.face_parts == FigurePart.SKIN)
    lid = _lid_over(rest, figure, skin & gone, skin & ~gone)
    return with_pieces(dataclasses.replace(figure, rest=rest).without_faces(gone), [lid])


def _directed_edges(faces: np.ndarray) -> np.ndarray:
    """Start and end [3 F, 2] of the edges of faces [F, 3]."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)


def _drawn_to_the_plane(rest: np.ndarray, faces: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Vertices [V, 3], those below a plane (over [V] < 0) where the edges that lead up from them meet it."""
    edges = _directed_edges(faces)
    edges = np.concatenate([edges, edges[:, ::-1]])
    top, low = edges[(over[edges[:, 0]] >= 0) & (over[edges[:, 1]] < 0)].T
    share = over[top] / (over[top] - over[low])
    meeting = rest[top] + share[:, None] * (rest[low] - rest[top])
    total, count = np.zeros_like(rest), np.zeros(len(rest))
    np.add.at(total, low, meeting)
    np.add.at(count, low, 1.0)
    return np.where(count[:, None] > 0, total / np.maximum(count, 1.0)[:, None], rest)


def _lid_over(rest: np.ndarray, figure: Figure, gone: np.ndarray, kept: np.ndarray) -> Piece:
    """A fan of skin over the border between faces [F] that are gone and those that are kept."""
    count = len(rest)
    own, other = _directed_edges(figure.faces[kept]), _directed_edges(figure.faces[gone])
    start, end = own[np.isin(own[:, 0] * count + own[:, 1], other[:, 1] * count + other[:, 0])].T
    rim, place = np.unique(np.concatenate([start, end]), return_inverse=True)
    first, second = np.split(place.reshape(-1), 2)
    points = np.concatenate([rest[rim], rest[rim].mean(axis=0)[None]])
    faces = np.stack([second, first, np.full(len(first), len(rim))], -1)
    weights = np.concatenate([figure.weights[rim], np.eye(len(JOINTS))[[_NECK]]])
    uvs = np.tile(figure.corner_uvs[np.flatnonzero(kept)[0], 0], (len(points), 1))
    return Piece(
        points, faces, uvs, FigurePart.SKIN, weights, np.arange(len(points)), np.zeros((len(points), 2)),
        np.zeros((2, len(points), 3)), np.full(len(points), -1),
    )  # fmt: skip


def faceted(prepared: PreparedIdentity, generator: np.random.Generator) -> PreparedIdentity:
    """The figure as a mesh of few flat triangles: vertices gather in cells, and every face has its own corners.

    Lids, lips and the inside of the mouth keep their vertices, so that they move as they did. The figure's old vertices
    stay in their places without faces: landmarks lie on them.
    """
    figure = prepared.figure
    leader = _cell_leaders(figure, generator.uniform(9.0, 24.0))
    corners = figure.faces.reshape(-1)
    source = leader[corners]
    count = len(figure.rest)

    def gathered(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[source]])

    exploded = dataclasses.replace(
        figure, rest=gathered(figure.rest), lids=np.concatenate([figure.lids, figure.lids[:, source]], axis=1),
        faces=count + np.arange(len(corners)).reshape(-1, 3), weld=np.arange(count + len(corners)),
        flow=np.concatenate([figure.flow, figure.flow[corners]]),
        weights=np.ascontiguousarray(gathered(figure.weights)), follows=gathered(figure.follows),
    )  # fmt: skip
    sky, key = (np.concatenate([light, light[corners]]) for light in (prepared.open_sky, prepared.key_light))
    return dataclasses.replace(prepared, figure=exploded, open_sky=sky, key_light=key)


def _cell_leaders(figure: Figure, size: float) -> np.ndarray:
    """For each vertex [V] the one that stands for all in its cell of `size` mm, itself where it must stay."""
    points = (figure.rest - template_origin()) * 1e3
    body = build_mannequin()
    moves = lid_zone() > 0.05
    moves[np.unique(body.faces[body.face_regions["lips"]])] = True
    moves[np.concatenate(body.slits["mouth"])] = True
    fixed = np.ones(len(points), dtype=bool)
    fixed[: figure.num_body] = moves | ~np.isin(body.vertex_parts, [body.part_names.index(n) for n in ("skin", "ear")])
    lashes = np.unique(figure.faces[figure.face_parts == FigurePart.LASHES])
    fixed[figure.num_body :] = False
    fixed[lashes] = True
    piece = np.zeros(len(points), dtype=np.int64)
    piece[figure.faces] = figure.face_parts[:, None]
    cells = np.floor(points / size).astype(np.int64)
    # The two walls of a collar stay apart.
    normals = figure_normals(figure, figure.rest)
    outer = (normals * points * [1.0, 0.0, 1.0]).sum(axis=1) > 0
    key = np.concatenate([cells, piece[:, None], outer[:, None]], axis=1)
    _, cell, counts = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    middle = np.stack([np.bincount(cell, points[:, k]) for k in range(3)], -1) / counts[:, None]
    order = np.argsort(((points - middle[cell]) ** 2).sum(1), kind="stable")[::-1]
    nearest = np.empty(len(counts), dtype=np.int64)
    nearest[cell[order]] = order  # the last that is written is the nearest to the cell's middle
    return np.where(fixed, np.arange(len(points)), nearest[cell])

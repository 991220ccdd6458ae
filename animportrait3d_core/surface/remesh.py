"""Isotropic remeshing: edges of about one length, valences near six (Botsch and Kobbelt 2004, section 4).

Every pass works on all edges at once: it chooses a set of operations that cannot disturb each other (their faces are
disjoint) and applies them together. Borders and edges where more than two faces meet are split but never collapsed or
flipped, so that open and untidy meshes stay whole; on a closed manifold every operation keeps the genus.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from ..errors import InvalidInput
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, face_areas
from ..progress import may_stop
from .decimation import decimate, simple_edges
from .edges import EdgeTable, edge_keys, edge_table, faces_around, neighbour_matrix

LONG, SHORT = 4 / 3, 4 / 5
SHARP = 0.5  # cosine: edges bent by more than 60 degrees are not flipped, they are features
TURN = 0.3  # cosine: a collapse may not turn a face by more
COLLAPSE_PASSES, FLIP_PASSES, SPLIT_PASSES = 8, 3, 4
MANY = 1.5  # times the faces that the edge length asks for: decimated first
WORTHWHILE = 0.02  # share of candidates: a pass that can do less is the last


def isotropic_remesh(mesh: Mesh, edge_length: float, rounds: int = 3) -> Mesh:
    """The same surface in triangles whose edges are near `edge_length` (world units).

    Vertices lie on the given surface; colours and texture are not carried over (`mesh_queries.surface_colors` reads
    them off the old mesh). Raises `InvalidInput` for a length that is not positive.
    """
    if not edge_length > 0:
        raise InvalidInput(f"isotropic_remesh: edge_length is {edge_length}, expected more than 0.")
    surface = SurfaceTree(mesh.vertices, mesh.faces)
    coarse = _coarser(mesh, edge_length)
    vertices, faces = coarse.vertices.double().numpy(), coarse.faces.numpy()
    for _ in range(rounds):
        may_stop()
        vertices, faces = split_long_edges(vertices, faces, LONG * edge_length)
        vertices, faces = collapse_short_edges(vertices, faces, SHORT * edge_length, LONG * edge_length)
        faces = equalize_valences(vertices, faces)
        vertices = relax_along_surface(vertices, faces)
        vertices = surface.closest(torch.from_numpy(vertices)).points.double().numpy()
    return Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(np.ascontiguousarray(faces)))


def _coarser(mesh: Mesh, edge_length: float) -> Mesh:
    """The mesh with about as many faces as the edge length asks for: one decimation is quicker than many collapses."""
    wanted = float(face_areas(mesh.vertices.double(), mesh.faces).sum()) / (math.sqrt(3) / 4 * edge_length**2)
    if len(mesh.faces) < MANY * wanted or not simple_edges(mesh).all():
        return mesh
    return decimate(mesh, max(round(wanted), 4))


def edge_lengths(vertices: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Lengths [E] of edges [E, 2]."""
    return np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)


def split_long_edges(vertices: np.ndarray, faces: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """The mesh [V, 3], [F, 3] with edges longer than `longest` halved, until there are none or after four passes (16
    pieces an edge)."""
    for _ in range(SPLIT_PASSES):
        table = edge_table(faces, len(vertices))
        long = edge_lengths(vertices, table.ends) > longest
        if not long.any():
            break
        vertices, faces = split_edges(vertices, faces, table, long)
    return vertices, faces


def split_edges(
    vertices: np.ndarray, faces: np.ndarray, table: EdgeTable, marked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Halve the `marked` [E] edges; a face is cut into two, three or four."""
    middle = np.full(len(marked), -1, dtype=np.int64)
    middle[marked] = len(vertices) + np.arange(int(marked.sum()))
    ends = table.ends[marked]
    vertices = np.concatenate([vertices, 0.5 * (vertices[ends[:, 0]] + vertices[ends[:, 1]])])
    cut = middle[table.of_corner]
    number = (cut >= 0).sum(axis=1)
    # Turn each face so that its cut edges come first.
    first_cut = np.where(cut >= 0, np.arange(3), 3).min(axis=1)
    uncut = np.where(cut < 0, np.arange(3), 3).min(axis=1)
    turn = np.select([number == 1, number == 2], [first_cut, (uncut + 1) % 3], 0)
    order = (np.arange(3) + turn[:, None]) % 3
    corners = np.take_along_axis(faces, order, axis=1)
    cut = np.take_along_axis(cut, order, axis=1)
    a, b, c = corners.T
    ab, bc, ca = cut.T
    one, three = number == 1, number == 3
    pieces = [faces[number == 0]]
    pieces += [np.stack(columns, axis=1)[one] for columns in ((a, ab, c), (ab, b, c))]
    pieces += [np.stack(columns, axis=1)[three] for columns in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    pieces += _cut_in_three(vertices, np.stack([a, b, c, ab, bc], axis=1)[number == 2])
    return vertices, np.concatenate(pieces)


def _cut_in_three(vertices: np.ndarray, cut: np.ndarray) -> list[np.ndarray]:
    """Faces with two cut edges, rows (a, b, c, ab, bc): a tip, and a quad divided along its shorter diagonal."""
    a, b, c, ab, bc = cut.T
    to_middle = np.linalg.norm(vertices[a] - vertices[bc], axis=1)
    to_corner = np.linalg.norm(vertices[ab] - vertices[c], axis=1)
    near = to_middle < to_corner
    first = np.where(near[:, None], np.stack([a, ab, bc], axis=1), np.stack([a, ab, c], axis=1))
    second = np.where(near[:, None], np.stack([a, bc, c], axis=1), np.stack([ab, bc, c], axis=1))
    return [np.stack([ab, b, bc], axis=1), first, second]


def collapse_short_edges(
    vertices: np.ndarray, faces: np.ndarray, shortest: float, longest: float
) -> tuple[np.ndarray, np.ndarray]:
    """The mesh [V, 3], [F, 3] with edges shorter than `shortest` shrunk to their middle where that turns no face over
    and makes no edge longer than `longest`; repeated until few are left that can."""
    for _ in range(COLLAPSE_PASSES):
        may_stop()
        table = edge_table(faces, len(vertices))
        lengths = edge_lengths(vertices, table.ends)
        fixed = table.irregular_vertices()
        candidates = np.nonzero((lengths < shortest) & ~fixed[table.ends].any(axis=1))[0]
        chosen = _collapsible(vertices, faces, table.ends[candidates], lengths[candidates], longest)
        kept, gone = table.ends[candidates][chosen].T
        vertices = vertices.copy()
        vertices[kept] = 0.5 * (vertices[kept] + vertices[gone])
        vertices, faces = _merged(vertices, faces, kept, gone)
        if len(chosen) <= WORTHWHILE * len(candidates):
            break
    return vertices, faces


def _merged(
    vertices: np.ndarray, faces: np.ndarray, kept: np.ndarray, gone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices `gone` replaced by `kept`, without the faces that lost their area and the vertices of no face."""
    target = np.arange(len(vertices))
    target[gone] = kept
    faces = target[faces]
    alive = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[alive]
    used = np.zeros(len(vertices), dtype=bool)
    used[faces.reshape(-1)] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def _collapsible(
    vertices: np.ndarray, faces: np.ndarray, ends: np.ndarray, lengths: np.ndarray, longest: float
) -> np.ndarray:
    """Positions in `ends` [N, 2] of edges that may collapse together, shortest first."""
    neighbours = neighbour_matrix(faces, len(vertices))
    common = np.asarray(neighbours[ends[:, 0]].multiply(neighbours[ends[:, 1]]).sum(axis=1)).reshape(-1)
    # Link condition (Dey et al. 1999): only the two corners opposite to the edge may be neighbours of both its ends.
    valid = np.nonzero(common == 2)[0]
    owner, star = _stars(faces, len(vertices), ends[valid])
    corners = faces[star]
    at_edge = (corners[..., None] == ends[valid][owner][:, None, :]).any(axis=-1)
    middles = vertices[ends[valid]].mean(axis=1)
    before = vertices[corners]
    after = np.where(at_edge[..., None], middles[owner][:, None], before)
    shared = at_edge.sum(axis=1) == 2
    bad = ~shared & (~_keeps_side(before, after, TURN) | (_longest_edge(after) > longest))
    refused = np.zeros(len(valid), dtype=bool)
    refused[owner[bad]] = True
    rank = np.empty(len(valid), dtype=np.int64)
    rank[np.argsort(lengths[valid], kind="stable")] = np.arange(len(valid))
    rank[refused] = len(valid)
    best = np.full(len(faces), len(valid), dtype=np.int64)
    np.minimum.at(best, star, rank[owner])
    beaten = np.zeros(len(valid), dtype=bool)
    beaten[owner[best[star] != rank[owner]]] = True
    return valid[~beaten & ~refused]


def _stars(faces: np.ndarray, count: int, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (edge, face) of all faces that touch an end of each edge [N, 2]; faces at the edge itself appear twice."""
    starts, listing = faces_around(faces, count)
    flat = ends.reshape(-1)
    sizes = starts[flat + 1] - starts[flat]
    owner = np.repeat(np.arange(len(flat)) // 2, sizes)
    within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return owner, listing[np.repeat(starts[flat], sizes) + within]


def _normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals [N, 3] of triangles [N, 3, 3]; zero where there is no area."""
    cross = _cross(corners)
    return cross / np.maximum(np.sqrt((cross**2).sum(axis=1, keepdims=True)), 1e-30)


def _cross(corners: np.ndarray) -> np.ndarray:
    """Normals [N, 3] of triangles [N, 3, 3], as long as twice their area."""
    (ax, ay, az), (bx, by, bz) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _keeps_side(before: np.ndarray, after: np.ndarray, cosine: float) -> np.ndarray:
    """[N] bool: triangles [N, 3, 3] turn by less than the angle of `cosine`."""
    return (_normals(before) * _normals(after)).sum(axis=1) > cosine


def _longest_edge(corners: np.ndarray) -> np.ndarray:
    """[N]: longest edge of triangles [N, 3, 3]."""
    return np.sqrt(((corners - corners[:, [1, 2, 0]]) ** 2).sum(axis=2).max(axis=1))


def equalize_valences(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces [F, 3] with edges flipped wherever that brings the four valences around them nearer to six."""
    for _ in range(FLIP_PASSES):
        table = edge_table(faces, len(vertices))
        chosen = _flippable(vertices, table)
        if not len(chosen):
            break
        start, end = table.ends[chosen].T
        left, right = table.opposite[chosen].T
        faces = faces.copy()
        faces[table.faces[chosen, 0]] = np.stack([start, right, left], axis=1)
        faces[table.faces[chosen, 1]] = np.stack([right, end, left], axis=1)
    return faces


def _flippable(vertices: np.ndarray, table: EdgeTable) -> np.ndarray:
    """Edges that may be flipped together, best gain first."""
    valence = np.bincount(table.ends.reshape(-1), minlength=table.count)
    wanted = np.where(table.irregular_vertices(), 4, 6)
    edges = np.nonzero(table.regular)[0]
    around = np.concatenate([table.ends[edges], table.opposite[edges]], axis=1)
    off = (valence - wanted)[around]
    gain = (off**2).sum(axis=1) - ((off + np.array([-1, -1, 1, 1])) ** 2).sum(axis=1)
    better = gain > 0
    edges, around, gain = edges[better], around[better], gain[better]
    start, end, left, right = around.T
    keys = table.keys()
    wanted_keys = edge_keys(left, right, table.count)
    place = np.minimum(np.searchsorted(keys, wanted_keys), len(keys) - 1)
    allowed = (keys[place] != wanted_keys) & (left != right)
    old = [_normals(vertices[np.stack(face, axis=1)]) for face in ((start, end, left), (end, start, right))]
    new = [_normals(vertices[np.stack(face, axis=1)]) for face in ((start, right, left), (right, end, left))]
    allowed &= (old[0] * old[1]).sum(axis=1) > SHARP
    for first in new:
        for second in (*old, new[1]):
            allowed &= (first * second).sum(axis=1) > SHARP
    edges, around, gain = edges[allowed], around[allowed], gain[allowed]
    rank = np.empty(len(edges), dtype=np.int64)
    rank[np.argsort(-gain, kind="stable")] = np.arange(len(edges))
    best = np.full(table.count, len(edges), dtype=np.int64)
    np.minimum.at(best, around.reshape(-1), np.repeat(rank, 4))
    return edges[(best[around] == rank[:, None]).all(axis=1)]


def relax_along_surface(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Vertices [V, 3], each moved in its tangent plane to the mean of its neighbours; those at borders stay."""
    fixed = edge_table(faces, len(vertices)).irregular_vertices()
    neighbours = neighbour_matrix(faces, len(vertices))
    degree = np.maximum(np.asarray(neighbours.sum(axis=1)), 1)
    move = np.asarray(neighbours @ vertices) / degree - vertices
    cross = _cross(vertices[faces])
    columns = [np.bincount(faces.reshape(-1), np.repeat(column, 3), len(vertices)) for column in cross.T]
    normals = np.stack(columns, axis=1)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    move -= (move * normals).sum(axis=1, keepdims=True) * normals
    move[fixed] = 0
    return vertices + move


@dataclasses.dataclass(frozen=True)
class MeshTopology:
    """Counts that remeshing must keep: closed (no border), manifold (two faces at each edge), Euler characteristic."""

    closed: bool
    manifold: bool
    euler: int


def topology(mesh: Mesh) -> MeshTopology:
    """What kind of surface a mesh is; vertices of no face do not count."""
    faces = mesh.faces.numpy()
    table = edge_table(faces, len(mesh.vertices))
    uses = np.bincount(table.of_corner.reshape(-1), minlength=len(table.ends))
    used = len(np.unique(faces))
    return MeshTopology(bool((uses > 1).all()), bool(table.regular.all()), used - len(table.ends) + len(faces))

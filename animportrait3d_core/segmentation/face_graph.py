"""The graph of a mesh's faces: which of them share an edge, pieces of it, and values that spread along it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..meshes import Mesh, face_areas

MIN_RADIUS = 1e-6
SHORTEST_EDGE = 1e-7


@dataclasses.dataclass(frozen=True)
class FaceGraph:
    """F faces and the E pairs of them that share an edge.

    pairs: [E, 2] int64.  lengths: [E] of the shared edges, world units.  distances: [E] from one centroid over the
    middle of the edge to the other.  areas: [F].  centroids: [F, 3].  All numpy, float64.
    """

    pairs: np.ndarray
    lengths: np.ndarray
    distances: np.ndarray
    areas: np.ndarray
    centroids: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    def adjacency(self, values: np.ndarray) -> Any:
        """Symmetric sparse matrix [F, F] of one value [E] per pair."""
        from scipy.sparse import coo_matrix

        first, second = self.pairs.T
        rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
        return coo_matrix((np.concatenate([values, values]), (rows, columns)), shape=(len(self), len(self))).tocsr()

    def pieces(self, groups: np.ndarray | None = None) -> np.ndarray:
        """Number [F] of the connected piece each face belongs to; with `groups` [F] pieces of one group each."""
        from scipy.sparse.csgraph import connected_components

        values = np.ones(len(self.pairs))
        if groups is not None:
            values = values * (groups[self.pairs[:, 0]] == groups[self.pairs[:, 1]])
        matrix = self.adjacency(values)
        matrix.eliminate_zeros()
        return connected_components(matrix, directed=False)[1]


def face_graph(mesh: Mesh) -> FaceGraph:
    """The graph of a mesh. Vertices at one and the same place count as one: seams of a texture do not cut it."""
    if len(mesh.faces) == 0:
        raise InvalidInput("face_graph: the mesh has 0 faces, expected at least 1.")
    vertices = mesh.vertices.detach().cpu().double().numpy()
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces.cpu().numpy()]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((owner, edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    # Faces of one edge lie side by side now; an edge of three faces makes two pairs, which still connects all of them.
    same = (edges[1:] == edges[:-1]).all(axis=1) & (owner[1:] != owner[:-1]) & (edges[1:, 0] != edges[1:, 1])
    pairs = np.stack([owner[:-1][same], owner[1:][same]], axis=1)
    positions = np.empty((len(np.unique(place)), 3))
    positions[place.reshape(-1)] = vertices
    start, end = positions[edges[:-1][same][:, 0]], positions[edges[:-1][same][:, 1]]
    centroids = vertices[mesh.faces.cpu().numpy()].mean(axis=1)
    middle = 0.5 * (start + end)
    distances = sum(np.linalg.norm(centroids[pairs[:, side]] - middle, axis=1) for side in (0, 1))
    areas = face_areas(mesh.vertices.detach().cpu().double(), mesh.faces.cpu()).numpy()
    return FaceGraph(pairs, np.linalg.norm(end - start, axis=1), np.asarray(distances), areas, centroids)


def spread_votes(graph: FaceGraph, votes: Tensor, evidence: Tensor, radius: float) -> Tensor:
    """Votes [F, C] smoothed over the surface; faces without evidence take over the votes of what surrounds them.

    evidence: [F] in 0..1 and above, how well a face's own votes are known.  radius: world units over which a face of
    evidence 1 is blended with its surroundings; 0 leaves such faces almost as they are.

    Minimises sum_i A_i e_i |v_i - votes_i|^2 + radius^2 sum_ij (l_ij / d_ij) |v_i - v_j|^2, the screened Poisson
    equation on the faces (areas A, shared edges l, distances d), so that the result does not depend on how finely the
    surface is divided. Pieces of the mesh without any evidence take the votes of the nearest face that has some.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu

    known, original = evidence.double().numpy(), votes.double().numpy()
    if not (known > 0).any():
        raise InvalidInput("spread_votes: no face has any evidence; no view sees the mesh.")
    known, original = _adopted(graph, known, original)
    lengths, distances = (np.maximum(values, SHORTEST_EDGE) for values in (graph.lengths, graph.distances))
    links = graph.adjacency(max(radius, MIN_RADIUS) ** 2 * lengths / distances)
    own = known * np.maximum(graph.areas, SHORTEST_EDGE**2)
    matrix = diags(own + np.asarray(links.sum(axis=1)).reshape(-1)) - links
    # Symmetric and positive definite: an elimination order made for such matrices is ten times faster than the default.
    factors = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return torch.from_numpy(factors.solve(own[:, None] * original)).to(votes.dtype)


def _adopted(graph: FaceGraph, known: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evidence and votes in which pieces without evidence have those of the nearest face with evidence."""
    from scipy.spatial import cKDTree

    pieces = graph.pieces()
    orphaned = np.bincount(pieces, weights=known)[pieces] <= 0
    if not orphaned.any():
        return known, votes
    source = np.flatnonzero(known > 0)
    _, nearest = cKDTree(graph.centroids[source]).query(graph.centroids[orphaned])
    known, votes = known.copy(), votes.copy()
    known[orphaned], votes[orphaned] = known[source[nearest]], votes[source[nearest]]
    return known, votes


def absorb_islands(graph: FaceGraph, groups: Tensor, min_area: float, keep: Tensor | None = None) -> Tensor:
    """Groups [F] in which connected islands of less than `min_area` join the group they share most border with.

    keep: [F] bool, faces whose islands stay (painted by hand).  Islands that touch no other group, which are pieces of
    the mesh of their own, stay. Smaller islands give way first.
    """
    current = groups.numpy().astype(np.int64).copy()
    count = int(current.max()) + 1
    held = np.zeros(len(current)) if keep is None else keep.numpy().astype(np.float64)
    while True:
        island = graph.pieces(current)
        area = np.bincount(island, weights=graph.areas)
        small = (area < min_area) & (np.bincount(island, weights=held) == 0)
        border = current[graph.pairs[:, 0]] != current[graph.pairs[:, 1]]
        one, other = island[graph.pairs[border]].T
        lengths = graph.lengths[border]
        here, there = np.concatenate([one, other]), np.concatenate([other, one])
        shared = np.zeros((len(area), count))
        group_of = np.zeros(len(area), dtype=np.int64)
        group_of[island] = current
        np.add.at(shared, (here, group_of[there]), np.concatenate([lengths, lengths]))
        # Two small neighbours must not swap: only islands that rank before every small neighbour move at once.
        rank = np.empty(len(area))
        rank[np.argsort(area, kind="stable")] = np.arange(len(area))
        rivals = np.full(len(area), np.inf)
        np.minimum.at(rivals, here, np.where(small, rank, np.inf)[there])
        moving = small & (shared.sum(axis=1) > 0) & (rank < rivals)
        if not moving.any():
            return torch.from_numpy(current).to(groups.dtype)
        target = np.where(moving, shared.argmax(axis=1), group_of)
        current = target[island]

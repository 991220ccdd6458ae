"""Pieces of a body's surface: connected components, loops through given vertices or round holes, insides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra

from ..errors import InvalidInput


def edge_graph(vertices: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Symmetric matrix [V, V] of the lengths of all edges of faces [F, 3] between vertices [V, 3]."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    # An edge of no length would be no edge to the sparse format.
    lengths = np.maximum(np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1), 1e-12)
    both = np.concatenate([ends, ends[:, ::-1]])
    count = len(vertices)
    return sparse.csr_matrix((np.tile(lengths, 2), (both[:, 0], both[:, 1])), shape=(count, count))


def components(graph: sparse.csr_matrix) -> np.ndarray:
    """Number of the connected component [V] int32 of every vertex."""
    return connected_components(graph, directed=False)[1]


def loop_through(graph: sparse.csr_matrix, stops: Sequence[int]) -> list[np.ndarray]:
    """Shortest ways along edges from each stop to the next one, and from the last to the first.

    stops: vertices in the order of the loop.  Returns one array per stop, which begins there and lacks its end, so that
    all together are the loop. Around an opening the way along its border is the shortest one, as no edge crosses it.

    Raises `InvalidInput` if two stops are not connected.
    """
    lengths, before = dijkstra(graph, directed=False, indices=list(stops), return_predecessors=True)
    ways = []
    for row, (start, end) in enumerate(zip(stops, [*stops[1:], stops[0]])):
        if not np.isfinite(lengths[row, end]):
            raise InvalidInput(f"loop_through: no way along the surface from vertex {start} to vertex {end}.")
        way, at = [], int(end)
        while at != start:
            at = int(before[row, at])
            way.append(at)
        ways.append(np.array(way[::-1], dtype=np.int64))
    return ways


def enclosed_by(graph: sparse.csr_matrix, loop: np.ndarray, outside: int) -> np.ndarray:
    """Vertices [V] bool of the piece around the loop that the loop cuts off from the vertex `outside`; without it."""
    keep = np.ones(graph.shape[0], dtype=bool)
    whole = components(graph)
    keep[loop] = False
    ids = np.flatnonzero(keep)
    cut = np.full(graph.shape[0], -1)
    cut[ids] = components(graph[ids][:, ids])
    return keep & (whole == whole[outside]) & (cut != cut[outside])


def border_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed loops of the edges that belong to one of faces [F, 3] only.

    Each goes round its hole in the direction of its faces' edges.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    following = {int(a): int(b) for a, b in edges[first[count == 1]]}
    loops = []
    while following:
        start, at = next(iter(following.items()))
        way = [start]
        del following[start]
        while at != start and at in following:
            way.append(at)
            at = following.pop(at)
        if at == start and len(way) > 2:
            loops.append(np.array(way, dtype=np.int64))
    return loops

"""Smooth fields on the skin: harmonic interpolation between fixed values, smoothing."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu


def harmonic(adjacency: sparse.csr_matrix, fixed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solve the graph Laplace equation with Dirichlet values.

    adjacency [n, n]; fixed [n] bool; values [n] or [n, k], read where `fixed`. Returns values of the same shape; every
    free value is the mean of its neighbours, so it lies between the fixed ones.
    """
    laplacian = sparse.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    laplacian = laplacian.tocsr()
    free = ~fixed
    right_side = -(laplacian[free][:, fixed] @ values[fixed])
    result = np.array(values, dtype=np.float64)
    result[free] = splu(laplacian[free][:, free].tocsc()).solve(np.asarray(right_side))
    return result


def smoothed(adjacency: sparse.csr_matrix, values: np.ndarray, rounds: int, weight: np.ndarray) -> np.ndarray:
    """Move values [n, k] towards the mean of their neighbours; weight [n] in 0..1 per vertex and round."""
    degree = np.asarray(adjacency.sum(axis=1))
    for _ in range(rounds):
        values = values + weight[:, None] * (adjacency @ values / degree - values)
    return values

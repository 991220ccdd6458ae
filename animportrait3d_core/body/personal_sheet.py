"""The skin of a body as one elastic sheet: what personal offsets are smooth on, mirrored on and sealed on.

Its energy is that of a thin plate, the integral of |Laplacian of the offsets|^2, on the body's rest shape (Botsch and
Sorkine 2008, section 4): K M^-1 K with the cotangent matrix K and the vertex areas M. A factor l^4 makes features
shorter than the length l stiff, whatever the density of the vertices.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from torch import Tensor

from ..meshes import face_normals, vertex_normals
from ..progress import may_stop
from .model import BodyModel
from .surface_parts import components, edge_graph

MIRRORED = 0.003  # [m], how far from a vertex's mirror image its twin may be
SEAM = 0.0015  # [m], how far apart the two sides of a closed slit may be
OPPOSITE = -0.3  # cosine of their normals
UNSEEN = 0.03  # weight of the symmetry beside data of the same area
AT_REST = 1e-3  # weight of no offset at all
SEALED = 1e-3  # [m^2], area that a pair of the seam counts as


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The largest connected piece of a body, n vertices.

    ids: [n] their numbers in the body.  rest: [n, 3] metres.  faces: [m, 3] into the sheet, outward.  areas: [n].
    plate: [n, n] the thin plate's energy.  twins: [n] the vertex on the other side of the face, -1 where there is none.
    seam: [k, 2] vertices that lie on each other, of two lips.
    """

    ids: np.ndarray
    rest: np.ndarray
    faces: np.ndarray
    areas: np.ndarray
    plate: sparse.csr_matrix
    twins: np.ndarray
    seam: np.ndarray


def skin_sheet(body: BodyModel, rest: Tensor) -> Sheet:
    """The sheet of a body whose vertices at rest [V', 3] are `rest`."""
    import igl

    vertices, faces = rest.double().numpy(), body.faces_outward.numpy()
    pieces = components(edge_graph(vertices, faces))
    is_skin = pieces == np.bincount(pieces).argmax()
    ids = np.flatnonzero(is_skin)
    number = np.full(len(vertices), -1)
    number[ids] = np.arange(len(ids))
    own = number[faces[is_skin[faces[:, 0]]]]
    places = vertices[ids]
    stiffness = igl.cotmatrix(places, own)
    areas = np.maximum(igl.massmatrix(places, own, igl.MASSMATRIX_TYPE_VORONOI).diagonal(), 1e-9)
    plate = (stiffness.T @ sparse.diags(1 / areas) @ stiffness).tocsr()
    return Sheet(ids, places, own, areas, plate, _twins(places), _seam(body, places, own, number))


def _twins(places: np.ndarray) -> np.ndarray:
    distance, found = cKDTree(places).query(places * [-1, 1, 1])
    return np.where(distance < MIRRORED, found, -1)


def _seam(body: BodyModel, places: np.ndarray, faces: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Pairs of vertices of the lips and of what is behind them that touch: near, and facing each other."""
    lips = torch.cat([body.region_vertices(name) for name in ("lips", "mouth_interior")]).unique().numpy()
    lips = number[lips]
    lips = lips[lips >= 0]
    normals = vertex_normals(torch.from_numpy(places), torch.from_numpy(faces)).numpy()
    pairs = cKDTree(places[lips]).query_pairs(SEAM, output_type="ndarray")
    pairs = lips[pairs].reshape(-1, 2)
    facing = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1) < OPPOSITE
    return pairs[facing]


@dataclasses.dataclass
class Pull:
    """What draws the sheet, in rest space.

    weights: [n] square metres that each vertex counts as, 0 for those that nothing draws.  targets: [n, 3] offsets.
    rows: [p, n] sparse, points as mixtures of vertices, row_weights: [p] square metres, row_targets: [p, 3] offsets.
    """

    weights: np.ndarray
    targets: np.ndarray
    rows: sparse.csr_matrix
    row_weights: np.ndarray
    row_targets: np.ndarray


def relaxed(sheet: Sheet, pull: Pull, length: float) -> np.ndarray:
    """The offsets [n, 3] of least energy: drawn, as stiff as `length` [m] says, symmetric where nothing draws."""
    count = len(sheet.ids)
    matrix = length**4 * sheet.plate + sparse.diags(pull.weights + AT_REST * sheet.areas)
    matrix = matrix + pull.rows.T @ sparse.diags(pull.row_weights) @ pull.rows
    matrix = matrix + SEALED * _squared(_differences(sheet.seam, count, -1.0))
    right = pull.weights[:, None] * pull.targets + pull.rows.T @ (pull.row_weights[:, None] * pull.row_targets)
    free = np.flatnonzero((pull.weights == 0) & (sheet.twins >= 0) & (sheet.twins != np.arange(count)))
    twins = np.stack([free, sheet.twins[free]], axis=1)
    areas = UNSEEN * sheet.areas[free]
    solution = np.empty((count, 3))
    for columns, sign in (([0], 1.0), ([1, 2], -1.0)):  # across the face mirrored offsets are opposite
        may_stop()
        both = matrix + _squared(_differences(twins, count, sign), areas)
        # The matrix is symmetric and positive: no pivoting, and an ordering for symmetric ones, ten times as fast.
        factors = splu(both.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        solution[:, columns] = factors.solve(right[:, columns])
    return solution


def _differences(pairs: np.ndarray, count: int, sign: float) -> sparse.csr_matrix:
    """Rows [k, count]: the first of each pair plus `sign` times the second."""
    rows = np.repeat(np.arange(len(pairs)), 2)
    values = np.tile([1.0, sign], len(pairs))
    return sparse.csr_matrix((values, (rows, pairs.ravel())), shape=(len(pairs), count))


def _squared(rows: sparse.csr_matrix, weights: np.ndarray | float = 1.0) -> sparse.csr_matrix:
    scale = sparse.diags(np.broadcast_to(weights, rows.shape[:1]).astype(float))
    return (rows.T @ scale @ rows).tocsr()


def turned_faces(sheet: Sheet, offsets: np.ndarray, least_cosine: float) -> np.ndarray:
    """Faces [m] bool whose normals turn by more than that."""
    faces = torch.from_numpy(sheet.faces)
    before, after = (face_normals(torch.from_numpy(places), faces) for places in (sheet.rest, sheet.rest + offsets))
    return (torch.nn.functional.cosine_similarity(before, after, eps=1e-15) < least_cosine).numpy()


def smoothed(sheet: Sheet, offsets: np.ndarray) -> np.ndarray:
    """For each vertex the mean [n, 3] of its neighbours' offsets."""
    neighbours = edge_graph(sheet.rest, sheet.faces)
    neighbours.data[:] = 1.0
    counts = np.asarray(neighbours.sum(axis=1)).ravel()
    return (neighbours @ offsets) / np.maximum(counts, 1)[:, None]

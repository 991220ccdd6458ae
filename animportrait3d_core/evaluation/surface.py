"""How far one surface is from another: angles between their normals, and distances."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import Cameras, concatenate_cameras, orbit_cameras
from ..errors import InvalidInput
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, face_areas, face_normals, vertex_normals
from ..render import rasterize_mesh

VISIBILITY_SIZE = 512
QUANTILE = 0.9
CUT_MARGIN = 0.05  # world units


@dataclasses.dataclass(frozen=True)
class SurfaceError:
    """Means over a surface, weighted by area.

    mean_angle, p90_angle: degrees between a face's normal and the truth's normal at the closest point.
    mean_distance, p90_distance: world units from a face's middle to the truth.  back_distance: mean distance of the
    truth's visible faces to the surface: what the surface lacks.  faces: how many were compared.
    """

    mean_angle: float
    p90_angle: float
    mean_distance: float
    p90_distance: float
    back_distance: float
    faces: int


def visibility_cameras(size: int = VISIBILITY_SIZE) -> Cameras:
    """Cameras all around a head, from below its chin to above it."""
    turns = [30.0 * step for step in range(12)]
    rings = [orbit_cameras(turns, [elevation] * 12, size) for elevation in (-20.0, 8.0, 40.0)]
    return concatenate_cameras(rings)


def visible_faces(mesh: Mesh, cameras: Cameras) -> Tensor:
    """[F] bool: faces seen at one pixel centre or more by any of the cameras."""
    seen = torch.zeros(len(mesh.faces), dtype=torch.bool)
    for index in range(len(cameras)):
        face_id = rasterize_mesh(mesh.vertices, mesh.faces, cameras[index]).face_id
        seen[face_id[face_id >= 0]] = True
    return seen


def away_from_cuts(mesh: Mesh, bounds: tuple[Tensor, Tensor], margin: float = CUT_MARGIN) -> Tensor:
    """[F] bool: faces whose middle is not within `margin` of where a bust is cut: its lower end, its arms.

    bounds: lowest and highest corner [3] of the space that all compared surfaces reach.
    """
    middles, (low, high) = mesh.vertices[mesh.faces].mean(dim=1), bounds
    between = (middles[:, 0] > low[0] + margin) & (middles[:, 0] < high[0] - margin)
    return between & (middles[:, 1] > low[1] + margin)


def surface_error(mesh: Mesh, truth: Mesh, cameras: Cameras | None = None) -> SurfaceError:
    """Errors of what can be seen of `mesh` against what can be seen of `truth`.

    Both are first reduced to the faces that the cameras see (`visibility_cameras` if not given): the inside of a mouth
    and skin under hair are nobody's error. Nor are the cuts of a bust, which the two may end at different places: what
    lies within 0.05 of the lower end or of an arm's end of either is left out. The truth's normals are interpolated
    from its vertices. Raises `InvalidInput` if nothing of one of them is left.
    """
    cameras = visibility_cameras() if cameras is None else cameras
    low = torch.maximum(mesh.vertices.amin(dim=0), truth.vertices.amin(dim=0))
    high = torch.minimum(mesh.vertices.amax(dim=0), truth.vertices.amax(dim=0))
    named = (("mesh", mesh), ("truth", truth))
    seen = {name: visible_faces(value, cameras) & away_from_cuts(value, (low, high)) for name, value in named}
    for name, flags in seen.items():
        if not bool(flags.any()):
            raise InvalidInput(
                f"surface_error: the {len(cameras)} cameras see no face of `{name}` ({len(flags)} faces), expected at "
                "least 1; both must stand in the cameras' world."
            )
    faces, true_faces = mesh.faces[seen["mesh"]], truth.faces[seen["truth"]]
    closest = SurfaceTree(truth.vertices, true_faces).closest(mesh.vertices[faces].mean(dim=1))
    corner_normals = vertex_normals(truth.vertices, truth.faces)[true_faces[closest.faces]]
    expected = (corner_normals * closest.barycentric[..., None]).sum(dim=1)
    found = face_normals(mesh.vertices, faces)
    cosine = torch.nn.functional.cosine_similarity(found.double(), expected.double(), dim=-1)
    angles = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
    areas = face_areas(mesh.vertices.double(), faces)
    back = SurfaceTree(mesh.vertices, mesh.faces).closest(truth.vertices[true_faces].mean(dim=1)).distances
    return SurfaceError(
        mean_angle=weighted_mean(angles, areas),
        p90_angle=weighted_quantile(angles, areas, QUANTILE),
        mean_distance=weighted_mean(closest.distances, areas),
        p90_distance=weighted_quantile(closest.distances, areas, QUANTILE),
        back_distance=weighted_mean(back, face_areas(truth.vertices.double(), true_faces)),
        faces=len(faces),
    )


def weighted_mean(values: Tensor, weights: Tensor) -> float:
    """Mean of values [N] with weights [N]."""
    return float((values.double() * weights).sum() / weights.sum())


def weighted_quantile(values: Tensor, weights: Tensor, share: float) -> float:
    """Smallest of values [N] such that those not above it have `share` of the weights [N]."""
    order = torch.argsort(values)
    total = torch.cumsum(weights[order].double(), 0)
    return float(values[order][int(torch.searchsorted(total, share * total[-1]).clamp_max(len(values) - 1))])

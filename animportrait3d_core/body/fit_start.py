"""Where a fit begins: scale and translation of the neutral body, from landmarks or the mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, face_normals
from ..views import Views
from .fit_terms import BodyRegions
from .landmarks import NUM_LANDMARKS, Landmarks, triangulate
from .model import BodyModel
from .parameters import BodyParameters

INITIAL_SCALE = 2.78  # of SMPL-X in a world of three 3DPortraitGAN units; upstream's FLAME starts at 2.7783
EYES_IN_WORLD = (0.0, 0.42, 0.17)  # between the pupils of a portrait in the usual frame
_SCALES = (0.85, 1.0, 1.15)
_HEIGHTS = (-0.16, -0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12, 0.16)
_DEPTHS = (-0.08, 0.0, 0.08)


def start_from_landmarks(
    body: BodyModel, parameters: BodyParameters, views: Views, landmarks: Landmarks
) -> BodyParameters:
    """Least squares scale and translation without rotation, as upstream's first step (its smplx_fit.py)."""
    if landmarks.points_3d is not None:
        target, weights = landmarks.points_3d, landmarks.confidence_3d
    else:
        target, determined = triangulate(views.cameras, landmarks)
        weights = determined.float() * (landmarks.confidence_2d.sum(0) > 0)
    if int((weights > 0).sum()) < 4:
        raise InvalidInput(
            f"fit_body: {int((weights > 0).sum())} landmarks can be placed in space, expected at least 4 of 68; give "
            "them in two or more views, or as points_3d."
        )
    source = body(parameters).landmarks[0, :NUM_LANDMARKS]
    share = (weights / weights.sum())[:, None]
    middle, target_middle = (source * share).sum(0), (target * share).sum(0)
    spread = ((source - middle) ** 2 * share).sum()
    scale = ((source - middle) * (target - target_middle) * share).sum() / spread
    if not float(scale) > 0:
        raise InvalidInput(f"fit_body: the landmarks give scale {float(scale):.3g}; are left and right exchanged?")
    return parameters.replace(scale=scale.reshape(1, 1), translation=(target_middle - scale * middle)[None])


def _candidates(body: BodyModel, parameters: BodyParameters) -> BodyParameters:
    """The neutral body at the usual place and around it: a grid of scales, heights and depths."""
    eyes = body(parameters).landmarks[0, NUM_LANDMARKS:].mean(0)
    grid = torch.cartesian_prod(torch.tensor(_SCALES), torch.tensor(_HEIGHTS), torch.tensor(_DEPTHS))
    scale = INITIAL_SCALE * grid[:, :1]
    shift = torch.stack([torch.zeros(len(grid)), grid[:, 1], grid[:, 2]], dim=1)
    return parameters.replace(scale=scale, translation=torch.tensor(EYES_IN_WORLD) + shift - scale * eyes)


def start_from_mesh(
    body: BodyModel, parameters: BodyParameters, mesh: Mesh, regions: BodyRegions, most: int = 3
) -> list[BodyParameters]:
    """The `most` best places of a grid, by how well the neutral face lies on the mesh and the mesh's front on it.

    Both ways, since a body that shrinks into any surface is near it everywhere.
    """
    grid = _candidates(body, parameters)
    face = regions.attracted[:: 1 + len(regions.attracted) // 300]
    posed = body(grid).vertices[:, face]
    near = SurfaceTree(mesh.vertices, mesh.faces).closest(posed.reshape(-1, 3)).distances.reshape(len(grid), -1)
    front = mesh.vertices[mesh.faces[face_normals(mesh.vertices, mesh.faces)[:, 2] > 0]].mean(1)
    front = front[:: 1 + len(front) // 2000]
    scores = [float(near[i].clamp(max=0.2).mean() + _front_distance(front, posed[i])) for i in range(len(grid))]
    order = sorted(range(len(grid)), key=lambda i: scores[i])
    return [grid[i] for i in order[:most]]


def _front_distance(front: Tensor, face: Tensor) -> Tensor:
    """Mean distance of the mesh's points in the face's box to the face's vertices; large if there are none."""
    low, high = face.min(0).values, face.max(0).values
    inside = ((front > low) & (front < high))[:, :2].all(1) & (front[:, 2] > low[2])
    if int(inside.sum()) < 20:
        return torch.tensor(0.2)
    return torch.cdist(front[inside], face).min(1).values.clamp(max=0.2).mean()

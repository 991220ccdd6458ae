"""Where a fit begins: scale, translation and turn of the neutral body, from landmarks or the mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..head_frame import EYES_CENTER, HEAD_SCALE
from ..landmarks import NUM_FACE_LANDMARKS
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, face_normals
from ..rotations import matrix_to_axis_angle
from .fit_terms import BodyRegions
from .fit_variables import geman_mcclure_weights
from .landmarks import outer_eye_distance
from .model import BodyModel
from .parameters import BodyParameters

MIN_POINTS = 4  # of 68
MAX_TURN_DEGREES = 60.0
MAX_START_ERROR = 0.5  # of the outer-eye distance: faces differ by 0.1
_SCALES = (0.85, 1.0, 1.15)
_HEIGHTS = (-0.16, -0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12, 0.16)
_DEPTHS = (-0.08, 0.0, 0.08)


def start_from_landmarks(
    body: BodyModel, parameters: BodyParameters, points: Tensor, weights: Tensor
) -> BodyParameters:
    """The neutral body scaled, moved and turned onto landmarks [68, 3] of weights [68] in 0..1, some of them wrong.

    The turn is shared by neck and head, as the body's root stays upright. Raises `InvalidInput` if fewer than four
    landmarks are known, or they are no face that looks about towards +z.
    """
    known = int((weights > 0).sum())
    if known < MIN_POINTS:
        raise InvalidInput(
            f"fit_body: {known} landmarks can be placed in space, expected at least {MIN_POINTS} of 68; give them in "
            "two or more views, or as points_3d."
        )
    source = body(parameters).landmarks[0, :NUM_FACE_LANDMARKS].double()
    rotation, robust = _robust_rotation(source, points.double(), weights.double())
    turn = matrix_to_axis_angle(rotation).float()
    angle = float(torch.rad2deg(turn.norm()))
    if angle > MAX_TURN_DEGREES:
        raise InvalidInput(
            f"fit_body: the landmarks show a face turned by {angle:.0f} degrees from the usual frame (+z, upright), "
            f"expected at most {MAX_TURN_DEGREES:.0f}; align the portrait first."
        )
    turned = parameters.replace(neck_pose=turn[None] / 2, head_pose=turn[None] / 2)
    # The neck turns about its own joint: scale and place are those of the turned body.
    source = body(turned).landmarks[0, :NUM_FACE_LANDMARKS].double()
    scale, translation = _scale_and_shift(source, points.double(), robust)
    return turned.replace(scale=scale.float().reshape(1, 1), translation=translation.float()[None])


def _robust_rotation(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [3, 3] of the similarity from source to target [68, 3], and the weights [68] less those of wrong points.

    Umeyama's closed form inside Geman-McClure steps, whose width shrinks from half of the face to a tenth.
    """
    size = float(outer_eye_distance(source))
    robust = weights
    for width in (0.5, 0.3, 0.2, 0.1, 0.1, 0.1):
        share = (robust / robust.sum())[:, None]
        centred, target_centred = source - (source * share).sum(0), target - (target * share).sum(0)
        u, stretch, vt = torch.linalg.svd((target_centred * share).T @ centred)
        mirrored = float(torch.det(u) * torch.det(vt)) < 0 and float(stretch[2]) > 1e-3 * float(stretch[0])
        # Points that are no face at all have a mirror image too: only one that fits is worth this message.
        if mirrored and _start_error(source @ (u @ vt).T, target, weights) < MAX_START_ERROR:
            raise InvalidInput(
                "fit_body: the landmarks are a face's mirror image; are left and right exchanged? The first 17 points "
                "go along the jaw from the subject's right to the left."
            )
        rotation = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.det(u @ vt)))]).double()) @ vt
        turned = source @ rotation.T
        scale, shift = _scale_and_shift(turned, target, robust)
        distances = (scale * turned + shift - target).norm(dim=-1)
        robust = geman_mcclure_weights(distances, width * size * float(scale)) * weights
    error = float((distances * weights).sum() / weights.sum() / (scale * size))
    if not float(scale) > 0 or not error < MAX_START_ERROR:
        raise InvalidInput(
            f"fit_body: the landmarks are no face: scale {float(scale):.3g}, mean distance {error:.2f} of the "
            f"outer-eye distance to the neutral body's, expected a scale above 0 and at most {MAX_START_ERROR}. "
            "Look at the detected landmarks; disconnect them to fit by the surface alone."
        )
    return rotation, robust


def _start_error(turned: Tensor, target: Tensor, weights: Tensor) -> float:
    """Mean distance of points [P, 3] to the target after scaling and shifting, over the turned outer-eye distance."""
    scale, shift = _scale_and_shift(turned, target, weights)
    distances = (scale * turned + shift - target).norm(dim=-1)
    return float((distances * weights).sum() / weights.sum() / (scale * outer_eye_distance(turned)))


def _scale_and_shift(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares scale (a number) and translation [3] from source to target [68, 3], without rotation."""
    share = (weights / weights.sum())[:, None]
    middle, target_middle = (source * share).sum(0), (target * share).sum(0)
    scale = ((source - middle) * (target - target_middle) * share).sum() / ((source - middle) ** 2 * share).sum()
    return scale, target_middle - scale * middle


def _candidates(body: BodyModel, parameters: BodyParameters) -> BodyParameters:
    """The neutral body at the usual place and around it: a grid of scales, heights and depths."""
    eyes = body(parameters).landmarks[0, NUM_FACE_LANDMARKS:].mean(0)
    grid = torch.cartesian_prod(torch.tensor(_SCALES), torch.tensor(_HEIGHTS), torch.tensor(_DEPTHS))
    scale = HEAD_SCALE * grid[:, :1]
    shift = torch.stack([torch.zeros(len(grid)), grid[:, 1], grid[:, 2]], dim=1)
    return parameters.replace(scale=scale, translation=torch.tensor(EYES_CENTER) + shift - scale * eyes)


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

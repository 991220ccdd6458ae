"""How well a portrait's mesh is divided into hair, clothes and skin, by area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cameras import view_preset
from ..errors import check_shape
from ..meshes import Mesh, face_areas
from ..parts import AvatarPart
from ..render import interpolate, rasterize_mesh
from ..rigging.visibility import visible_faces

if TYPE_CHECKING:
    from ..embedded.identities import Identity

EVALUATED_PARTS = {"hair": AvatarPart.HAIR, "face": AvatarPart.SKIN, "clothes": AvatarPart.CLOTHES}
TRUTH_SIZE = 320


def parts_iou(parts: Tensor, truth: Tensor, areas: Tensor) -> dict[str, float]:
    """Intersection over union by area for hair, face (part SKIN) and clothes; 1 for a part that neither has.

    parts, truth: [F] uint8 part ids.  areas: [F] what each face counts; 0 leaves a face out.

    >>> hair, skin = AvatarPart.HAIR, AvatarPart.SKIN
    >>> parts_iou(torch.tensor([hair, hair, skin]), torch.tensor([hair, skin, skin]), torch.tensor([2.0, 1.0, 1.0]))
    {'hair': 0.6666666666666666, 'face': 0.5, 'clothes': 1.0}
    """
    check_shape("parts_iou", "truth", truth, [len(parts)])
    check_shape("parts_iou", "areas", areas, [len(parts)])
    weights, result = areas.double(), {}
    for name, part in EVALUATED_PARTS.items():
        one, other = parts == part, truth == part
        union = float(weights[one | other].sum())
        result[name] = float(weights[one & other].sum()) / union if union > 0 else 1.0
    return result


def true_mesh_parts(mesh: Mesh, identity: Identity) -> Tensor:
    """True part [F] uint8 of each face of a portrait's mesh: that of the closest visible point of the true figure.

    Points are those under the pixels of 24 views: scalp under hair and skin inside of a collar, which can be closer to
    an inexact surface than what covers them, do not count.
    """
    from scipy.spatial import cKDTree

    from ..embedded.identities import identity_mesh
    from ..embedded.identities.figure import build_figure
    from ..parts import FigurePart

    true_mesh = identity_mesh(identity, texture_size=128)
    figure = torch.from_numpy(build_figure(identity).face_parts)
    part_of_true_face = torch.full((len(figure),), AvatarPart.SKIN, dtype=torch.uint8)
    part_of_true_face[figure == FigurePart.HAIR], part_of_true_face[figure == FigurePart.CLOTHES] = (
        AvatarPart.HAIR,
        AvatarPart.CLOTHES,
    )
    cameras = view_preset("mesh24", TRUTH_SIZE)
    points, parts = [], []
    for view in range(len(cameras)):
        image = rasterize_mesh(true_mesh.vertices, true_mesh.faces, cameras[view])
        points.append(interpolate(image, true_mesh.faces, true_mesh.vertices)[image.mask])
        parts.append(part_of_true_face[image.face_id[image.mask]])
    _, closest = cKDTree(torch.cat(points).numpy()).query(mesh.vertices[mesh.faces].mean(dim=1).numpy())
    return torch.cat(parts)[torch.from_numpy(closest)]


def visible_areas(mesh: Mesh) -> Tensor:
    """Areas [F] of the faces that can be seen from outside, 0 for the others: what `parts_iou` should count."""
    return face_areas(mesh.vertices, mesh.faces) * visible_faces(mesh)

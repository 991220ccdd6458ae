"""How well a portrait's mesh is divided into hair, clothes and skin, by area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import check_shape
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, face_areas
from ..rigging.parts import CLOTHES, HAIR, SKIN
from ..rigging.visibility import visible_faces

if TYPE_CHECKING:
    from ..embedded.identities import Identity

EVALUATED_PARTS = {"hair": HAIR, "face": SKIN, "clothes": CLOTHES}


def parts_iou(parts: Tensor, truth: Tensor, areas: Tensor) -> dict[str, float]:
    """Intersection over union by area for hair, face (part SKIN) and clothes; 1 for a part that neither has.

    parts, truth: [F] uint8 part ids.  areas: [F] what each face counts; 0 leaves a face out.

    >>> hair, face = torch.tensor([HAIR, HAIR, SKIN]), torch.tensor([HAIR, SKIN, SKIN])
    >>> parts_iou(hair, face, torch.tensor([2.0, 1.0, 1.0]))
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
    """True part [F] uint8 of each face of a portrait's mesh: that of the closest visible place of the true figure.

    Scalp under hair and skin under clothes do not count: the portrait's surface is the outer one.
    """
    from ..embedded.identities import identity_mesh
    from ..embedded.identities.figure import CLOTHES as FIGURE_CLOTHES
    from ..embedded.identities.figure import HAIR as FIGURE_HAIR
    from ..embedded.identities.figure import build_figure

    figure = torch.from_numpy(build_figure(identity).face_parts)
    table = torch.full((int(figure.max()) + 1,), SKIN, dtype=torch.uint8)
    table[FIGURE_HAIR], table[FIGURE_CLOTHES] = HAIR, CLOTHES
    true_mesh = identity_mesh(identity, texture_size=128)
    outer = visible_faces(true_mesh)
    tree = SurfaceTree(true_mesh.vertices, true_mesh.faces[outer])
    closest = tree.closest(mesh.vertices[mesh.faces].mean(dim=1))
    return table[figure[outer].long()][closest.faces]


def visible_areas(mesh: Mesh) -> Tensor:
    """Areas [F] of the faces that can be seen from outside, 0 for the others: what `parts_iou` should count."""
    return face_areas(mesh.vertices, mesh.faces) * visible_faces(mesh)

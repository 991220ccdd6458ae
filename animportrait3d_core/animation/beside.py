"""What stands beside the avatar in a film: the bare body that moves it, so that both can be compared frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras, normals_to_opengl
from ..errors import InvalidInput
from ..meshes import vertex_normals
from ..previews import shaded_mesh
from ..render import interpolate, rasterize_mesh

NOTHING, BODY, NORMALS = "nothing", "body", "normals"
BESIDE = (NOTHING, BODY, NORMALS)
"""body: in clay.  normals: in the camera's OpenGL axes (x right, y up, z to the viewer), coded n / 2 + 1 / 2."""
SAMPLES = 2
"""Per pixel and axis: the body's edges are then as soft as the avatar's."""


def check_beside(where: str, beside: str) -> None:
    """Raises `InvalidInput` for a name that is not in `BESIDE`."""
    if beside not in BESIDE:
        raise InvalidInput(f"{where}: beside the avatar '{beside}', expected one of {', '.join(BESIDE)}.")


def body_picture(
    vertices: Tensor, faces: Tensor, camera: Cameras, background: Tensor, look: str
) -> tuple[Tensor, Tensor]:
    """Colours [H, W, 3] in 0..1 over a background [3], and alpha [H, W, 1], of a posed body from one camera.

    vertices: [V, 3].  faces: [F, 3], counter-clockwise from outside.  look: `BODY` or `NORMALS`.
    """
    fine = camera.resized(camera.width * SAMPLES, camera.height * SAMPLES)
    image = rasterize_mesh(vertices, faces, fine)
    if look == BODY:
        colors = shaded_mesh(vertices, faces, fine)
    else:
        normals = normals_to_opengl(fine, interpolate(image, faces, vertex_normals(vertices, faces)))
        colors = 0.5 * torch.nn.functional.normalize(normals, dim=-1) + 0.5
    mask = image.mask[..., None].to(colors)
    samples = torch.cat([colors * mask, mask], dim=-1).movedim(-1, 1)
    color, alpha = torch.nn.functional.avg_pool2d(samples, SAMPLES)[0].movedim(0, -1).split([3, 1], dim=-1)
    return color + (1 - alpha) * background, alpha

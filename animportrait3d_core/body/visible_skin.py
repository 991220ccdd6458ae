"""The skin of a body that can be seen: what may be compared with a portrait's surface, place by place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import orbit_cameras
from ..head_frame import FACE_CENTER
from ..meshes import vertex_normals
from ..regions import INNER_REGIONS
from .fit_terms import body_regions
from .landmarks import outer_eye_distance
from .model import BodyModel, BodyOutput

_YAWS, _HEIGHTS = (-80, -45, -20, 0, 20, 45, 80, 0, 0), (0, 0, 0, 0, 0, 0, 0, -25, 25)
_SIZE, _FOV = 512, 14.0
_BEHIND = 0.015  # of the outer-eye distance: so far behind the picture a place still counts as seen


def outer_skin(body: BodyModel) -> Tensor:
    """Faces [F] bool that are neither eyes nor mouth."""
    masks = body.assets.face_regions
    return ~torch.stack([masks[name] for name in INNER_REGIONS]).any(0)


def visible_skin(body: BodyModel, output: BodyOutput) -> Tensor:
    """Vertices [V'] bool of face, ears and neck that are seen from the front half of the world; no eyes, no mouth.

    output: the body posed in the head frame, batch of one.
    """
    vertices, faces = output.vertices[0], body.faces_outward
    is_skin, is_drawn = (torch.zeros(body.num_vertices, dtype=torch.bool) for _ in range(2))
    is_skin[faces[outer_skin(body)]] = True
    is_drawn[body_regions(body, body.num_vertices).attracted] = True
    return is_skin & is_drawn & _seen(vertices, faces, _BEHIND * float(outer_eye_distance(output.landmarks[0])))


def visible_face(body: BodyModel, output: BodyOutput) -> Tensor:
    """The same without ears and neck."""
    face = torch.zeros(body.num_vertices, dtype=torch.bool)
    face[body.region_vertices("face")] = True
    return face & visible_skin(body, output)


def _seen(vertices: Tensor, faces: Tensor, behind: float) -> Tensor:
    """Which vertices [V'] bool face one of the cameras and lie less than `behind` beyond what it sees."""
    from ..render import rasterize_mesh
    from ..render.mesh import camera_points

    cameras = orbit_cameras(_YAWS, _HEIGHTS, _SIZE, target=FACE_CENTER, fov_degrees=_FOV)
    depth = rasterize_mesh(vertices, faces, cameras).depth
    points = camera_points(vertices, cameras)
    pixels = points[..., :2] / points[..., 2:] * cameras.K[:, [0, 1], [0, 1]][:, None] + cameras.K[:, None, :2, 2]
    column, row = (pixels[..., axis].floor().long() for axis in range(2))
    inside = (column >= 0) & (row >= 0) & (column < _SIZE) & (row < _SIZE)
    place = row.clamp(0, _SIZE - 1) * _SIZE + column.clamp(0, _SIZE - 1)
    towards = cameras.camera_centers[:, None] - vertices
    facing = (vertex_normals(vertices, faces) * towards).sum(-1) > 0
    return (inside & facing & (points[..., 2] - depth.flatten(1).gather(1, place) < behind)).any(0)

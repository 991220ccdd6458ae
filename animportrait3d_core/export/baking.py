"""The splats' colours on the body's surface: pictures of the posed avatar, projected back onto the mesh.

Every point of the surface takes the mean of the pictures that see it; those count most that look straight, from near.
A point counts as seen where the mesh's depth buffer agrees. The pictures show the avatar at rest; what no such picture
sees (lids, teeth, the inside of the mouth) is taken from pictures with an open mouth and closed eyes, or open ones
where they are closed at rest.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..animation.clips import open_jaw
from ..avatar.rig import AvatarRig
from ..cameras import Cameras, concatenate_cameras, orbit_cameras, project
from ..errors import InvalidInput
from ..meshes import vertex_normals
from ..progress import Progress
from ..render import rasterize_mesh, render_gaussians

if TYPE_CHECKING:
    from ..avatar.model import RiggedAvatar
    from ..body.parameters import BodyParameters

DEPTH_TOLERANCE = 0.0008
"""World units, of a head about 1 unit high: how far behind the depth buffer a point still counts as seen, beside what
the slope of its surface explains within a pixel. A closed lid lies about 0.005 before its eyeball."""
MIN_COSINE = 0.15
"""Pictures that see a surface flatter than this say nothing about it: there they show its silhouette."""
MIN_ALPHA = 0.5
MIN_WEIGHT = 0.02
"""Seen by less than this (1: one picture, looking straight from the orbit), a point is not seen at rest."""
OPEN_JAW_DEGREES = 22.0
NEAR_FOV_DEGREES = 17.0
"""Of pictures that the face alone fills."""


@dataclasses.dataclass(frozen=True)
class BakeSettings:
    """Pictures that are baked."""

    texture_size: int = 1024
    """Texels per side; 0 for colours of vertices alone."""
    view_size: int = 768
    """Pixels per side of the pictures."""

    def __post_init__(self) -> None:
        if not 0 <= self.texture_size <= 8192 or not 16 <= self.view_size <= 4096:
            raise InvalidInput(
                f"BakeSettings: a texture of {self.texture_size} texels from views of {self.view_size} pixels, "
                "expected 0 to 8192 and 16 to 4096."
            )


@dataclasses.dataclass(frozen=True)
class SurfacePoints:
    """P points of a mesh. face: [P] int64.  barycentric: [P, 3]."""

    face: Tensor
    barycentric: Tensor

    def of(self, values: Tensor, faces: Tensor) -> Tensor:
        """Vertex values [V, C] at the points, [P, C]."""
        corners = values[faces[self.face].reshape(-1)].view(-1, 3, values.shape[1])
        return (corners * self.barycentric[..., None]).sum(dim=1)


def vertex_points(faces: Tensor, count: int) -> SurfacePoints:
    """The vertices of a mesh as points of its faces [F, 3]; those of no face are put on the first."""
    corner = torch.zeros(count, dtype=torch.int64).index_copy(0, faces.reshape(-1), torch.arange(faces.numel()))
    return SurfacePoints(corner // 3, torch.nn.functional.one_hot(corner % 3, 3).float())


def texel_points(corner_uvs: Tensor, size: int) -> tuple[SurfacePoints, Tensor]:
    """The covered texels' points, and where they lie: flat indices [P] into [size, size], row 0 at v = 1."""
    uvs = corner_uvs.reshape(-1, 2).float()
    flat = torch.cat([uvs[:, :1] * size, (1 - uvs[:, 1:]) * size, torch.ones(len(uvs), 1)], dim=1)
    # A camera whose pixels are the texels: the charts lie flat at depth 1.
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], size, size)
    image = rasterize_mesh(flat, torch.arange(len(flat)).reshape(-1, 3), camera)
    texels = torch.nonzero(image.face_id.reshape(-1) >= 0).squeeze(1)
    face = image.face_id.reshape(-1)[texels].long()
    return SurfacePoints(face, image.barycentric.reshape(-1, 3)[texels]), texels


def bake_colors(
    avatar: RiggedAvatar,
    points: SurfacePoints,
    settings: BakeSettings = BakeSettings(),
    progress: Progress | None = None,
) -> Tensor:
    """Display colours [P, 3] in 0..1 of points on the body's faces; what no picture sees takes the nearest seen one."""
    rig, rest = AvatarRig(avatar), avatar.parameters
    sessions = [(rest, _around(settings.view_size)), (_opened(rest), _in_front(settings.view_size))]
    total, done = sum(len(cameras) for _, cameras in sessions), 0
    color, weight = torch.zeros(len(points.face), 3), torch.zeros(len(points.face))
    for pose, cameras in sessions:
        seen = weight >= MIN_WEIGHT
        for index in range(len(cameras)):
            found, trust = _seen_colors(rig, pose, cameras[index : index + 1], points)
            trust = torch.where(seen, torch.zeros_like(trust), trust)
            color, weight = color + found * trust[:, None], weight + trust
            done += 1
            if progress is not None:
                progress(done, total, None)
    color = color / weight.clamp_min(1e-12)[:, None]
    return _filled(color, weight >= MIN_WEIGHT, points, rig)


def _around(size: int) -> Cameras:
    """All sides, and the face from near."""
    rings = [orbit_cameras([30.0 * index for index in range(12)], [8.0] * 12, size)]
    rings.append(orbit_cameras([45.0 + 90.0 * index for index in range(4)], [50.0] * 4, size))
    rings.append(orbit_cameras([0.0, 90.0, 180.0, 270.0], [-25.0] * 4, size))
    rings.append(orbit_cameras([-35.0, 0.0, 35.0, 0.0], [0.0, 0.0, 0.0, 20.0], size, fov_degrees=NEAR_FOV_DEGREES))
    return concatenate_cameras(rings)


def _in_front(size: int) -> Cameras:
    """The open mouth from the front, a little above and below."""
    return orbit_cameras([0.0, -25.0, 25.0, 0.0, 0.0], [0.0, 0.0, 0.0, 20.0, -20.0], size, fov_degrees=NEAR_FOV_DEGREES)


def _opened(rest: BodyParameters) -> BodyParameters:
    """What hides at rest: the mouth opens, open eyes close, closed ones open."""
    pose = open_jaw(rest.awake(), OPEN_JAW_DEGREES)
    return pose.replace(eyelids=torch.where(pose.eyelids == rest.eyelids, 1.0, pose.eyelids))


def _seen_colors(rig: AvatarRig, pose: BodyParameters, camera: Cameras, points: SurfacePoints) -> tuple[Tensor, Tensor]:
    """Colours [P, 3] that one camera sees at the points, and how much they are trusted [P]; 0: not seen."""
    with torch.no_grad():
        posed = rig.body(pose)
        image = render_gaussians(rig.pose(pose, posed), camera, background=torch.zeros(3))
        faces, vertices = rig.avatar.body.faces_outward, posed.vertices[0]
        depth = rasterize_mesh(vertices, faces, camera).depth[0]
        position = points.of(vertices, rig.avatar.body.faces)
        normal = points.of(vertex_normals(vertices, faces), rig.avatar.body.faces)
        pixels, distance = project(camera, position)
    pixels, distance = pixels[0], distance[0]
    to_camera = torch.nn.functional.normalize(camera.camera_centers - position, dim=-1)
    cosine = (torch.nn.functional.normalize(normal, dim=-1) * to_camera).sum(-1)
    column, row = pixels.floor().long().unbind(-1)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height) & (distance > 0)
    nearest = depth[row.clamp(0, camera.height - 1), column.clamp(0, camera.width - 1)]
    pixel = distance / camera.K[0, 0, 0]
    slope = pixel * (1 - cosine**2).clamp_min(0).sqrt() / cosine.clamp_min(MIN_COSINE)
    visible = inside & (distance <= nearest + DEPTH_TOLERANCE + slope) & (cosine > MIN_COSINE)
    found = _bilinear(torch.cat([image.color[0].clamp(0, 1), image.alpha[0][..., None]], dim=-1), pixels)
    alpha = found[:, 3]
    straight = ((cosine - MIN_COSINE) / (1 - MIN_COSINE)).clamp(0, 1) ** 3
    # Of a picture twice as sharp, four pixels fall on the same patch.
    sharp = (camera.K[0, 0, 0] / camera.width / distance.clamp_min(1e-3)) ** 2
    trust = torch.where(visible & (alpha > MIN_ALPHA), straight * sharp * alpha, torch.zeros_like(alpha))
    return found[:, :3] / alpha.clamp_min(MIN_ALPHA)[:, None], trust


def _bilinear(image: Tensor, pixels: Tensor) -> Tensor:
    """Values [P, C] of an image [H, W, C] at pixels [P, 2], whose centres lie at halves; the border continues."""
    size = pixels.new_tensor([image.shape[1], image.shape[0]])
    grid = (2 * pixels / size - 1)[None, None]
    sampled = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T


def _filled(color: Tensor, seen: Tensor, points: SurfacePoints, rig: AvatarRig) -> Tensor:
    """Colours with those of unseen points from the nearest seen point of the same piece of the mesh, if it has one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if bool(seen.all()) or not bool(seen.any()):
        return color
    body = rig.avatar.body
    faces = body.faces.numpy()
    edges = coo_matrix((faces[:, 0] >= 0, (faces[:, 0], faces[:, 1])), shape=(body.num_vertices,) * 2)
    edges = edges + coo_matrix((faces[:, 0] >= 0, (faces[:, 1], faces[:, 2])), shape=(body.num_vertices,) * 2)
    piece = torch.from_numpy(connected_components(edges, directed=False)[1])[body.faces[points.face, 0]]
    with torch.no_grad():
        position = points.of(rig.body(rig.avatar.parameters).vertices[0], body.faces)
    filled = color.clone()
    for number in torch.unique(piece[~seen]).tolist():
        known = torch.nonzero(seen & (piece == number)).squeeze(1)
        known = known if len(known) else torch.nonzero(seen).squeeze(1)
        wanted = torch.nonzero(~seen & (piece == number)).squeeze(1)
        nearest = cKDTree(position[known].numpy()).query(position[wanted].numpy())[1]
        filled[wanted] = color[known[torch.from_numpy(nearest)]]
    return filled


def fill_gaps(colors: Tensor, texels: Tensor, size: int) -> Tensor:
    """A texture [size, size, 3] of texels [P] with colours [P, 3]; gaps between charts continue the charts' borders."""
    from scipy import ndimage

    covered = torch.zeros(size * size, dtype=torch.bool)
    covered[texels] = True
    texture = torch.zeros(size * size, 3).index_copy(0, texels, colors)
    gaps = ~covered.reshape(size, size).numpy()
    row, column = ndimage.distance_transform_edt(gaps, return_distances=False, return_indices=True)
    return texture.reshape(size, size, 3)[torch.from_numpy(row).long(), torch.from_numpy(column).long()]

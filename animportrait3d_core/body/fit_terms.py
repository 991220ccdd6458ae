"""What pulls a body towards a portrait: its surface and its silhouettes (landmarks: `fit_landmarks`).

Every residual is a distance in world units. A term adds Gauss-Newton systems to the fit's normal equations; the
weights of one term sum to its `weight`, whatever the number of its residuals.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..landmarks import CHIN
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh, compact, face_areas, vertex_normals
from ..views import Views
from .fit_variables import LinearizedBody, NormalEquations, geman_mcclure_weights, project_to_directions
from .model import BodyModel

_INSIDE_REGIONS = ("teeth", "mouth_interior")
_MIN_AGREEMENT = 0.5  # cosine between normals under which two surfaces are not the same place
_MIN_POINTS = 12  # fewer correspondences than this say nothing
_RIM_COSINE = 0.15  # a vertex whose normal is that close to a right angle with the view lies on the outline
_SLIDE_WEIGHT = 0.01  # of the full offset beside the distance along the normal: keeps flat places from sliding


@dataclasses.dataclass(frozen=True)
class BodyRegions:
    """Places of a body that a fit looks at.

    outer_faces: [n, 3] int64, outward, without teeth and mouth.  outer_is_attracted: [n] bool, those not of scalp and
    trunk.  attracted: [m] vertices of face, eyes, ears and neck, which lie on the portrait's surface.  covered: [k]
    vertices of scalp and trunk, which lie on or under it.
    """

    outer_faces: Tensor
    outer_is_attracted: Tensor
    attracted: Tensor
    covered: Tensor


def body_regions(body: BodyModel, most: int) -> BodyRegions:
    """Regions of a body, each with about `most` vertices at most (every n-th)."""
    masks = body.assets.face_regions
    inside = torch.stack([masks[name] for name in _INSIDE_REGIONS]).any(0)
    under = (masks["scalp"] | masks["body"]) & ~masks["face"]
    faces = body.faces_outward
    attracted = torch.unique(faces[~inside & ~under])
    covered = torch.unique(faces[~inside & under])
    return BodyRegions(
        outer_faces=faces[~inside],
        outer_is_attracted=~under[~inside],
        attracted=every_nth(attracted, most),
        covered=every_nth(covered, most // 2),
    )


def every_nth(values: Tensor, most: int) -> Tensor:
    """At most `most` of the values [N, ...], evenly spread over their order."""
    return values[:: -(-len(values) // max(most, 1)) or 1]


class SurfaceTerm:
    """Distance between the body and the portrait's mesh, both ways, point to plane.

    Face, ears and neck are drawn to the mesh from both sides, robustly, since hair, beard and clothes hide parts of
    them. Scalp and trunk only have to stay under the mesh, and so does everything where the mesh is known to lie over
    the body.

    covering: [F] bool, faces of the mesh that are hair or clothes; None if that is not known.
    """

    def __init__(
        self,
        mesh: Mesh,
        regions: BodyRegions,
        most: int,
        generator: torch.Generator,
        covering: Tensor | None = None,
    ) -> None:
        areas = face_areas(mesh.vertices, mesh.faces)
        usable = areas > 1e-12
        self.knows_covering = covering is not None
        covering = torch.zeros_like(usable) if covering is None else covering
        mesh, areas, self.covering = compact(mesh, usable), areas[usable], covering[usable]
        self.mesh, self.regions = mesh, regions
        self.normals = vertex_normals(mesh.vertices, mesh.faces)
        self.tree = SurfaceTree(mesh.vertices, mesh.faces)
        bare = torch.nonzero(~self.covering).squeeze(1)
        drawn = torch.multinomial(areas[bare], min(most, len(bare)), replacement=False, generator=generator)
        chosen = bare[drawn]
        corners = mesh.faces[chosen]
        self.samples = mesh.vertices[corners].mean(1)
        self.sample_normals = torch.nn.functional.normalize(self.normals[corners].sum(1), dim=-1)

    def add_to(self, system: NormalEquations, posed: LinearizedBody, width: float, weight: float) -> None:
        """Adds both directions; `width` is the distance above which a correspondence loses its say."""
        index = torch.cat([self.regions.attracted, self.regions.covered])
        points = posed.vertices[index]
        hit = self.tree.closest(points)
        normals = (self.normals[self.mesh.faces[hit.faces]] * hit.barycentric[..., None]).sum(1)
        normals = torch.nn.functional.normalize(normals, dim=-1)
        offset = points - hit.points
        outside = (offset * normals).sum(-1)
        counts = (normals * posed.normals[index]).sum(-1) > _MIN_AGREEMENT
        counts &= ~self.covering[hit.faces] | (outside > 0)
        derivatives = posed.d_vertices[index]
        count = len(self.regions.attracted)
        robust = geman_mcclure_weights(hit.distances[:count], width) * counts[:count] * (weight / 2 / max(count, 1))
        _add_point_to_plane(system, offset[:count], normals[:count], derivatives[:count], robust)
        if len(index) > count:
            outside = outside[count:]
            robust = geman_mcclure_weights(hit.distances[count:], 2 * width) * (outside > 0)
            along = project_to_directions(derivatives[count:], normals[count:])
            system.add(outside, along, robust * (weight / 4 / len(outside)))
        self._add_reverse(system, posed, width, weight / 2)

    def _add_reverse(self, system: NormalEquations, posed: LinearizedBody, width: float, weight: float) -> None:
        """From samples of the mesh to the body; only where the closest place is face, ears or neck."""
        faces = self.regions.outer_faces
        hit = SurfaceTree(posed.vertices, faces).closest(self.samples)
        corners, shares = faces[hit.faces], hit.barycentric[..., None]
        normals = torch.nn.functional.normalize((posed.normals[corners] * shares).sum(1), dim=-1)
        usable = self.regions.outer_is_attracted[hit.faces] & (hit.distances < 3 * width)
        usable &= (normals * self.sample_normals).sum(-1) > _MIN_AGREEMENT
        if int(usable.sum()) < _MIN_POINTS:
            return
        corners, shares = corners[usable], shares[usable]
        per_corner = [posed.d_vertices[corners[:, k]] * shares[:, k, :, None] for k in range(3)]
        derivatives = per_corner[0] + per_corner[1] + per_corner[2]
        robust = geman_mcclure_weights(hit.distances[usable], width) * (weight / len(corners))
        offset = hit.points[usable] - self.samples[usable]
        _add_point_to_plane(system, offset, normals[usable], derivatives, robust)

    def distances(self, vertices: Tensor) -> Tensor:
        """Distances of the attracted vertices of posed vertices [V', 3] to the mesh, where it is not known to cover."""
        return self.distances_of(vertices[self.regions.attracted])

    def distances_of(self, points: Tensor) -> Tensor:
        """Distances of points [N, 3] to the mesh, of those whose nearest place is not known to be hair or clothes."""
        hit = self.tree.closest(points)
        return hit.distances[~self.covering[hit.faces]]


def _add_point_to_plane(
    system: NormalEquations, offset: Tensor, normals: Tensor, derivatives: Tensor, weights: Tensor
) -> None:
    """Distances [N] along the normals, and a small share of the full offsets [N, 3]; derivatives [N, 3, P]."""
    along = (offset * normals).sum(-1)
    system.add(along, project_to_directions(derivatives, normals), weights)
    system.add(offset.flatten(), derivatives.flatten(0, 1), _SLIDE_WEIGHT * weights.repeat_interleave(3))


def image_derivatives(cameras: Cameras, view: Tensor, pixels: Tensor, derivatives: Tensor) -> Tensor:
    """Derivatives [M, 2, P] of M points' places in their pictures, in world units at the points' depth.

    view: [M] index of each point's camera.  pixels: [M, 2].  derivatives: [M, 3, P] of the points in the world. For
    square pixels: d(u) z / f = d(x) - (u - c) / f d(z) in camera axes.
    """
    ray = (pixels - cameras.K[view, :2, 2]) / cameras.K[view, 0, 0, None]
    rotation = cameras.world_to_camera[view, :3, :3]
    return (rotation[:, :2] - ray[:, :, None] * rotation[:, 2:]) @ derivatives


class SilhouetteTerm:
    """The body's picture lies inside the masks, and the outline of face and neck is drawn to the mask's edge."""

    def __init__(self, views: Views, body: BodyModel, regions: BodyRegions, most: int) -> None:
        self.cameras, self.regions = views.cameras, regions
        self.distance = signed_distance(views.masks > 0.5)
        self.index = every_nth(torch.unique(regions.outer_faces), most)
        is_attracted = torch.zeros(body.num_vertices, dtype=torch.bool)
        is_attracted[torch.unique(regions.outer_faces[regions.outer_is_attracted])] = True
        self.is_attracted = is_attracted[self.index]
        self.may_be_cut = _below_the_chin(body)[self.index]
        self.lowest = _lowest_rows(views.masks > 0.5)

    def add_to(self, system: NormalEquations, posed: LinearizedBody, width: float, weight: float) -> None:
        """Adds outside points of the whole body, and the rim of face and neck."""
        points, normals = posed.vertices[self.index], posed.normals[self.index]
        pixels, value, slope, residual, seen = self._measured(points)
        towards = torch.nn.functional.normalize(self.cameras.camera_centers[:, None] - points, dim=-1)
        rim = self.is_attracted & ((normals * towards).sum(-1).abs() < _RIM_COSINE)
        # Inside, only the rim is drawn outward; a rim behind hair is far from the mask's edge and loses its say.
        robust = torch.where(value > 0, torch.ones(()), rim * geman_mcclure_weights(residual, width))
        robust = robust * _say_of_views(residual, seen, width)[:, None]
        chosen = seen & (robust > 1e-3)
        view, number = torch.nonzero(chosen, as_tuple=True)
        if len(view) < _MIN_POINTS:
            return
        flat = image_derivatives(self.cameras, view, pixels[chosen], posed.d_vertices[self.index[number]])
        system.add(
            residual[chosen], project_to_directions(flat, slope[chosen]), robust[chosen] * (weight / chosen.numel())
        )

    def contradicting(self, vertices: Tensor, width: float) -> Tensor:
        """Mask [B] of the views that posed vertices [V', 3] stick out of far more than out of the others."""
        _, _, _, residual, seen = self._measured(vertices[self.index])
        return _say_of_views(residual, seen, width) < 0.25

    def _measured(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of points [N, 3] in B views: pixels [B, N, 2], distances [B, N] to the mask's border in pixels (positive
        outside) with their slopes [B, N, 2], the distances in world units, and whether the picture shows the place."""
        pixels, depth = project(self.cameras, points)
        height, across = self.distance.shape[1:]
        seen = ((pixels >= 1) & (pixels <= pixels.new_tensor([across - 1.0, height - 1.0]))).all(-1) & (depth > 0)
        ends = self.lowest.gather(1, pixels[..., 0].long().clamp(0, across - 1))
        seen &= ~(self.may_be_cut & (pixels[..., 1] > ends))
        value, slope = sample_distance(self.distance, pixels)
        return pixels, value, slope, value * depth / self.cameras.K[:, 0, 0, None], seen


def _below_the_chin(body: BodyModel) -> Tensor:
    """Which vertices [V'] of the body at rest are lower than its chin."""
    rest = body(body.neutral_parameters())
    return rest.vertices[0, :, 1] < rest.landmarks[0, CHIN, 1]


def _lowest_rows(masks: Tensor) -> Tensor:
    """Where the portrait ends below [B, W], in pixels from the top, of masks [B, H, W] bool: in each column, or in the
    nearest that has some of it. Many heads are cut at the neck, and the body's shoulders are not to fit into that."""
    from scipy.ndimage import distance_transform_edt

    rows = torch.arange(1, masks.shape[1] + 1)[:, None] * masks
    ends = rows.amax(1).float()
    for row in ends:
        if bool((row > 0).any()):
            nearest = distance_transform_edt((row == 0).numpy(), return_distances=False, return_indices=True)
            row[:] = row[torch.from_numpy(nearest[0]).long()]
    return ends


def _say_of_views(residual: Tensor, seen: Tensor, width: float) -> Tensor:
    """Weights [B] in 0..1 of views by how far points stick out of their masks [B, N]: a damaged matte loses its say."""
    outside = (residual.clamp(min=0).square() * seen).sum(1) / seen.sum(1).clamp(min=1)
    root = outside.sqrt()
    return geman_mcclure_weights(root, max(width, 3 * float(root.median())))


def signed_distance(masks: Tensor) -> Tensor:
    """Distance [B, H, W] in pixels to the border of masks [B, H, W] bool: positive outside, negative inside."""
    from scipy.ndimage import distance_transform_edt

    layers = []
    for mask in masks.cpu().numpy():
        if mask.all() or not mask.any():  # no border in this picture: it says nothing
            layers.append(torch.zeros(mask.shape))
            continue
        # Each transform measures to pixel centres across the border, which lies half a pixel nearer.
        outside, inside = distance_transform_edt(~mask), distance_transform_edt(mask)
        layers.append(torch.from_numpy((outside - 0.5) * (outside > 0) - (inside - 0.5) * (inside > 0)).float())
    return torch.stack(layers)


def sample_distance(distance: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear values [B, N] and slopes [B, N, 2] per pixel of maps [B, H, W] at pixels [B, N, 2] (centres at +0.5)."""
    height, width = distance.shape[1:]
    x = (pixels[..., 0] - 0.5).clamp(0, width - 1.001)
    y = (pixels[..., 1] - 0.5).clamp(0, height - 1.001)
    left, top = x.floor().long(), y.floor().long()
    fx, fy = x - left, y - top
    flat, base = distance.flatten(1), top * width + left
    a, b, c, d = (flat.gather(1, base + shift) for shift in (0, 1, width, width + 1))
    above, below = a + (b - a) * fx, c + (d - c) * fx
    slope = torch.stack([(b - a) * (1 - fy) + (d - c) * fy, below - above], dim=-1)
    return above + (below - above) * fy, slope

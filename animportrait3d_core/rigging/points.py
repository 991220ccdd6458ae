"""Points on the fitted body and on the rest of the portrait, bound to the body's triangles (the paper's section 3.1).

Body points are bound to their own face; points of hair to the nearest scalp face, points of clothes to the nearest face
of the body region, by the real distance to the triangle (the authors' code takes the nearest centroid; the paper's text
says face). Until a segmentation is given, the portrait's surface is split by its distance to the body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..errors import InvalidInput, check_shape
from ..mesh_queries import ClosestPoints, SurfaceTree, colors_at
from ..meshes import Mesh, compact, face_areas, face_normals
from ..parts import AvatarPart, part_of_faces
from ..socket_values import SocketValue
from .frames import points_to_local, triangle_frames
from .sampling import paper_body_counts, paper_mesh_samples, place_samples
from .visibility import visible_faces

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

SCHEMA_VERSION = 1

TEETH_COLOR = (141.6 / 255, 133.8 / 255, 122.4 / 255)
"""The authors' ivory: 0.6 (236, 223, 204) / 255."""

MOUTH_COLOR = (64 / 255, 30.5 / 255, 29.5 / 255)
"""The authors' dark red: 0.5 (128, 61, 59) / 255."""

NEUTRAL_GREY = 0.5

ColorSource = Callable[[Tensor], Tensor]
"""Colours [N, 3] in 0..1 of points [N, 3] on the surface."""

EYE_TIE = 0.003
"""World units (1.1 mm): a fit may be off by this much before lids take colours from the eyes."""

MESH_FACE_SAMPLES = 7
"""The authors' points per face of hair and clothes."""


@dataclasses.dataclass(frozen=True)
class PointSettings:
    """How points are sampled and bound. Lengths are in world units (a head is about 0.65 high, 2.8 units a metre)."""

    count: int = 30_000
    """Points altogether. The authors take more than 477,000, which a CPU cannot train in minutes."""
    sampling: Literal["budget", "paper"] = "budget"
    """`budget`: `count` points, even over the surface. `paper`: 1 + 3m per body face, 7 per hair and clothes face."""
    eye_density: float = 8.0
    """Points per area on eyeballs and lids, relative to the skin: they are small, and looked at first."""
    iris_density: float = 40.0
    """The same for iris and pupil, the finest detail of a face."""
    lip_density: float = 8.0
    """The same for the lips."""
    mouth_density: float = 2.0
    """The same for teeth and the inside of the mouth, which show only while the mouth is open."""
    hidden_density: float = 0.25
    """The same for scalp and body that hair or clothes cover."""
    skin_distance: float = 0.02
    """Portrait surface closer to the face or neck than this is skin, which the body's own points stand for (7 mm)."""
    cover_distance: float = 0.008
    """The same for scalp and body: hair and clothes lie closer to the body than the noise of a face fit (3 mm)."""
    follow_distance: float = 0.1
    """Surface beyond `skin_distance` but within this of the face (beards, glasses, shape outside the fitted basis) is
    skin bound to the nearest face, so that a beard moves with the jaw. 0 in `paper`: there it is hair."""
    cheek_depth: float = 0.02
    """How far inside the cheek the points that close the sight into the head lie (the authors' 0.02)."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"PointSettings: `count` is {self.count}, expected at least 1.")
        if self.sampling not in ("budget", "paper"):
            raise InvalidInput(f"PointSettings: `sampling` is '{self.sampling}', expected 'budget' or 'paper'.")

    @classmethod
    def paper(cls) -> PointSettings:
        """The authors' numbers of points, and no points that follow the face from a distance."""
        return cls(sampling="paper", follow_distance=0.0)


@dataclasses.dataclass(frozen=True)
class RiggedPoints(SocketValue):
    """N coloured points bound to faces of the body.

    positions: [N, 3] world.  normals: [N, 3] unit, outward, of the surface they were sampled on.  spacing: [N] world
    distance to the neighbours on that surface if points lay evenly.  binding: [N] int64 body face.  local_positions:
    [N, 3] in the frame of that face.  part_id: [N] uint8.  colors: [N, 3] in 0..1.
    """

    positions: Tensor
    normals: Tensor
    spacing: Tensor
    binding: Tensor
    local_positions: Tensor
    part_id: Tensor
    colors: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        count = len(self.positions)
        for name in ("positions", "normals", "local_positions", "colors"):
            check_shape("RiggedPoints", name, getattr(self, name), [count, 3])
        for name in ("spacing", "binding", "part_id"):
            check_shape("RiggedPoints", name, getattr(self, name), [count])

    def __len__(self) -> int:
        return len(self.positions)


@dataclasses.dataclass(frozen=True)
class PosedBody:
    """A body in one pose as the point functions need it.

    vertices: [V, 3] world.  faces: [F, 3].  part_of_face: [F] uint8.  regions: named masks [F] bool.  outward: [F, 3]
    unit normals that point out of the body, whatever the winding of `faces`.
    """

    vertices: Tensor
    faces: Tensor
    part_of_face: Tensor
    regions: Mapping[str, Tensor]
    outward: Tensor

    @classmethod
    def of(cls, body: BodyModel, parameters: BodyParameters) -> PosedBody:
        """The body at `parameters` (a batch of one)."""
        with torch.no_grad():
            vertices = body(parameters).vertices[0].clone()
        normals = torch.nn.functional.normalize(face_normals(vertices, body.faces_outward), dim=-1)
        regions = body.assets.face_regions
        return cls(vertices, body.faces, part_of_faces(regions), regions, normals)

    def region(self, name: str) -> Tensor:
        """Indices [n] of the region's faces; `InvalidInput` where the assets do not name any."""
        mask = self.regions.get(name)
        if mask is None or not bool(mask.any()):
            raise InvalidInput(f"PosedBody: the body assets hold no faces of region '{name}', which binding needs.")
        return mask.nonzero()[:, 0]


def closest_in(body: PosedBody, region: Tensor, points: Tensor) -> ClosestPoints:
    """The closest to points [N, 3] on the faces `region` [n] (indices); `.faces` counts in the whole body."""
    found = SurfaceTree(body.vertices, body.faces[region]).closest(points)
    return dataclasses.replace(found, faces=region[found.faces])


def split_parts(mesh: Mesh, body: PosedBody, settings: PointSettings = PointSettings()) -> Tensor:
    """Part id [F] uint8 of each face of the portrait mesh, by the distance of its centroid to the body.

    Near the face and neck, and where nothing outside can see the face: SKIN, which the body represents. Elsewhere HAIR
    where the scalp is nearer than the body region, CLOTHES where it is not. Stands in for a segmentation, in its form.
    """
    centroids = mesh.vertices[mesh.faces].mean(dim=1)
    outside = body.regions["scalp"] | body.regions["body"]
    bare = (~outside).nonzero()[:, 0]
    to_bare, to_scalp, to_body = (
        closest_in(body, region, centroids).distances for region in (bare, body.region("scalp"), body.region("body"))
    )
    nearest_cover = torch.minimum(to_scalp, to_body)
    by_face = to_bare <= nearest_cover
    skin = torch.where(by_face, to_bare < settings.skin_distance, nearest_cover < settings.cover_distance)
    parts = torch.where(to_scalp <= to_body, AvatarPart.HAIR, AvatarPart.CLOTHES)
    return torch.where(skin | ~visible_faces(mesh), AvatarPart.SKIN, parts).to(torch.uint8)


def sample_points(
    mesh: Mesh, mesh_parts: Tensor, body: PosedBody, settings: PointSettings, generator: torch.Generator
) -> RiggedPoints:
    """Points on the body and on the hair and clothes of the mesh, bound; colours are still black (`color_points`).

    mesh_parts: [F] uint8 part of each mesh face; only HAIR and CLOTHES are sampled.
    """
    check_shape("sample_points", "mesh_parts", mesh_parts, [len(mesh.faces)])
    on_mesh, on_body, in_cheek = _shares(mesh, mesh_parts, body, settings)
    if settings.sampling == "paper":
        surface, mesh_face = paper_mesh_samples(mesh.vertices, mesh.faces, on_mesh.nonzero()[:, 0])
    else:
        surface, mesh_face = place_samples(mesh.vertices, mesh.faces, on_mesh, generator)
    skin, body_face = place_samples(body.vertices, body.faces, on_body, generator)
    cheek, cheek_face = place_samples(body.vertices, body.faces, in_cheek, generator)
    cheek = cheek - settings.cheek_depth * body.outward[cheek_face]

    mesh_normals = torch.nn.functional.normalize(face_normals(mesh.vertices, mesh.faces), dim=-1)
    mesh_spacing = _spacing(face_areas(mesh.vertices, mesh.faces), on_mesh)
    binding, surface_part = bind_points(surface, mesh_parts[mesh_face], body, settings)
    areas = face_areas(body.vertices, body.faces)
    positions = torch.cat([surface, skin, cheek])
    binding = torch.cat([binding, body_face, cheek_face])
    frames = triangle_frames(body.vertices, body.faces)[binding]
    cheek_part = torch.full((len(cheek),), AvatarPart.MOUTH_INTERIOR, dtype=torch.uint8)
    return RiggedPoints(
        positions=positions,
        normals=torch.cat([mesh_normals[mesh_face], body.outward[body_face], body.outward[cheek_face]]),
        spacing=torch.cat(
            [mesh_spacing[mesh_face], _spacing(areas, on_body)[body_face], _spacing(areas, in_cheek)[cheek_face]]
        ),
        binding=binding,
        local_positions=points_to_local(frames, positions),
        part_id=torch.cat([surface_part, body.part_of_face[body_face], cheek_part]),
        colors=torch.zeros_like(positions),
    )


def _spacing(areas: Tensor, shares: Tensor) -> Tensor:
    """Distance [F] of points that share a face of this area evenly; 0 where there are none."""
    return torch.where(shares > 0, (areas / shares.clamp_min(1e-12)).sqrt(), 0.0).float()


def bind_points(
    points: Tensor, parts: Tensor, body: PosedBody, settings: PointSettings = PointSettings()
) -> tuple[Tensor, Tensor]:
    """Body face [N] int64 and final part [N] uint8 of portrait points [N, 3] with parts [N] (HAIR or CLOTHES).

    The paper's rule: hair to the nearest scalp face, clothes to the nearest face of the body region. Points that hang
    within `settings.follow_distance` of the bare face become skin of the nearest face there.
    """
    binding = torch.empty(len(points), dtype=torch.int64)
    parts = parts.clone()
    for part, region in ((AvatarPart.HAIR, "scalp"), (AvatarPart.CLOTHES, "body")):
        chosen = parts == part
        if bool(chosen.any()):
            binding[chosen] = closest_in(body, body.region(region), points[chosen]).faces
    everywhere = closest_in(body, torch.arange(len(body.faces)), points)
    covered = body.regions["scalp"] | body.regions["body"]
    follows = ~covered[everywhere.faces] & (everywhere.distances < settings.follow_distance)
    binding[follows] = everywhere.faces[follows]
    parts[follows] = AvatarPart.SKIN
    return binding, parts


def color_points(
    points: RiggedPoints,
    mesh: Mesh,
    body: PosedBody,
    field: ColorSource | None = None,
    hidden_distance: float = 0.02,
) -> RiggedPoints:
    """The points with the colours of the nearest visible place on the mesh; teeth and mouth get the authors' generic.

    field: colours of such places, as a trained `ColorField` gives them; None takes the mesh's own texture or vertex
    colours. The authors ask their field at the points themselves, which lie off the surface it was trained on.

    Eyes take their colours from the eyes of the mesh alone and everything else from the rest: lids lie closer to the
    eyeball than the fit is exact, and would blink in white. Parts of the eyeballs further than `hidden_distance` from
    the mesh's eyes get the median of the eyes' brighter half, which is the white of the eye.
    """
    outer = compact(mesh, visible_faces(mesh))
    of_eyes = _eye_faces(outer, body)
    eyes = points.part_id == AvatarPart.EYES
    colors = torch.zeros_like(points.positions)
    found, distances = _nearest_colors(outer, of_eyes, points.positions[eyes], field)
    colors[eyes] = _whitened(found, distances > hidden_distance)
    colors[~eyes], _ = _nearest_colors(outer, ~of_eyes, points.positions[~eyes], field)
    colors[points.part_id == AvatarPart.TEETH] = colors.new_tensor(TEETH_COLOR)
    colors[points.part_id == AvatarPart.MOUTH_INTERIOR] = colors.new_tensor(MOUTH_COLOR)
    return dataclasses.replace(points, colors=colors)


def _nearest_colors(mesh: Mesh, source: Tensor, positions: Tensor, field: ColorSource | None) -> tuple[Tensor, Tensor]:
    """Colours [N, 3] of the places of a mesh closest to positions [N, 3], and their distances [N].

    source: [F] bool, the faces to look at; all of them if it names none.
    """
    source = source if bool(source.any()) else torch.ones_like(source)
    closest = SurfaceTree(mesh.vertices, mesh.faces[source]).closest(positions)
    if field is None:
        found = colors_at(mesh, source.nonzero()[:, 0][closest.faces], closest.barycentric)
    else:
        found = field(closest.points)
    return found.clamp(0, 1), closest.distances


def uncolored_points(points: RiggedPoints) -> RiggedPoints:
    """The points in neutral grey, teeth and mouth too: an avatar without colour initialization, for comparison."""
    return dataclasses.replace(points, colors=torch.full_like(points.colors, NEUTRAL_GREY))


def _eye_faces(mesh: Mesh, body: PosedBody) -> Tensor:
    """Mask [F] of the mesh's faces to which, of all parts of the body, an eyeball is nearest.

    The rims of the lids touch the eyeballs, so that a tie decides for the eye: an eye with a little lid in its corner
    is not seen, a lid with a little eye is.
    """
    centroids = mesh.vertices[mesh.faces].mean(dim=1)
    eye = body.part_of_face == AvatarPart.EYES
    to_eye, to_rest = (closest_in(body, mask.nonzero()[:, 0], centroids).distances for mask in (eye, ~eye))
    return to_eye < to_rest + EYE_TIE


def _whitened(colors: Tensor, hidden: Tensor) -> Tensor:
    """Colours [N, 3] of eye points, the hidden ones [N] bool replaced by the white of the others."""
    if not bool(hidden.any()) or bool(hidden.all()):
        return colors
    visible = colors[~hidden]
    brightness = visible.sum(-1)
    white = visible[brightness >= brightness.median()].median(dim=0).values
    return torch.where(hidden[:, None], white, colors)


def rig_points(
    mesh: Mesh,
    body: BodyModel,
    parameters: BodyParameters,
    settings: PointSettings = PointSettings(),
    generator: torch.Generator | None = None,
    mesh_parts: Tensor | None = None,
) -> RiggedPoints:
    """Coloured points of a portrait mesh on its fitted body.

    parameters: the fit (a batch of one).  mesh_parts: [F] uint8 part of each mesh face from a segmentation; without it
    `split_parts` decides by distance.  generator: default seeded with 0.
    """
    posed = PosedBody.of(body, parameters)
    mesh_parts = split_parts(mesh, posed, settings) if mesh_parts is None else mesh_parts
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return color_points(sample_points(mesh, mesh_parts, posed, settings, generator), mesh, posed)


def _shares(mesh: Mesh, mesh_parts: Tensor, body: PosedBody, settings: PointSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Points per mesh face, per body face, and per body face once more for those inside the cheek.

    Fractions of a point where a budget is shared out, whole numbers in `paper`.
    """
    sampled = (mesh_parts == AvatarPart.HAIR) | (mesh_parts == AvatarPart.CLOTHES)
    cheek = body.regions["inner_cheek"]
    if settings.sampling == "paper":
        detailed = (
            (body.part_of_face == AvatarPart.EYELIDS)
            | (body.part_of_face == AvatarPart.EYES)
            | (body.part_of_face == AvatarPart.LIPS)
        )
        on_body, in_cheek = paper_body_counts(body.vertices, body.faces, detailed)
        return MESH_FACE_SAMPLES * sampled, on_body, in_cheek * cheek
    areas = face_areas(body.vertices, body.faces)
    weights = (
        face_areas(mesh.vertices, mesh.faces) * sampled,
        areas * _density(body, mesh, settings),
        areas * cheek * settings.mouth_density,
    )
    total = sum(float(weight.double().sum()) for weight in weights)
    if total <= 0:
        raise InvalidInput("sample_points: body and mesh have no area to sample.")
    on_mesh, on_body, in_cheek = (weight * (settings.count / total) for weight in weights)
    return on_mesh, on_body, in_cheek


def _density(body: PosedBody, mesh: Mesh, settings: PointSettings) -> Tensor:
    """Relative points per area [F] of the body's faces."""
    by_part = {
        AvatarPart.EYELIDS: settings.eye_density,
        AvatarPart.EYES: settings.eye_density,
        AvatarPart.LIPS: settings.lip_density,
    }
    by_part |= {AvatarPart.TEETH: settings.mouth_density, AvatarPart.MOUTH_INTERIOR: settings.mouth_density}
    density = torch.ones(len(body.faces))
    for part, value in by_part.items():
        density[body.part_of_face == part] = value
    density[body.regions["iris"]] = settings.iris_density
    covered = body.regions["scalp"] | body.regions["body"]
    centroids = body.vertices[body.faces].mean(dim=1)
    distances = SurfaceTree(mesh.vertices, mesh.faces).closest(centroids).distances
    density[covered & (distances > settings.cover_distance)] = settings.hidden_density
    return density

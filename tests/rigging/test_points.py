"""Sampling, binding and colouring of points, against formulas and brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.mesh_queries import closest_points
from animportrait3d_core.meshes import Mesh, face_areas
from animportrait3d_core.parts import (
    AVATAR_PARTS,
    PART_OF_UPSTREAM_MASK,
    UPSTREAM_MASK_OF_PART,
    UPSTREAM_MASKS,
    AvatarPart,
    upstream_masks,
)
from animportrait3d_core.rigging import points_to_world, triangle_frames
from animportrait3d_core.rigging.points import (
    MOUTH_COLOR,
    TEETH_COLOR,
    PointSettings,
    PosedBody,
    bind_points,
    closest_in,
    color_points,
    rig_points,
    sample_points,
    split_parts,
    uncolored_points,
)
from animportrait3d_core.rigging.sampling import (
    paper_body_counts,
    paper_mesh_samples,
    place_samples,
    whole_counts,
)
from animportrait3d_core.rigging.visibility import visible_faces


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def fit(mannequin_body: BodyModel) -> BodyParameters:
    return mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.32, 0.0]])
    )


@pytest.fixture(scope="module")
def posed(mannequin_body: BodyModel, fit: BodyParameters) -> PosedBody:
    return PosedBody.of(mannequin_body, fit)


def shell(posed: PosedBody, region: str, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The region's faces, moved outward along their normals: a wig, or a coat."""
    faces = posed.faces[posed.regions[region]]
    corners = posed.vertices[faces] + distance * posed.outward[posed.regions[region]][:, None]
    return corners.reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3)


@pytest.fixture(scope="module")
def portrait(posed: PosedBody) -> Mesh:
    """The body itself in green, under a red wig and a blue coat."""
    pieces = [(posed.vertices, posed.faces), shell(posed, "scalp", 0.05), shell(posed, "body", 0.04)]
    colors = torch.cat(
        [torch.tensor([color]).expand(len(vertices), 3) for (vertices, _), color in
         zip(pieces, [[0.0, 1, 0], [1.0, 0, 0], [0.0, 0, 1]], strict=True)]
    )  # fmt: skip
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in pieces[:-1])])
    faces = torch.cat([faces + int(offset) for (_, faces), offset in zip(pieces, offsets, strict=True)])
    return Mesh(torch.cat([vertices for vertices, _ in pieces]), faces, vertex_colors=colors)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=60), st.integers(0, 2**31))
def test_whole_counts_round_each_share_and_the_sum(shares: list[float], seed: int) -> None:
    counts = whole_counts(torch.tensor(shares, dtype=torch.float64), seeded(seed))
    assert (counts - torch.tensor(shares)).abs().max() < 1 + 1e-9
    assert abs(int(counts.sum()) - sum(shares)) < 1 + 1e-6


def test_whole_counts_are_fair_on_average() -> None:
    shares = torch.tensor([0.1, 0.5, 0.3, 0.05, 2.25])
    mean = torch.stack([whole_counts(shares, seeded(seed)) for seed in range(3000)]).double().mean(dim=0)
    torch.testing.assert_close(mean, shares.double(), rtol=0, atol=0.03)


def test_samples_lie_evenly_inside_their_triangles() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    points, face = place_samples(vertices, faces, torch.tensor([500, 300]), seeded())
    assert torch.bincount(face).tolist() == [500, 300]
    first = points[face == 0]
    weights = torch.stack([1 - first[:, 0] / 2 - first[:, 1] / 3, first[:, 0] / 2, first[:, 1] / 3], dim=1)
    assert weights.min() > -1e-6
    torch.testing.assert_close(weights.mean(dim=0), torch.full((3,), 1 / 3), rtol=0, atol=0.01)
    # Uniform on a triangle: each weight has variance 1/18.
    torch.testing.assert_close(weights.var(dim=0), torch.full((3,), 1 / 18), rtol=0, atol=0.004)
    torch.testing.assert_close(first[0], vertices[:3].mean(dim=0))


def test_paper_counts_by_hand() -> None:
    # Right isosceles triangles with legs 1, 30 and 100 have scales in that ratio: m = 7, max(7, 29 // 3) and 33.
    legs = torch.tensor([1.0, 30.5, 100.5])
    corners = torch.stack([torch.zeros(3, 3), legs[:, None] * torch.eye(3)[0], legs[:, None] * torch.eye(3)[1]], dim=1)
    faces = torch.arange(9).reshape(3, 3)
    body, cheek = paper_body_counts(corners.reshape(-1, 3), faces, torch.tensor([False, False, True]))
    assert body.tolist() == [1 + 21, 1 + 27, 1 + 6 * 33]
    assert cheek.tolist() == [1, 1 + 6 * 9, 1 + 6 * 33]


def equal_triangles(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit right triangles beside each other."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]).repeat(count, 1, 1)
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)


def test_paper_counts_of_the_real_body_have_the_papers_lower_bound() -> None:
    # SMPL-X as cropped by the authors: 17,981 faces, 3,324 of the eye region and 572 of the lips.
    detailed = torch.zeros(17_981, dtype=torch.bool)
    detailed[: 3_324 + 572] = True
    body, cheek = paper_body_counts(*equal_triangles(17_981), detailed)
    assert int(body.sum()) == 477_398
    assert (body[~detailed] == 22).all() and (body[detailed] == 43).all() and (cheek == 1).all()


def test_a_degenerate_body_face_does_not_let_the_paper_counts_explode() -> None:
    vertices, faces = equal_triangles(1000)
    vertices[:3] *= 1e-5
    with pytest.raises(InvalidInput, match=r"face 0 is 1e\+05 times smaller than the median face"):
        paper_body_counts(vertices, faces, torch.zeros(1000, dtype=torch.bool))


def test_paper_mesh_samples_are_the_authors_seven() -> None:
    vertices, faces = equal_triangles(3)
    vertices = vertices + torch.arange(3).repeat_interleave(3)[:, None] * 10.0
    points, face = paper_mesh_samples(vertices, faces, torch.tensor([0, 2]))
    assert face.tolist() == [0, 2] * 7
    first = points[face == 0]
    wanted = [
        [1 / 3, 1 / 3],
        [2 / 9, 2 / 9],
        [5 / 9, 2 / 9],
        [2 / 9, 5 / 9],
        [1 / 9, 1 / 9],
        [7 / 9, 1 / 9],
        [1 / 9, 7 / 9],
    ]
    torch.testing.assert_close(first[:, :2], torch.tensor(wanted))
    torch.testing.assert_close(points[face == 2], first + 20)


def test_paper_sampling_of_a_portrait(portrait: Mesh, posed: PosedBody) -> None:
    parts = split_parts(portrait, posed)
    points = sample_points(portrait, parts, posed, PointSettings.paper(), seeded())
    detailed = torch.isin(
        posed.part_of_face, torch.tensor([AvatarPart.EYELIDS, AvatarPart.EYES, AvatarPart.LIPS], dtype=torch.uint8)
    )
    scale = triangle_frames(posed.vertices, posed.faces).scale.double()
    m = torch.div((scale / scale.min()).floor() - 1, 3, rounding_mode="floor")
    on_body = (1 + 3 * m.clamp_min(7) * (1 + detailed.double())).long()
    cheek = posed.regions["inner_cheek"]
    in_cheek = (1 + 6 * m[cheek]).long()
    on_mesh = 7 * int(((parts == AvatarPart.HAIR) | (parts == AvatarPart.CLOTHES)).sum())
    assert len(points) == on_mesh + int(on_body.sum()) + int(in_cheek.sum())
    assert ((points.part_id == AvatarPart.HAIR) | (points.part_id == AvatarPart.CLOTHES)).sum() == on_mesh

    inside = slice(len(points) - int(in_cheek.sum()), None)
    assert (points.part_id[inside] == AvatarPart.MOUTH_INTERIOR).all()
    assert torch.equal(points.binding[inside], cheek.nonzero()[:, 0].repeat_interleave(in_cheek))
    corners = posed.vertices[posed.faces[points.binding[inside]]]
    depth = ((points.positions[inside] - corners[:, 0]) * posed.outward[points.binding[inside]]).sum(-1)
    torch.testing.assert_close(depth, torch.full_like(depth, -0.02), rtol=0, atol=1e-5)
    # Skin lies on its own face: no offset along the normal.
    skin = slice(on_mesh, on_mesh + int(on_body.sum()))
    corners = posed.vertices[posed.faces[points.binding[skin]]]
    height = ((points.positions[skin] - corners[:, 0]) * posed.outward[points.binding[skin]]).sum(-1)
    assert float(height.abs().max()) < 1e-5
    assert torch.equal(torch.bincount(points.binding[skin], minlength=len(posed.faces)), on_body)


def test_a_budget_goes_by_area_and_part(portrait: Mesh, posed: PosedBody) -> None:
    wanted = PointSettings(count=60_000)
    points = sample_points(portrait, split_parts(portrait, posed), posed, wanted, seeded())
    areas = face_areas(posed.vertices, posed.faces)
    own = posed.part_of_face[points.binding] == points.part_id

    def per_area(faces: torch.Tensor) -> float:
        return float(own[faces[points.binding]].sum()) / float(areas[faces].sum())

    skin = per_area((posed.part_of_face == AvatarPart.SKIN) & posed.regions["face"] & ~posed.regions["inner_cheek"])
    lips = per_area((posed.part_of_face == AvatarPart.LIPS) & ~posed.regions["inner_cheek"])
    iris = per_area(posed.regions["iris"])
    lids = per_area(posed.part_of_face == AvatarPart.EYELIDS)
    assert lips / skin == pytest.approx(wanted.lip_density, rel=0.1)
    assert lids / skin == pytest.approx(wanted.eye_density, rel=0.1)
    assert iris / skin == pytest.approx(wanted.iris_density, rel=0.1)


def test_parts_follow_the_distance_to_the_body(portrait: Mesh, posed: PosedBody) -> None:
    found = split_parts(portrait, posed)
    count = len(posed.faces)
    scalp, torso = int(posed.regions["scalp"].sum()), int(posed.regions["body"].sum())
    assert (found[:count] == AvatarPart.SKIN).float().mean() > 0.99
    seen = visible_faces(portrait)
    wig, coat = slice(count, count + scalp), slice(count + scalp, count + scalp + torso)
    assert (found[wig][seen[wig]] == AvatarPart.HAIR).float().mean() > 0.95
    assert (found[coat][seen[coat]] == AvatarPart.CLOTHES).float().mean() > 0.9


def test_what_no_camera_sees_is_left_out(portrait: Mesh, posed: PosedBody) -> None:
    seen = visible_faces(portrait)
    face = posed.regions["face"].nonzero()[:, 0]
    mouth = posed.regions["mouth_interior"].nonzero()[:, 0]
    assert seen[face].float().mean() > 0.5
    assert seen[mouth].float().mean() < 0.2
    with pytest.raises(InvalidInput, match="none of 24 cameras sees the mesh"):
        visible_faces(dataclasses.replace(portrait, vertices=portrait.vertices + torch.tensor([0.0, 100.0, 0.0])))


def triangle_distance(point: np.ndarray, corners: np.ndarray) -> float:
    """Distance to a triangle: the plane's if the foot is inside, else the nearest edge's. A second way, in float64."""
    a, b, c = corners
    normal = np.cross(b - a, c - a)
    foot = point - normal * ((point - a) @ normal) / (normal @ normal)
    inside = all(np.cross(q - p, foot - p) @ normal >= 0 for p, q in ((a, b), (b, c), (c, a)))
    if inside:
        return float(np.linalg.norm(point - foot))
    distances = []
    for p, q in ((a, b), (b, c), (c, a)):
        t = np.clip((point - p) @ (q - p) / ((q - p) @ (q - p)), 0, 1)
        distances.append(np.linalg.norm(point - p - t * (q - p)))
    return float(min(distances))


def test_hair_and_clothes_bind_to_the_nearest_triangle_of_their_region(posed: PosedBody) -> None:
    generator = seeded(2)
    points = torch.tensor([[0.0, 0.75, -0.1]]) + 0.3 * torch.randn(5, 3, generator=generator)
    for part, region in ((AvatarPart.HAIR, "scalp"), (AvatarPart.CLOTHES, "body")):
        rule = PointSettings(follow_distance=0.0)
        binding, parts = bind_points(points, torch.full((5,), part, dtype=torch.uint8), posed, rule)
        assert posed.regions[region][binding].all()
        assert (parts == part).all()
        corners = posed.vertices[posed.faces].double().numpy()
        indices = posed.region(region).tolist()
        for point, face in zip(points.double().numpy(), binding.tolist(), strict=True):
            best = min(triangle_distance(point, corners[index]) for index in indices)
            assert triangle_distance(point, corners[face]) == pytest.approx(best, abs=1e-6)


def test_nearest_face_is_not_nearest_centroid() -> None:
    """The authors' code compares centroids: over a long triangle it picks the wrong face."""
    vertices = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 0, 0.5], [9, 0.5, 0], [9.5, 0.5, 0], [9, 0.5, 0.5]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    body = PosedBody(vertices, faces, torch.zeros(2, dtype=torch.uint8), {}, torch.zeros(2, 3))
    point = torch.tensor([[8.9, 0.05, 0.01]])
    centroids = vertices[faces].mean(dim=1)
    assert (centroids - point).norm(dim=1).argmin() == 1
    assert closest_in(body, torch.arange(2), point).faces.tolist() == [0]


def test_a_beard_follows_the_face_and_a_wig_does_not(posed: PosedBody) -> None:
    chin = posed.vertices[posed.faces[posed.regions["lips"]]].mean(dim=(0, 1)) + torch.tensor([0.0, -0.03, 0.05])
    crown = posed.vertices[posed.vertices[:, 1].argmax()] + torch.tensor([0.0, 0.05, 0.0])
    hair = torch.full((2,), AvatarPart.HAIR, dtype=torch.uint8)
    binding, parts = bind_points(torch.stack([chin, crown]), hair, posed)
    assert parts.tolist() == [AvatarPart.SKIN, AvatarPart.HAIR]
    assert posed.regions["face"][binding[0]]
    paper_binding, paper_parts = bind_points(torch.stack([chin, crown]), hair, posed, PointSettings.paper())
    assert paper_parts.tolist() == [AvatarPart.HAIR, AvatarPart.HAIR]
    assert posed.regions["scalp"][paper_binding].all()


def test_rigged_points_hold_together(portrait: Mesh, mannequin_body, fit, posed: PosedBody) -> None:
    wanted = PointSettings(count=4000)
    points = rig_points(portrait, mannequin_body, fit, wanted, seeded(1))
    assert abs(len(points) - 4000) <= 3
    frames = triangle_frames(posed.vertices, posed.faces)[points.binding]
    torch.testing.assert_close(points_to_world(frames, points.local_positions), points.positions, rtol=0, atol=1e-5)
    assert set(points.part_id.tolist()) == set(range(len(AVATAR_PARTS)))
    again = rig_points(portrait, mannequin_body, fit, wanted, seeded(1))
    for field in ("positions", "binding", "part_id", "colors", "spacing"):
        assert torch.equal(getattr(points, field), getattr(again, field)), field
    other = rig_points(portrait, mannequin_body, fit, wanted, seeded(2))
    assert not torch.equal(points.positions, other.positions)


def test_spacing_is_the_side_of_each_points_share_of_the_surface(portrait: Mesh, posed: PosedBody) -> None:
    parts = split_parts(portrait, posed)
    points = sample_points(portrait, parts, posed, PointSettings(count=6000), seeded())
    hair = points.part_id == AvatarPart.HAIR
    area = float(face_areas(portrait.vertices, portrait.faces)[parts == AvatarPart.HAIR].sum())
    assert float(points.spacing[hair].square().sum()) == pytest.approx(area, rel=0.05)


def test_colours_come_from_the_visible_surface_and_the_papers_mouth(portrait: Mesh, posed: PosedBody) -> None:
    parts = split_parts(portrait, posed)
    points = color_points(sample_points(portrait, parts, posed, PointSettings(count=5000), seeded()), portrait, posed)
    for part, color in (
        (AvatarPart.HAIR, [1.0, 0, 0]),
        (AvatarPart.CLOTHES, [0.0, 0, 1]),
        (AvatarPart.TEETH, TEETH_COLOR),
        (AvatarPart.MOUTH_INTERIOR, MOUTH_COLOR),
    ):
        chosen = points.colors[points.part_id == part]
        close = (chosen - torch.tensor(color)).abs().amax(dim=1) < 1e-5
        assert close.float().mean() > 0.97, AVATAR_PARTS[part]
    with pytest.raises(InvalidInput, match="neither a texture nor vertex colours"):
        color_points(points, dataclasses.replace(portrait, vertex_colors=None), posed)


def test_the_hidden_part_of_the_eyeball_is_white_not_skin(portrait: Mesh, posed: PosedBody) -> None:
    eyeball = posed.regions["left_eyeball"] | posed.regions["right_eyeball"]
    colors = torch.tensor([[0.0, 1, 0]]).repeat(len(portrait.vertices), 1)
    colors[posed.faces[eyeball].unique()] = torch.tensor([0.9, 0.9, 0.8])
    painted = dataclasses.replace(portrait, vertex_colors=colors)
    points = color_points(
        sample_points(painted, split_parts(painted, posed), posed, PointSettings(count=5000), seeded()), painted, posed
    )
    eyes = points.colors[points.part_id == AvatarPart.EYES]
    assert ((eyes - torch.tensor([0.9, 0.9, 0.8])).abs().amax(dim=1) < 0.05).float().mean() > 0.7


def test_colours_of_a_field_are_asked_for_on_the_visible_surface(portrait: Mesh, posed: PosedBody) -> None:
    parts = split_parts(portrait, posed)
    points = sample_points(portrait, parts, posed, PointSettings(count=3000), seeded())
    asked: list[torch.Tensor] = []

    def field(places: torch.Tensor) -> torch.Tensor:
        asked.append(places)
        return (places + 1.0) / 3.0

    plain = dataclasses.replace(portrait, vertex_colors=None)  # a field needs no colours of the mesh
    colored = color_points(points, plain, posed, field=field)
    for places in asked:
        assert float(closest_points(portrait, places).distances.max()) < 1e-5
    loose = points.part_id == AvatarPart.HAIR  # they lie on the wig, the outermost surface
    wanted = ((points.positions[loose] + 1) / 3).clamp(0, 1)
    close = (colored.colors[loose] - wanted).abs().amax(dim=1) < 1e-4
    assert float(close.float().mean()) > 0.95
    assert colored.colors[points.part_id == AvatarPart.TEETH][0].tolist() == pytest.approx(TEETH_COLOR)
    assert colored.colors[points.part_id == AvatarPart.MOUTH_INTERIOR][0].tolist() == pytest.approx(MOUTH_COLOR)


def test_without_colour_initialization_everything_is_grey(portrait: Mesh, posed: PosedBody) -> None:
    points = sample_points(portrait, split_parts(portrait, posed), posed, PointSettings(count=2000), seeded())
    grey = uncolored_points(points)
    assert torch.equal(grey.colors, torch.full((len(points), 3), 0.5))
    assert torch.equal(grey.positions, points.positions)


def test_every_part_has_one_of_the_five_masks() -> None:
    masks = upstream_masks(torch.arange(len(AVATAR_PARTS), dtype=torch.uint8))
    assert masks.shape == (len(AVATAR_PARTS), len(UPSTREAM_MASKS))
    assert (masks.sum(dim=1) == 1).all()
    assert set(UPSTREAM_MASK_OF_PART) == set(AVATAR_PARTS)
    assert all(UPSTREAM_MASK_OF_PART[part] == mask for mask, part in PART_OF_UPSTREAM_MASK.items())


def test_bad_input_is_named(portrait: Mesh, posed: PosedBody) -> None:
    with pytest.raises(ShapeMismatch, match="`mesh_parts`"):
        sample_points(portrait, torch.zeros(3, dtype=torch.uint8), posed, PointSettings(), seeded())
    with pytest.raises(InvalidInput, match="`count` is 0"):
        PointSettings(count=0)
    with pytest.raises(InvalidInput, match="no faces of region"):
        dataclasses.replace(posed, regions={}).region("scalp")


def test_lids_take_no_colour_from_the_eyes(portrait: Mesh, posed: PosedBody) -> None:
    eyeball = posed.regions["left_eyeball"] | posed.regions["right_eyeball"]
    colors = torch.tensor([[0.0, 1, 0]]).repeat(len(portrait.vertices), 1)
    colors[posed.faces[eyeball].unique()] = torch.tensor([0.9, 0.9, 0.8])
    painted = dataclasses.replace(portrait, vertex_colors=colors)
    sampled = sample_points(painted, split_parts(painted, posed), posed, PointSettings(count=5000), seeded())
    # A fit is off by most of a millimetre: the lids sink towards the portrait's eyeballs.
    offset = torch.tensor([0.0, 0.0, 0.002])
    moved = dataclasses.replace(sampled, positions=sampled.positions - offset)
    moved_body = dataclasses.replace(posed, vertices=posed.vertices - offset)
    lids = color_points(moved, painted, moved_body).colors[sampled.part_id == AvatarPart.EYELIDS]
    assert float((lids[:, 0] < 0.05).float().mean()) > 0.99  # the eyes are 0.9 red, the skin not at all

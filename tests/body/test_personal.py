"""Personal offsets: a body that was displaced is found again, lids close, lips seal, nothing is turned over."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from animportrait3d_core.body.fit import fit_body
from animportrait3d_core.body.landmarks import Landmarks, eye_opening, outer_eye_distance
from animportrait3d_core.body.lids import fitted_sphere
from animportrait3d_core.body.personal import PersonalOffsets
from animportrait3d_core.body.personal_fit import PersonalTarget, find_offsets
from animportrait3d_core.body.personal_sheet import skin_sheet, turned_faces
from animportrait3d_core.body.visible_skin import outer_skin, visible_face
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput
from animportrait3d_core.evaluation.mouth_and_eyes import mouth_beside_lips
from animportrait3d_core.landmarks import LEFT_EYE, RIGHT_EYE
from animportrait3d_core.meshes import Mesh, compact, vertex_normals
from animportrait3d_core.portrait.head_target import standard_placement
from tests.body.test_fit import QUICK, views_of
from tests.head_samples import face_rms, seen_eyes, skin_of


def field(places):
    """A smooth displacement [V, 3] of places in the world, up to a tenth of the distance of the eyes."""
    x, y = places[:, 0], places[:, 1]
    return 0.02 * torch.stack([torch.sin(9 * y) * x / 0.15, torch.cos(8 * x + 5 * y), torch.sin(11 * y + 6 * x)], dim=1)


@dataclasses.dataclass
class Person:
    """A mannequin, its pose, the skin that it should have, and offsets that were found for it."""

    body: object
    parameters: object
    vertices: torch.Tensor
    mesh: Mesh
    offsets: PersonalOffsets

    @property
    def own(self):
        return self.body.personalized(self.offsets)

    @property
    def unit(self):
        return float(outer_eye_distance(self.body(self.parameters).landmarks[0]))


def person_of(body, vertices, mesh, **target):
    parameters = standard_placement(body)
    offsets = find_offsets(body, parameters, PersonalTarget(mesh, **target))
    return Person(body, parameters, vertices, mesh, offsets)


@pytest.fixture(scope="module")
def person(mannequin_body):
    here = mannequin_body(standard_placement(mannequin_body)).vertices[0]
    there = here + field(here)
    return person_of(mannequin_body, there, skin_of(mannequin_body, there))


def test_a_displaced_body_is_found_again(person):
    assert face_rms(person.body, person.parameters, person.mesh) > 0.04
    assert face_rms(person.own, person.parameters, person.mesh) < 0.008
    place = visible_face(person.body, person.body(person.parameters))
    found = person.own(person.parameters).vertices[0][place]
    before = person.body(person.parameters).vertices[0][place]
    wanted = person.vertices[place]
    # Along the surface nothing tells where a point belongs; half of this field is along it.
    assert (found - wanted).norm(dim=1).mean() < 0.7 * (before - wanted).norm(dim=1).mean()


def test_landmarks_tell_where_points_belong_along_the_surface(person):
    truth = torch.zeros(68, 3)
    assets = person.body.assets
    corners = person.body.faces[assets.landmark_faces[:68]]
    truth = torch.einsum("nkc,nk->nc", person.vertices[corners], assets.landmark_barycentric[:68])
    knowing = person_of(person.body, person.vertices, person.mesh, landmarks=(truth, torch.ones(68)))
    blind, found = (
        (one.own(person.parameters).landmarks[0, :68] - truth).norm(dim=1)[17:].mean() / person.unit
        for one in (person, knowing)
    )
    assert found < 0.006 < blind
    assert face_rms(knowing.own, person.parameters, person.mesh) < 0.008


def test_lids_close_over_the_eyes_and_pass_them_on_the_way(person):
    seen = {closed: seen_eyes(person.own, person.parameters, closed) for closed in (0.0, 0.5, 1.0)}
    assert seen[0.0] > 2000 and 0.2 * seen[0.0] < seen[0.5] < 0.8 * seen[0.0] and seen[1.0] == 0


def test_the_eyes_turn_about_their_own_centres(person):
    ball = person.body.region_vertices("left_eyeball")
    still, turned = (
        person.own(person.parameters.replace(left_eye_pose=torch.tensor([[0.0, turn, 0.0]]))).vertices[0, ball]
        for turn in (0.0, 0.4)
    )
    centers = [fitted_sphere(part.double().numpy())[0] for part in (still, turned)]
    moved = person.own(person.parameters).vertices[0, ball].mean(0) - person.body(person.parameters).vertices[
        0, ball
    ].mean(0)
    assert float(moved.norm()) > 0.005  # the eye has a place of its own
    assert abs(centers[0] - centers[1]).max() < 0.02 * person.unit
    assert abs(centers[0] - centers[1]).max() < 0.5 * float(moved.norm())


def test_eyeballs_and_teeth_keep_their_shapes(person):
    rest = person.body.shape(person.parameters.betas).vertices[0]
    for region in ("left_eyeball", "right_eyeball", "teeth"):
        places = person.body.region_vertices(region)
        before, after = rest[places], (rest + person.offsets.vertices)[places]
        spread = [part - part.mean(0) for part in (before, after)]
        scale = spread[1].norm() / spread[0].norm()
        torch.testing.assert_close(spread[1], scale * spread[0], rtol=1e-4, atol=1e-6)


def test_lips_that_touch_go_on_touching(person):
    sheet = skin_sheet(person.body, person.body.shape(person.parameters.betas).vertices[0])
    assert len(sheet.seam) > 50
    first, second = (person.offsets.vertices[sheet.ids[sheet.seam[:, side]]] for side in (0, 1))
    assert float((first - second).norm(dim=1).max()) < 1.5e-4  # metres


def test_a_chin_that_recedes_hides_the_mouth_as_before(mannequin_body):
    """Gums and the mouth's lining lie 7 mm behind the skin, which a hollow under the lip takes from them."""
    output = mannequin_body(standard_placement(mannequin_body))
    here, marks = output.vertices[0], output.landmarks[0]
    hollow = torch.exp(-((here - 0.5 * (marks[57] + marks[8])).norm(dim=1) / 0.04).square())
    there = here + hollow[:, None] * torch.tensor([0.0, 0.0, -0.03])
    deep = person_of(mannequin_body, there, skin_of(mannequin_body, there))
    usual, beside = (mouth_beside_lips(body, deep.parameters) for body in (mannequin_body, deep.own))
    assert usual < 0.02 and beside < 0.02


def test_the_lining_of_the_mouth_lies_deeper_than_the_templates_and_teeth_do_not(mannequin_body):
    here = mannequin_body(standard_placement(mannequin_body)).vertices[0]
    same = person_of(mannequin_body, here, skin_of(mannequin_body, here))
    is_inner, is_skin, is_sheet = (torch.zeros(mannequin_body.num_vertices, dtype=torch.bool) for _ in range(3))
    is_inner[mannequin_body.region_vertices("mouth_interior")] = True
    is_skin[mannequin_body.faces[outer_skin(mannequin_body)]] = True
    is_sheet[skin_sheet(mannequin_body, mannequin_body.shape(same.parameters.betas).vertices[0]).ids] = True
    lining = same.offsets.vertices[is_inner & is_sheet & ~is_skin]
    teeth = same.offsets.vertices[mannequin_body.region_vertices("teeth")]
    assert len(lining) > 100 and -0.004 < float(lining[:, 2].min()) <= float(lining[:, 2].max()) < -0.002
    assert float(teeth.abs().max()) < 0.0005


def test_no_face_turns_over_on_a_rough_surface(mannequin_body):
    here = mannequin_body(standard_placement(mannequin_body)).vertices[0]
    noise = 0.02 * torch.randn(here.shape, generator=torch.Generator().manual_seed(3))
    rough = person_of(mannequin_body, here, skin_of(mannequin_body, here + noise))
    sheet = skin_sheet(mannequin_body, mannequin_body.shape(rough.parameters.betas).vertices[0])
    assert not turned_faces(sheet, rough.offsets.vertices[sheet.ids].double().numpy(), 0.2).any()


def test_hair_over_the_cheek_is_not_followed(mannequin_body):
    here = mannequin_body(standard_placement(mannequin_body)).vertices[0]
    landmarks = mannequin_body(standard_placement(mannequin_body)).landmarks[0]
    under = (here - landmarks[2]).norm(dim=1) < 0.08
    there = here + 0.03 * under[:, None] * torch.tensor([-1.0, 0.0, 0.3])
    mesh = skin_of(mannequin_body, there)
    covering = compact_mask(mannequin_body, under)
    blind, knowing = (person_of(mannequin_body, there, mesh, covering=mask) for mask in (None, covering))
    moved = [one.offsets.vertices[under].norm(dim=1).mean() for one in (blind, knowing)]
    assert moved[1] < 0.25 * moved[0]


def with_a_cap(body, vertices):
    """Skin with the scalp a little further out, as under short hair."""
    scalp = torch.zeros(body.num_vertices, dtype=torch.bool)
    scalp[body.region_vertices("scalp")] = True
    return skin_of(body, vertices + 0.015 * scalp[:, None] * vertex_normals(vertices, body.faces_outward)), scalp


def test_the_scalp_is_drawn_to_known_skin_alone(mannequin_body):
    """What is not known to be skin may be hair: the scalp only stays under it, whoever asks."""
    parameters = standard_placement(mannequin_body)
    here = mannequin_body(parameters).vertices[0]
    mesh, scalp = with_a_cap(mannequin_body, here)
    bare = torch.zeros(len(mesh.faces), dtype=torch.bool)
    moved = {
        known: person_of(mannequin_body, here, mesh, covering=bare if known else None).offsets.vertices[scalp]
        for known in (False, True)
    }
    assert float(moved[False].norm(dim=1).max()) < 1e-4 < 0.003 < float(moved[True].norm(dim=1).mean())
    fit = fit_body(views_of(mesh), mannequin_body, mesh, settings=QUICK)
    assert float(fit.body.personal.vertices[scalp].norm(dim=1).mean()) < 0.0015


def compact_mask(body, vertices):
    """Which faces [F] of the skin touch marked vertices [V']."""
    return vertices[body.faces_outward[outer_skin(body)]].any(1)


def test_what_is_not_seen_mirrors_what_is(mannequin_body):
    here = mannequin_body(standard_placement(mannequin_body)).vertices[0]
    there = here + 0.02 * torch.stack(
        [0 * here[:, 0], 0 * here[:, 1], torch.cos(12 * here[:, 0].abs() + 6 * here[:, 1])], 1
    )
    whole = skin_of(mannequin_body, there)
    right = compact(whole, (whole.vertices[whole.faces, 0] < 0).all(1))
    half = person_of(mannequin_body, there, right)
    sheet = skin_sheet(mannequin_body, mannequin_body.shape(half.parameters.betas).vertices[0])
    left = (sheet.rest[:, 0] > 0.02) & (sheet.twins >= 0)
    place = torch.from_numpy(left) & visible_face(mannequin_body, mannequin_body(half.parameters))[sheet.ids]
    offsets = half.offsets.vertices[sheet.ids]
    own, twin = offsets[place], offsets[torch.from_numpy(sheet.twins)[place]] * torch.tensor([-1.0, 1.0, 1.0])
    assert twin.norm(dim=1).mean() > 0.002
    assert (own - twin).norm(dim=1).mean() < 0.3 * twin.norm(dim=1).mean()


def test_offsets_belong_to_one_body_and_cannot_be_given_twice(person):
    with pytest.raises(IncompatibleCheckpoint, match="the offsets belong to the body"):
        person.own.personalized(person.offsets)
    other = dataclasses.replace(person.offsets, body="0" * 64)
    with pytest.raises(IncompatibleCheckpoint, match="the offsets belong to the body 000000000000"):
        person.body.personalized(other)


@pytest.mark.parametrize("name", ["vertices", "joints", "eyelids"])
def test_damaged_offsets_are_refused(person, name):
    tensors = person.offsets.to_tensors()
    with pytest.raises(InvalidInput, match=f"`{name}`"):
        PersonalOffsets.from_tensors({**tensors, name: tensors[name] * float("nan")}, person.offsets.body)
    lacking = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(InvalidInput, match=f"missing .*{name}"):
        PersonalOffsets.from_tensors(lacking, person.offsets.body)


def test_posed_vertices_move_with_the_resting_ones_as_derivatives_say(mannequin_body):
    """Central differences, in a pose with head, jaw and neck turned."""
    parameters = standard_placement(mannequin_body).replace(
        jaw_pose=torch.tensor([[0.3, 0.0, 0.0]]), head_pose=torch.tensor([[0.1, 0.4, -0.1]])
    )
    body, parameters = mannequin_body.to(dtype=torch.float64), parameters.to(dtype=torch.float64)
    derivatives = body.rest_to_world(parameters)[0]
    shape = body.shape(parameters.betas)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-4
        up, down = (
            body(parameters, dataclasses.replace(shape, vertices=shape.vertices + sign * step)).vertices[0]
            for sign in (1, -1)
        )
        torch.testing.assert_close((up - down) / 2e-4, derivatives[..., axis], rtol=0, atol=1e-8)


def test_how_open_an_eye_is():
    eye = torch.tensor([[0.0, 0.0], [1.0, 0.5], [2.0, 0.5], [3.0, 0.0], [2.0, -0.5], [1.0, -0.5]])
    assert eye_opening(eye) == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def sleeper(mannequin_body):
    """Somebody else's face with both eyes closed, or one, from a scan and its landmarks; and the fit."""

    def fitted(eyelids):
        asleep = standard_placement(mannequin_body).replace(eyelids=torch.tensor([eyelids]))
        output = mannequin_body(asleep)
        here = output.vertices[0]
        there = here + field(here)
        points = output.landmarks[0, :68] + field(output.landmarks[0, :68])
        points[[37, 38, 43, 44], 1] += 0.1 * (points[36] - points[39]).norm()  # detectors leave a gap
        mesh = skin_of(mannequin_body, there)
        landmarks = Landmarks(points_3d=points, confidence=torch.ones(68))
        return fit_body(views_of(mesh), mannequin_body, mesh, landmarks, QUICK), mesh

    return functools.cache(fitted)


@pytest.mark.parametrize("eyelids", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_closed_eyes_are_closed_lids_and_open_again(sleeper, mannequin_body, eyelids):
    fit, mesh = sleeper(eyelids)
    parameters = fit.parameters
    assert parameters.eyelids.tolist() == [[*eyelids]]
    assert face_rms(fit.body, parameters, mesh) < 0.012
    asleep, awake = (
        [eye_opening(fit.body(one).landmarks[0, eye]) for eye in (LEFT_EYE, RIGHT_EYE)]
        for one in (parameters, parameters.awake())
    )
    usual = eye_opening(mannequin_body(standard_placement(mannequin_body)).landmarks[0, LEFT_EYE])
    assert all(opening < 0.1 if lid else opening > 0.7 * usual for opening, lid in zip(asleep, eyelids, strict=True))
    shut = [opening for opening, lid in zip(awake, eyelids, strict=True) if lid]
    assert shut == pytest.approx([usual] * len(shut), rel=0.1)
    assert seen_eyes(fit.body, parameters, 1.0) == 0
    assert seen_eyes(fit.body, parameters, 0.0) > 2000

"""Traits: drawn as often as documented, nothing changed for people without any, and maps that stay right under each."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.conditioning import neutral_state, state_parameters
from animportrait3d_core.depths import normals_of_depth
from animportrait3d_core.embedded.dataset import PRESETS
from animportrait3d_core.embedded.dataset.samples import landmark_visibility
from animportrait3d_core.embedded.identities import (
    IdentityImage,
    IdentityRenderSettings,
    pose_identity,
    prepare_identity,
    render_posed,
    sample_identity,
    true_parameters,
)
from animportrait3d_core.embedded.identities.figure import build_figure
from animportrait3d_core.embedded.identities.shading import Lighting, default_lighting
from animportrait3d_core.embedded.mannequin import build_mannequin
from animportrait3d_core.embedded.mannequin.distance import EYEBALL_RADIUS
from animportrait3d_core.embedded.traits import (
    TRAITS,
    Traits,
    prepare_with_traits,
    sample_identity_with_traits,
    sample_traits,
    state_with_traits,
    toned,
)
from animportrait3d_core.embedded.traits.drawing import CHANCES, LIGHTS, PAINTS, SHAPES, WORN
from animportrait3d_core.embedded.traits.eyes import with_other_lids
from animportrait3d_core.embedded.traits.surfaces import relit, repainted
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.landmarks import CHIN, LEFT_EYE, LEFT_PUPIL, NOSE, RIGHT_EYE, RIGHT_PUPIL
from animportrait3d_core.parts import CLASS_OF_FIGURE_PART, FIGURE_PARTS

SEED, SIZE = 5, 128
FRONT = orbit_cameras([0.0], [0.0], 896).resized(SIZE, SIZE)
EYES = [*range(RIGHT_EYE.start, RIGHT_EYE.stop), *range(LEFT_EYE.start, LEFT_EYE.stop), LEFT_PUPIL, RIGHT_PUPIL]


def seen(names: set[str], seed: int = 3, cameras: Cameras = FRONT, eyelids: float | None = None) -> IdentityImage:
    """A person with traits at rest, or with other lids; short hair and no beard where the traits leave that open."""
    traits = Traits(frozenset(names), seed)
    identity = sample_identity_with_traits(SEED, traits)
    prepared, lighting = prepare_with_traits(identity, traits, 128, default_lighting(), 4)
    state = state_with_traits(neutral_state(), traits, np.random.default_rng(0))
    parameters = state_parameters(true_parameters(identity), state)
    if eyelids is not None:
        parameters = dataclasses.replace(parameters, eyelids=torch.full_like(parameters.eyelids, eyelids))
    posed = pose_identity(prepared, parameters)
    return render_posed(posed, cameras, IdentityRenderSettings(texture_size=128, lighting=lighting, condition=False))


def pixels_of(image: IdentityImage, part: str) -> int:
    return int((image.parts == FIGURE_PARTS.index(part)).sum())


def test_traits_are_drawn_as_often_as_documented() -> None:
    count, share = 4000, 0.6
    drawn = [sample_traits(np.random.default_rng([0, index]), share) for index in range(count)]
    have = Counter(name for traits in drawn for name in traits.names)
    for group, chance in CHANCES.items():
        for name in group:
            assert have[name] / count == pytest.approx(share * chance / len(group), abs=0.02), name
    plain = sum(not traits.names for traits in drawn) / count
    assert 1 / 3 < plain < 0.45
    assert set(TRAITS) == set(have) and len({len(TRAITS), len(set(TRAITS)), sum(map(len, CHANCES))}) == 1
    assert drawn[:50] == [sample_traits(np.random.default_rng([0, index]), share) for index in range(50)]


def test_at_least_a_third_of_the_networks_people_are_plain() -> None:
    assert PRESETS["networks"].traits_share <= 2 / 3 and PRESETS["prior"].traits_share == 0


def test_bits_and_unknown_names() -> None:
    assert Traits().bits == 0 and Traits(frozenset(TRAITS[:2])).bits == 3
    with pytest.raises(InvalidInput, match="'moustache'.*expected some of exaggerated"):
        Traits(frozenset({"moustache"}))


def test_people_without_traits_are_as_they_were() -> None:
    identity = sample_identity(SEED)
    plain, _ = prepare_with_traits(identity, Traits(), 128, default_lighting(), 4)
    settings = IdentityRenderSettings(texture_size=128, condition=False)
    pictures = [
        render_posed(pose_identity(prepared, true_parameters(identity)), FRONT, settings)
        for prepared in (plain, prepare_identity(identity, 128, sky_directions=4))
    ]
    assert torch.equal(pictures[0].rgb, pictures[1].rgb) and torch.equal(pictures[0].parts, pictures[1].parts)
    assert sample_identity_with_traits(SEED, Traits()).prompt == identity.prompt


@pytest.mark.parametrize("trait", TRAITS)
def test_normals_are_those_of_the_surface_that_is_seen(trait: str) -> None:
    """What is shown of every part faces the camera, as its depth does; a piece turned inside out would not."""
    camera = orbit_cameras([35.0], [15.0], 896).resized(SIZE, SIZE)
    image = seen({trait}, cameras=camera)
    covered = image.alpha > 0.99
    by_depth = normals_of_depth(torch.where(covered, image.depth, 0.0), camera)
    squarely = covered & (by_depth[..., 2] > 0.5)
    agreement = (by_depth * image.normals).sum(-1)
    for part in image.parts[squarely].unique().tolist():
        chosen = squarely & (image.parts == part)
        if int(chosen.sum()) > 20 and FIGURE_PARTS[part] not in ("lashes", "eyes", "mouth_interior", "teeth"):
            assert float(agreement[chosen].median()) > 0.8, FIGURE_PARTS[part]
    lengths = image.normals[covered].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-3, rtol=0)


@pytest.mark.parametrize("trait", [*SHAPES, "open mouth", "cut neck", "facets", "no hair", "glasses"])
def test_landmarks_lie_on_the_surface(trait: str) -> None:
    """Nearly all of the nose is seen from the front, and lies where the picture shows skin."""
    image = seen({trait, "no hair"})
    visible = landmark_visibility(image, FRONT)[NOSE].bool()
    assert int(visible.sum()) >= 7
    x, y = image.landmarks[0, NOSE][visible].long().unbind(-1)
    assert bool((image.parts[0, y, x] == FIGURE_PARTS.index("skin")).all())


def test_what_is_worn_is_labelled_and_hides_what_is_behind() -> None:
    bare, dark, clear = (seen({"no hair", *names}) for names in ((), ("sunglasses",), ("glasses",)))
    assert pixels_of(bare, "worn") == 0 and pixels_of(bare, "eyes") > 15
    assert pixels_of(dark, "worn") > 150 and pixels_of(dark, "eyes") < pixels_of(bare, "eyes") / 4
    assert pixels_of(clear, "worn") > 40 and pixels_of(clear, "eyes") > pixels_of(bare, "eyes") / 2
    hidden = landmark_visibility(dark, FRONT)[EYES]
    assert int(hidden.sum()) <= 2 and int(landmark_visibility(bare, FRONT)[EYES].sum()) >= 12
    assert CLASS_OF_FIGURE_PART["worn"] == "hair"


@pytest.mark.parametrize("seed", range(6))
def test_hats_hide_hair_and_cover_the_crown(seed: int) -> None:
    hatted = seen({"hat"}, seed)
    assert pixels_of(hatted, "worn") > 60
    top = int((hatted.alpha[0] > 0.5).any(1).nonzero()[0])
    column = int((hatted.alpha[0, top] > 0.5).nonzero().float().mean())
    part = FIGURE_PARTS[int(hatted.parts[0, top + 1, column])]
    assert part == "worn" or part in ("hair", "skin")  # a crown and a headband leave the top free


def test_a_beard_is_hair_and_hides_the_chin() -> None:
    bare, bearded = seen({"no hair"}), seen({"no hair", "beard"})
    assert pixels_of(bare, "hair") == 0 and pixels_of(bearded, "hair") > 150
    assert landmark_visibility(bare, FRONT)[CHIN] == 1 and landmark_visibility(bearded, FRONT)[CHIN] == 0
    assert pixels_of(bearded, "lips") > 0.6 * pixels_of(bare, "lips")


def test_a_collar_is_clothes() -> None:
    bare, wrapped = seen({"no hair"}), seen({"no hair", "collar"})
    assert pixels_of(wrapped, "clothes") > pixels_of(bare, "clothes")
    assert pixels_of(wrapped, "skin") < pixels_of(bare, "skin") - 100


def test_a_head_that_is_cut_has_no_shoulders() -> None:
    whole, cut = seen({"no hair"}), seen({"no hair", "cut neck"})
    assert pixels_of(cut, "clothes") == 0 and 500 < float(cut.alpha.sum()) < 0.6 * float(whole.alpha.sum())
    below = orbit_cameras([0.0], [-35.0], 896).resized(SIZE, SIZE)
    closed = seen({"no hair", "cut neck"}, cameras=below)
    away = (closed.normals[..., 2] < -0.2) & (closed.alpha > 0.99)
    assert int(away.sum()) < 0.01 * float(closed.alpha.sum())  # nobody looks into the neck


def test_facets_are_flat() -> None:
    """Of neighbouring pixels of skin many have the same normal, which on a round head hardly any do."""
    shares = []
    close = orbit_cameras([0.0], [0.0], SIZE, target=[0.0, 0.4, 0.0], fov_degrees=9.0)
    for names in ({"no hair"}, {"no hair", "facets"}):
        image = seen(names, cameras=close)
        skin = (image.parts[0] == FIGURE_PARTS.index("skin")) & (image.alpha[0] > 0.99)
        both = skin[:, 1:] & skin[:, :-1]
        same = (image.normals[0, :, 1:] - image.normals[0, :, :-1]).norm(dim=-1) < 1e-3
        shares.append(float(same[both].float().mean()))
    assert shares[0] < 0.02 and shares[1] > 0.2, shares


def test_a_mouth_of_facets_opens_as_it_did() -> None:
    close = orbit_cameras([0.0], [0.0], SIZE, target=[0.0, 0.22, 0.0], fov_degrees=6.0)
    whole, facets = (seen({"no hair", "open mouth", *names}, cameras=close) for names in ((), ("facets",)))
    for part in ("lips", "mouth_interior"):
        assert pixels_of(facets, part) == pytest.approx(pixels_of(whole, part), rel=0.15), part


def test_shapes_leave_the_range_of_the_others() -> None:
    """Some landmarks move by far (a pixel is 4 mm), and eyes grow where they should."""
    plain = seen({"no hair"}).landmarks
    for trait in SHAPES:
        moved = seen({"no hair", trait})
        assert float((moved.landmarks - plain).norm(dim=-1).max()) > 1.2, trait
    assert pixels_of(seen({"no hair", "big eyes"}), "eyes") > 1.3 * pixels_of(seen({"no hair"}), "eyes")
    assert pixels_of(seen({"open mouth"}), "mouth_interior") > 20


CLOSE = orbit_cameras([0.0], [0.0], 2 * SIZE, target=[0.0, 0.42, 0.12], fov_degrees=8.0)


def test_other_lids_lie_on_the_eyeballs_and_close() -> None:
    """Lid landmarks keep their distance from the eyes, slant and open otherwise, and cover the eyes when closed."""
    plain = seen({"no hair"}, cameras=CLOSE)
    openings = []
    for seed in range(4):
        other = seen({"no hair", "other lids"}, seed, CLOSE)
        for eye, pupil in ((RIGHT_EYE, RIGHT_PUPIL), (LEFT_EYE, LEFT_PUPIL)):
            moved, still = (image.landmarks_3d[0].double() for image in (other, plain))
            center = still[pupil] - torch.tensor([0.0, 0.0, 0.003 * EYEBALL_RADIUS]).double()  # 3 mm are 0.01 units
            reach = [(points[eye] - center).norm(dim=-1) for points in (moved, still)]
            assert torch.equal(moved[pupil], still[pupil])
            assert float((reach[0] / reach[1] - 1).abs().max()) < 0.06
        image = other.landmarks[0, LEFT_EYE].double()
        width, height = (image[3] - image[0]).norm(), (image[1:3].mean(0) - image[4:6].mean(0)).norm()
        openings.append(float(height / width))
        closed = seen({"no hair", "other lids"}, seed, CLOSE, eyelids=1.0)
        assert pixels_of(closed, "eyes") < 0.01 * pixels_of(other, "eyes"), seed
    assert max(openings) > 1.3 * min(openings)


def test_eyeballs_stay_round_between_other_lids() -> None:
    figure, body = build_figure(sample_identity(SEED)), build_mannequin()
    other = with_other_lids(figure, np.random.default_rng(1))
    eyeballs = np.flatnonzero(body.vertex_parts == body.part_names.index("eyeball"))
    assert np.array_equal(other.rest[eyeballs], figure.rest[eyeballs])
    moved = np.linalg.norm(other.rest - figure.rest, axis=1)
    lids = np.concatenate([np.concatenate(body.slits[eye]) for eye in ("left_eye", "right_eye")])
    assert moved[lids].max() > 1e-3 and moved.max() < 0.01 and (moved > 0).mean() < 0.3


def test_hollow_eyes_show_no_eyeball_and_lashes_can_be_missing() -> None:
    plain, hollow, bare = (seen({"no hair", *names}, cameras=CLOSE) for names in ((), ("hollow eyes",), ("no lashes",)))
    lids = EYES[:-2]
    assert pixels_of(hollow, "eyes") < 0.5 * pixels_of(plain, "eyes")  # the rims are left
    for image, is_eye in ((plain, True), (hollow, False)):
        x, y = image.landmarks[0, [LEFT_PUPIL, RIGHT_PUPIL]].long().T
        assert bool(((image.parts[0, y, x] == FIGURE_PARTS.index("eyes")) == is_eye).all())
    assert torch.equal(hollow.landmarks[:, lids], plain.landmarks[:, lids])
    assert pixels_of(plain, "lashes") > 50 and pixels_of(bare, "lashes") == 0


@pytest.mark.parametrize("trait", PAINTS)
def test_paints_leave_out_what_their_names_say(trait: str) -> None:
    atlas = np.random.default_rng(0).uniform(0, 1, (64, 64, 5)).astype(np.float32)
    painted = repainted(atlas, trait, np.random.default_rng(2))
    spread = (painted[..., :3] - painted[..., :3].mean(axis=(0, 1), dtype=np.float64)).std(axis=(0, 1)).max()
    assert painted.min() >= 0 and painted[..., :3].max() <= 1 and not np.array_equal(painted, atlas)
    assert spread < {"grey": 1e-5, "one colour": 1e-5, "smooth colours": 0.2, "marble": 0.2}.get(trait, 1.0)
    if trait == "grey":
        assert np.ptp(painted[0, 0, :3]) == 0


def test_lights_are_harder_flatter_and_dimmer() -> None:
    def contrast(light: Lighting) -> tuple[float, float]:
        keys = float(light.colors.max(axis=1).sum())
        return keys / float(light.sky.mean()), keys + float(light.sky.mean())

    usual = contrast(default_lighting())
    hard, flat, dim = (
        [contrast(relit(default_lighting(), trait, np.random.default_rng(seed))) for seed in range(12)]
        for trait in LIGHTS
    )
    assert min(ratio for ratio, _ in hard) > 2 * usual[0] and max(ratio for ratio, _ in flat) < 0.05 * usual[0]
    assert max(sum_ for _, sum_ in dim) < 0.7 * usual[1]


def test_tones_change_the_person_and_not_the_background() -> None:
    image = seen({"no hair"})
    colors, alpha = image.rgb[0], image.alpha[0]
    for trait in ("toon", "photo"):
        changed = toned(colors, alpha, trait, np.random.default_rng(1))
        assert torch.equal(changed[alpha == 0], colors[alpha == 0])
        assert float((changed - colors)[alpha > 0.99].abs().mean()) > 0.01
        assert 0 <= float(changed.min()) and float(changed.max()) <= 1.0001


def test_everything_that_is_worn_has_a_seed_of_its_own() -> None:
    """Another trait beside it changes nothing about a pair of glasses."""
    alone, beside = seen({"no hair", "glasses"}), seen({"no hair", "glasses", "flat light"})
    assert torch.equal(alone.parts, beside.parts)
    assert set(WORN) < set(TRAITS)

"""Face revoting: a cube with a label on each side, occlusion, weights, order, corruption, corrections, bad input."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import Cameras, orbit_cameras, view_preset
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.evaluation.parts import parts_iou
from animportrait3d_core.meshes import Mesh, face_areas
from animportrait3d_core.parts import PART_CLASSES, AvatarPart
from animportrait3d_core.render import rasterize_mesh
from animportrait3d_core.segmentation import (
    FaceVotes,
    RevoteSettings,
    ViewLabels,
    paint_labels,
    revote_faces,
    with_hair,
)
from animportrait3d_core.segmentation.votes import with_doubtful_borders
from tests.segmentation.shapes import (
    BACKGROUND,
    CENTER,
    CLOTHES_LABEL,
    EYES,
    FACE,
    FRONT,
    HAIR_LABEL,
    PART_OF_LABEL,
    SIZE,
    around_cameras,
    box,
    head,
    joined,
    parts_of,
    rendered,
    side_labels,
    side_of,
)

RAW = RevoteSettings(size=64, smoothing=0.0, least_island=0.0, border_weight=1.0)


@pytest.fixture(scope="module")
def cube() -> Mesh:
    return box(0.4, CENTER, 6)


@pytest.fixture(scope="module")
def around() -> Cameras:
    return around_cameras()


@pytest.fixture(scope="module")
def true_labels(cube, around) -> ViewLabels:
    return rendered(cube, side_labels(cube), around)


def test_a_cube_gets_the_label_of_each_side(cube, around, true_labels) -> None:
    true = side_labels(cube)
    votes = revote_faces(cube, true_labels, around, RAW)
    assert torch.equal(votes.parts.part_of_face, parts_of(true))
    assert bool(votes.seen.all())
    assert torch.equal(votes.class_of_face.long(), true)
    torch.testing.assert_close(votes.votes.sum(1), torch.ones(len(true)))
    assert votes.report.part_shares["skin"] == pytest.approx(1 / 6, abs=1e-6)
    assert votes.report.left_out == {} and votes.report.warnings() == ()
    assert min(votes.report.agreement) > 0.99


def test_winding_and_label_size_do_not_matter(cube, around, true_labels) -> None:
    inward = Mesh(cube.vertices, cube.faces[:, [0, 2, 1]])
    labels = rendered(cube, side_labels(cube), around.resized(2 * SIZE, 2 * SIZE))
    for mesh, given_labels in ((inward, true_labels), (cube, labels)):
        votes = revote_faces(mesh, given_labels, around, RAW)
        assert torch.equal(votes.parts.part_of_face, parts_of(side_labels(cube)))


def wall(half: float = 0.05) -> Mesh:
    """One square of two faces around the origin."""
    vertices = torch.tensor([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def two_views(yaws: list[float], names: list[int], confidence: list[float] | None = None) -> tuple[ViewLabels, Cameras]:
    cameras = orbit_cameras(yaws, [0.0] * len(yaws), SIZE, target=(0.0, 0.0, 0.0), fov_degrees=4.0)
    covered = rasterize_mesh(wall().vertices, wall().faces, cameras).mask
    labels = torch.where(covered, torch.tensor(names)[:, None, None], BACKGROUND).to(torch.uint8)
    sure = None if confidence is None else torch.tensor(confidence)[:, None, None].expand(labels.shape).contiguous()
    return ViewLabels(labels, PART_CLASSES, sure), cameras


def test_views_weigh_by_facing() -> None:
    labels, cameras = two_views([0.0, 60.0], [FACE, HAIR_LABEL])
    settings_ = dataclasses.replace(RAW, least_agreement=0.0, facing_power=1.0)
    votes = revote_faces(wall(), labels, cameras, settings_).votes.mean(0)
    # The cosines are 1 and 1/2; the two faces lie a little to the left and right of the middle.
    assert float(votes[FACE]) == pytest.approx(2 / 3, abs=0.01)
    assert float(votes[HAIR_LABEL]) == pytest.approx(1 / 3, abs=0.01)
    squared = revote_faces(wall(), labels, cameras, dataclasses.replace(settings_, facing_power=2.0)).votes.mean(0)
    assert float(squared[FACE]) == pytest.approx(4 / 5, abs=0.01)


def test_views_weigh_by_confidence() -> None:
    labels, cameras = two_views([0.0, 0.0], [FACE, HAIR_LABEL], [0.75, 0.25])
    votes = revote_faces(wall(), labels, cameras, dataclasses.replace(RAW, least_agreement=0.0)).votes
    torch.testing.assert_close(votes[:, FACE], torch.full((2,), 0.75), rtol=0, atol=1e-6)
    torch.testing.assert_close(votes[:, HAIR_LABEL], torch.full((2,), 0.25), rtol=0, atol=1e-6)


def test_every_pixel_of_a_face_counts() -> None:
    labels, cameras = two_views([0.0], [FACE])
    numbers = labels.labels.clone()
    numbers[:, :, SIZE // 2 :][numbers[:, :, SIZE // 2 :] == FACE] = HAIR_LABEL
    face_id = rasterize_mesh(wall().vertices, wall().faces, cameras).face_id[0]
    votes = revote_faces(wall(), ViewLabels(numbers), cameras, RAW).votes
    for face in range(2):
        pixels = face_id == face
        share = float((pixels & (numbers[0] == HAIR_LABEL)).sum()) / float(pixels.sum())
        assert 0.2 < share < 0.8
        assert float(votes[face, HAIR_LABEL]) == pytest.approx(share, abs=1e-6)


def test_pixels_at_borders_count_less() -> None:
    numbers = torch.full((1, 40, 40), FACE, dtype=torch.uint8)
    numbers[:, :, 20:] = EYES
    doubtful = with_doubtful_borders(ViewLabels(numbers, PART_CLASSES, torch.full((1, 40, 40), 0.5)), 0.05, 0.2)
    expected = torch.full((40,), 0.5)
    expected[18:22] = 0.1
    assert torch.equal(doubtful.confidence[0], expected.expand(40, 40))
    assert torch.equal(doubtful.labels, numbers)


def test_specks_are_doubtful_and_make_no_border() -> None:
    numbers = torch.full((1, 40, 40), FACE, dtype=torch.uint8)
    numbers[0, 10, 10] = HAIR_LABEL
    doubtful = with_doubtful_borders(ViewLabels(numbers), 0.05, 0.2)
    expected = torch.ones(40, 40)
    expected[10, 10] = 0.2
    assert torch.equal(doubtful.confidence[0], expected)
    assert torch.equal(doubtful.labels, numbers)


def test_flat_views_do_not_count() -> None:
    labels, cameras = two_views([0.0, 83.0], [FACE, HAIR_LABEL])
    assert int(labels.mask("hair").sum()) > 10
    votes = revote_faces(wall(), labels, cameras, dataclasses.replace(RAW, least_agreement=0.0)).votes
    torch.testing.assert_close(votes[:, FACE], torch.ones(2))


def test_hidden_faces_get_no_votes(cube, around) -> None:
    """A small box inside of the cube is never seen: it has no votes of its own, and takes over those around it."""
    mesh = joined(cube, box(0.1, CENTER, 2))
    hidden = torch.arange(len(mesh.faces)) >= len(cube.faces)
    true = torch.cat([side_labels(cube), torch.full((int(hidden.sum()),), EYES)])
    votes = revote_faces(mesh, rendered(mesh, true, around), around, RAW)
    assert torch.equal(votes.seen, ~hidden)
    assert votes.report.unseen_faces == int(hidden.sum())
    assert float(votes.votes[hidden][:, EYES].max()) == 0.0
    assert torch.equal(votes.parts.part_of_face[~hidden], parts_of(side_labels(cube)))
    assert votes.report.piece_shares == pytest.approx((16 / 17, 1 / 17), abs=1e-6)
    assert "2 pieces" in votes.report.summary()


@pytest.mark.parametrize("surroundings", [CLOTHES_LABEL, FACE])
def test_unseen_faces_take_over_from_their_neighbours(cube, surroundings) -> None:
    """No camera from above sees the underside: it is what surrounds it, and nothing is clothes by default."""
    above = orbit_cameras([0, 60, 120, 180, 240, 300], [35.0] * 6, SIZE)
    high = cube.vertices[cube.faces].mean(1)[:, 1] > CENTER[1]
    true = torch.where(high, side_labels(cube), surroundings)
    votes = revote_faces(cube, rendered(cube, true, above), above, RAW)
    underside = side_of(cube) == 3
    assert not bool(votes.seen[underside].any())
    assert set(votes.parts.part_of_face[underside].tolist()) == {PART_OF_LABEL[surroundings]}


def assert_equal_up_to_ties(one: FaceVotes, other: FaceVotes) -> None:
    torch.testing.assert_close(one.votes, other.votes, rtol=0, atol=1e-6)
    assert torch.equal(one.parts.part_of_face, other.parts.part_of_face)
    assert torch.equal(one.seen, other.seen)


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(list(range(12))))
def test_the_order_of_views_does_not_matter(cube, around, true_labels, order) -> None:
    noisy = speckled(true_labels, 0.2)
    shuffled = ViewLabels(noisy.labels[order])
    settings_ = dataclasses.replace(RAW, smoothing=0.02, least_island=0.01)
    assert_equal_up_to_ties(
        revote_faces(cube, noisy, around, settings_), revote_faces(cube, shuffled, around[order], settings_)
    )


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(list(range(len(PART_CLASSES)))))
def test_renaming_classes_permutes_the_result(cube, around, true_labels, order) -> None:
    noisy = speckled(true_labels, 0.2)
    place = torch.tensor([order.index(index) for index in range(len(PART_CLASSES))], dtype=torch.uint8)
    renamed = ViewLabels(place[noisy.labels.long()], tuple(PART_CLASSES[index] for index in order))
    settings_ = dataclasses.replace(RAW, smoothing=0.02, least_island=0.01)
    one = revote_faces(cube, noisy, around, settings_)
    other = revote_faces(cube, renamed, around, settings_)
    torch.testing.assert_close(one.votes[:, order], other.votes, rtol=0, atol=1e-6)
    assert torch.equal(one.parts.part_of_face, other.parts.part_of_face)


def speckled(labels: ViewLabels, share: float, seed: int = 0) -> ViewLabels:
    """The labels with random classes in some of the foreground's pixels."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, len(PART_CLASSES), labels.labels.shape, generator=generator).to(torch.uint8)
    hit = (torch.rand(labels.labels.shape, generator=generator) < share) & ~labels.mask("background")
    return ViewLabels(torch.where(hit, numbers, labels.labels))


@pytest.mark.parametrize("seed", range(2))
def test_wrong_views_do_not_spoil_the_result(seed) -> None:
    """24 views of which one is wholly wrong, one is mirrored, all have holes and noisy borders: IoU stays over 0.9."""
    mesh, true = head()
    cameras = view_preset("mesh24", 96)
    labels = speckled(rendered(mesh, true, cameras), 0.15, seed)
    generator = torch.Generator().manual_seed(seed)
    numbers = labels.labels.clone()
    for view in numbers:
        for _ in range(5):
            row, column = torch.randint(0, 86, (2,), generator=generator).tolist()
            view[row : row + 10, column : column + 10] = torch.randint(0, 7, (1,), generator=generator).to(torch.uint8)
    wrong, mirrored = torch.randperm(24, generator=generator)[:2].tolist()
    swap = torch.tensor([BACKGROUND, HAIR_LABEL, CLOTHES_LABEL, FACE, CLOTHES_LABEL, HAIR_LABEL, HAIR_LABEL])
    numbers[wrong] = swap[numbers[wrong].long()].to(torch.uint8)
    numbers[mirrored] = numbers[mirrored].flip(0)
    votes = revote_faces(mesh, ViewLabels(numbers), cameras, RevoteSettings(size=256))
    assert wrong in votes.report.left_out
    assert f"{wrong}" in " ".join(votes.report.warnings())
    areas = face_areas(mesh.vertices, mesh.faces) * votes.seen
    scores = parts_iou(votes.parts.part_of_face, parts_of(true), areas)
    assert min(scores.values()) > 0.96, scores


@pytest.mark.parametrize(("smoothing", "least_island", "mended"), [(0, 0, False), (0, 0.01, True), (0.06, 0, True)])
def test_smoothing_and_islands_mend_a_spot_that_all_views_agree_on(smoothing, least_island, mended) -> None:
    mesh, true = head()
    cameras = view_preset("mesh24", 96)[[8, 12, 15, 16]]
    spot = (mesh.vertices[mesh.faces].mean(1) - torch.tensor([0.0, 0.3, 0.32])).norm(dim=-1) < 0.03
    assert 3 < int(spot.sum()) < 40
    labels = rendered(mesh, torch.where(spot, HAIR_LABEL, true), cameras)
    settings_ = RevoteSettings(size=256, smoothing=smoothing, least_island=least_island)
    votes = revote_faces(mesh, labels, cameras, settings_)
    parts = votes.parts.part_of_face[spot]
    assert (
        bool((parts == AvatarPart.SKIN).all())
        if mended
        else int((parts == AvatarPart.HAIR).sum()) > 0.8 * int(spot.sum())
    )
    assert (votes.report.island_faces > 0) == (least_island > 0)


def test_one_painted_view_overrules_all_others(cube, around, true_labels) -> None:
    """Hair is painted on a corner of the front in one view; all other views say face."""
    centers = cube.vertices[cube.faces].mean(1)
    wanted = (side_of(cube) == FRONT) & (centers[:, 1] < CENTER[1] - 0.14) & (centers[:, 0] < -0.14)
    seen_face = rasterize_mesh(cube.vertices, cube.faces, around[0]).face_id[0]
    mask = (seen_face >= 0) & wanted[seen_face.clamp_min(0)]
    corrected = paint_labels(true_labels, mask[None].float(), "hair", [0])
    expected = parts_of(torch.where(wanted, HAIR_LABEL, side_labels(cube)))
    for settings_ in (RAW, dataclasses.replace(RAW, smoothing=0.03, least_island=0.1)):
        votes = revote_faces(cube, corrected, around, settings_)
        assert votes.report.painted_faces == int(wanted.sum())
        assert torch.equal(votes.parts.part_of_face[wanted], expected[wanted])
    raw = revote_faces(cube, corrected, around, RAW)
    assert torch.equal(raw.parts.part_of_face, expected)
    assert torch.equal(paint_labels(true_labels, mask[None].float(), "hair", [0]).labels[1:], true_labels.labels[1:])


def test_a_hair_mask_replaces_the_hair_of_the_parts(cube, around) -> None:
    true = side_labels(cube)
    without = torch.where(true == HAIR_LABEL, CLOTHES_LABEL, true)
    centers = cube.vertices[cube.faces].mean(1) - torch.tensor(CENTER)
    without[(side_of(cube) == FRONT) & (centers[:, :2].abs().amax(1) < 0.14)] = HAIR_LABEL
    labels = rendered(cube, without, around)
    hair = rendered(cube, true, around).mask("hair").float()
    merged = with_hair(labels, hair)
    assert torch.equal(merged.mask("hair") & (merged.confidence > 0), hair.bool())
    votes = revote_faces(cube, merged, around, dataclasses.replace(RAW, smoothing=0.02))
    assert torch.equal(votes.parts.part_of_face, parts_of(true))


def test_a_bald_head_is_told(cube, around) -> None:
    true = side_labels(cube)
    true[true == HAIR_LABEL] = FACE
    votes = revote_faces(cube, rendered(cube, true, around), around, RAW)
    assert torch.equal(votes.parts.part_of_face, parts_of(true))
    assert votes.report.part_shares["hair"] == 0
    assert "No hair found." in votes.report.summary()


def test_hair_over_most_of_the_face_works_and_over_all_is_refused(cube, around) -> None:
    true = side_labels(cube)
    front = (side_of(cube) == FRONT).nonzero()[:, 0]
    low = front[cube.vertices[cube.faces].mean(1)[front, 1].argsort()]
    true[low[24:]] = HAIR_LABEL  # a third of the front, a twentieth of all, is left
    votes = revote_faces(cube, rendered(cube, true, around), around, RAW)
    assert votes.report.part_shares["skin"] == pytest.approx(24 / 432, abs=1e-6)
    true[low[6:]] = HAIR_LABEL
    with pytest.raises(InvalidInput, match=r"only 1\.4 % of the visible surface is face.*hair 5[0-9]"):
        revote_faces(cube, rendered(cube, true, around), around, RAW)


def test_a_view_without_foreground_is_left_out_and_told(cube, around, true_labels) -> None:
    numbers = true_labels.labels.clone()
    numbers[3] = BACKGROUND
    votes = revote_faces(cube, ViewLabels(numbers), around, RAW)
    assert votes.report.left_out == {3: "it has no foreground"}
    assert torch.equal(votes.parts.part_of_face, parts_of(side_labels(cube)))
    with pytest.raises(InvalidInput, match="all 12 label maps are background"):
        revote_faces(cube, ViewLabels(torch.zeros_like(numbers)), around, RAW)


def test_no_face_is_refused_with_what_was_seen(cube, around, true_labels) -> None:
    numbers = torch.where(true_labels.mask("face"), CLOTHES_LABEL, true_labels.labels).to(torch.uint8)
    with pytest.raises(InvalidInput, match=r"no face found in any of 12 views.*hair \d+ %, clothes \d+ %"):
        revote_faces(cube, ViewLabels(numbers), around, RAW)


def test_labels_that_do_not_fit_are_refused(cube, around, true_labels) -> None:
    with pytest.raises(InvalidInput, match="12 label maps and 11 cameras"):
        revote_faces(cube, true_labels, around[:11], RAW)
    with pytest.raises(InvalidInput, match="labels are 64 x 40, the views 64 x 64"):
        revote_faces(cube, ViewLabels(true_labels.labels[:, :40]), around, RAW)
    elsewhere = Mesh(cube.vertices * 0.2 + torch.tensor([0.5, 0.4, 0.0]), cube.faces)
    with pytest.raises(InvalidInput, match="labels do not show this mesh: silhouettes overlap by 1 to 5 %"):
        revote_faces(elsewhere, true_labels, around, RAW)


@pytest.mark.parametrize(
    "values", [{"profile": "new"}, {"size": 8}, {"smoothing": -1.0}, {"least_agreement": 1.5}, {"least_facing": 1.0}]
)
def test_settings_out_of_range_are_refused(values) -> None:
    with pytest.raises(InvalidInput, match=next(iter(values))):
        RevoteSettings(**values)


def test_progress_is_told_and_can_cancel(cube, around, true_labels) -> None:
    steps = []
    revote_faces(cube, true_labels, around, RAW, lambda step, total, image: steps.append((step, total)))
    assert steps == [(view + 1, 12) for view in range(12)]

    def cancel(step: int, total: int, image: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        revote_faces(cube, true_labels, around, RAW, cancel)

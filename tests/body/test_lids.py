"""Lids on a ball of skin with an opening whose borders are known functions: what closing does has a closed form."""

from __future__ import annotations

import numpy as np
import pytest

from animportrait3d_core.body.lids import CLEARANCE, GRAZE, MOST_LIFT, OVERLAP, SEAM_SHARE, EyeOpening, lid_offsets

CENTER, RADIUS, SKIN = np.array([0.03, 0.31, 0.06]), 0.012, 1.01  # metres, and the skin's radius in eyeballs
HALF = 0.4  # radians that the opening reaches up and down in its middle


@pytest.fixture(scope="module")
def eye():
    """Skin [12 rows, 19 columns] at 1.01 radii: six rows from the upper border upwards, six from the lower one down."""
    x = np.linspace(-0.9, 0.9, 19)
    border = HALF * (1 - (x / 0.9) ** 2)
    ups = border + np.linspace(0, 1.0, 6)[:, None]
    angles = np.concatenate([ups[::-1], -ups])
    around = np.sqrt(SKIN**2 - x**2)
    places = np.stack([np.broadcast_to(x, angles.shape), around * np.sin(angles), around * np.cos(angles)], axis=-1)
    ids = np.arange(12 * 19).reshape(12, 19)
    upper, lower = ids[5].copy(), ids[6].copy()
    lower[[0, -1]] = upper[[0, -1]]  # corners belong to both
    opening = EyeOpening(CENTER, RADIUS, upper, lower, np.zeros(12 * 19, dtype=bool))
    return CENTER + RADIUS * places.reshape(-1, 3), opening, border


def angles_of(vertices: np.ndarray) -> np.ndarray:
    return np.arctan2(vertices[:, 1] - CENTER[1], vertices[:, 2] - CENTER[2])


def test_both_borders_turn_to_the_seam(eye):
    vertices, opening, border = eye
    closed = vertices + lid_offsets(vertices, np.ones(len(vertices), dtype=bool), opening)
    seam = -border + SEAM_SHARE * 2 * border
    overlap = OVERLAP * np.minimum(1, 2 * border / (10 * OVERLAP))
    np.testing.assert_allclose(angles_of(closed[opening.lower]), seam, atol=1e-9)
    np.testing.assert_allclose(angles_of(closed[opening.upper]), seam - overlap, atol=1e-9)


def ways(vertices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Least distance [V] from the eye's centre, in eyeballs, on the straight way from open to closed."""
    shares = np.linspace(0, 1, 401)[:, None, None]
    return (np.linalg.norm(vertices + shares * offsets - CENTER, axis=-1) / RADIUS).min(axis=0)


def test_turned_skin_keeps_off_the_eyeball(eye):
    vertices, opening, border = eye
    closed = vertices + lid_offsets(vertices, np.ones(len(vertices), dtype=bool), opening)
    distance = np.linalg.norm(closed - CENTER, axis=1) / RADIUS
    middle = np.concatenate([opening.upper[border > 0.1], opening.lower[border > 0.25]])
    assert (distance[middle] > CLEARANCE - 1e-9).all() and distance.max() < MOST_LIFT + 1e-9
    np.testing.assert_allclose(distance[opening.lower[border > 0.25]], CLEARANCE, atol=1e-9)
    assert distance.min() > SKIN - 1e-9


@pytest.mark.parametrize("skin", [1.003, 1.01, 1.04, 1.1])
def test_lids_on_their_way_pass_the_eyeball_and_no_farther_out_than_they_must(eye, skin):
    """Skin that far out: half of its room is left where the way is nearest, unless it ends farther out anyway."""
    vertices, opening, _ = eye
    vertices = CENTER + skin / SKIN * (vertices - CENTER)
    offsets = lid_offsets(vertices, np.ones(len(vertices), dtype=bool), opening)
    least, ends = ways(vertices, offsets), np.linalg.norm(vertices + offsets - CENTER, axis=1) / RADIUS
    room = min(GRAZE, 0.5 * (1 + skin))
    upper = opening.upper[6:13]
    lifted = upper[(ends[upper] > max(CLEARANCE, skin) + 1e-6) & (ends[upper] < MOST_LIFT - 1e-6)]
    assert least.min() > (room if skin > 1.005 else 1.0) - 1e-9
    np.testing.assert_allclose(least[lifted], room, atol=1e-5)
    assert (len(lifted) > 0) == (skin < 1.1)


def test_far_skin_and_what_is_no_skin_stay(eye):
    vertices, opening, _ = eye
    skin = np.ones(len(vertices), dtype=bool)
    skin[40:60] = False
    offsets = lid_offsets(vertices, skin, opening)
    assert not offsets[40:60].any() and offsets.any()
    far = np.concatenate([vertices, CENTER + 2.5 * (vertices - CENTER)])
    more = EyeOpening(CENTER, RADIUS, opening.upper, opening.lower, np.zeros(len(far), dtype=bool))
    moved = lid_offsets(far, np.ones(len(far), dtype=bool), more)
    assert not moved[len(vertices) :].any()


def test_skin_behind_a_border_turns_with_it(eye):
    vertices, opening, _ = eye
    behind = CENTER + 0.95 * (vertices[opening.upper[5:14]] - CENTER)
    both = np.concatenate([vertices, behind])
    inside = np.arange(len(both)) >= len(vertices)
    more = EyeOpening(CENTER, RADIUS, opening.upper, opening.lower, inside)
    closed = both + lid_offsets(both, np.ones(len(both), dtype=bool), more)
    np.testing.assert_allclose(angles_of(closed[inside]), angles_of(closed[opening.upper[5:14]]), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(closed[inside] - CENTER, axis=1), 0.95 * SKIN * RADIUS, rtol=1e-9)

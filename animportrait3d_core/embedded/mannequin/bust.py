"""The whole bust of one identity: skin and parts in one vertex array, in the closed and in the open state (mm)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...body.shape_grids import smoothstep
from ...errors import check_shape
from . import distance, ears, eyes, mouth, warp
from .fields import harmonic, smoothed
from .parameters import PARAMETER_NAMES, SCULPT_COUNT
from .parts import Part
from .skin import closed_skin, open_lids
from .topology import skin_topology


@dataclass(frozen=True)
class Bust:
    """closed, opened: [V, 3] mm, lids down and lids open; the parts that follow the skin vertices, in order."""

    closed: np.ndarray
    opened: np.ndarray
    parts: tuple[Part, ...]


@lru_cache(maxsize=1)
def jaw_field() -> np.ndarray:
    """Jaw weight of the skin [n]: 1 on chin and lower lip, 0 above and behind, harmonic between."""
    topology = skin_topology()
    marks, rows, columns = topology.grid.marks, topology.keys[:, 0], np.abs(topology.keys[:, 1])
    azimuth = np.degrees(np.arctan2(topology.grid.directions[..., 0], topology.grid.directions[..., 2]))
    degrees = azimuth[rows, columns]
    fixed, values = np.zeros(topology.count, dtype=bool), np.zeros(topology.count)
    still = (rows < marks["nose_tip"] - 4) | ((rows < marks["nose_base"]) & (degrees < 13)) | (rows > marks["neck"] + 2)
    still |= degrees > 92
    still[topology.pole] = True
    fixed[still] = True
    moving = (rows >= marks["mouth"] + 5) & (rows <= marks["chin"] + 1) & (degrees < 34)
    moving |= (rows >= marks["lip_bottom"]) & (rows <= marks["chin"] + 1) & (degrees < 48)
    fixed[moving], values[moving] = True, 1.0
    slit = topology.slits["mouth"]
    share = np.linspace(-1, 1, len(slit.columns))
    middle = np.clip(1 - np.abs(share) ** 2.5, 0, 1) ** 0.6
    fixed[slit.loop] = True
    values[slit.upper] = 0.45 - 0.45 * middle
    values[slit.lower[1:-1]] = (0.45 + 0.55 * middle)[1:-1]
    field = harmonic(topology.adjacency, fixed, values)
    weight = np.ones(topology.count)
    weight[slit.loop] = 0.0
    return smoothed(topology.adjacency, field[:, None], 5, weight)[:, 0]


def build_bust(sculpt: np.ndarray) -> Bust:
    """Bust of one identity from its SCULPT parameters [SCULPT_COUNT] (the warp comes afterwards)."""
    topology = skin_topology()
    closed = closed_skin(sculpt)
    opened = open_lids(closed)
    parts: list[Part] = []
    base = topology.count

    def add(make, *arguments) -> None:
        nonlocal base
        parts.append(make(base, *arguments))
        base += len(parts[-1].closed)

    for side, name in ((-1, "right_eye"), (1, "left_eye")):
        add(eyes.lid_rim, topology.slits[name], side, closed, opened)
    add(mouth.mouth_sack, topology.slits["mouth"], closed, jaw_field())
    for upper in (True, False):
        add(mouth.teeth_row, upper)
        add(mouth.gum_row, upper)
    add(mouth.tongue)
    for side in (-1, 1):
        add(eyes.eyeball, side)
    left_ear = ears.ear_points(closed[topology.ear_loops["left"]], sculpt)
    for side, name in ((-1, "right"), (1, "left")):
        add(ears.ear, topology.ear_loops[name], side, left_ear)
    return Bust(
        np.concatenate([closed, *(part.closed for part in parts)]),
        np.concatenate([opened, *(part.opened for part in parts)]),
        tuple(parts),
    )


@lru_cache(maxsize=1)
def template_bust() -> Bust:
    """The bust of the neutral identity."""
    return build_bust(np.zeros(SCULPT_COUNT))


@lru_cache(maxsize=1)
def lid_zone() -> np.ndarray:
    """How rigidly each vertex travels with the nearer eyeball [V]: 1 on eyeballs, rims and lids, 0 elsewhere."""
    bust = template_bust()
    topology = skin_topology()
    zone = np.zeros(len(bust.closed))
    for name, side in (("right_eye", -1), ("left_eye", 1)):
        slit = topology.slits[name]
        center = np.array(distance.EYE_CENTER) * [side, 1, 1]
        relative = bust.closed[: topology.count] - center
        radius = np.linalg.norm(relative * [0.82, 1.0, 1.0], axis=1)
        rigid = 1 - smoothstep(16.2, 24.0, radius)
        rigid[slit.loop] = 1.0
        zone[: topology.count] = np.maximum(zone[: topology.count], rigid * (relative[:, 2] > -2))
    start = topology.count
    for part in bust.parts:
        if part.label in ("eyeball", "lid_rim"):
            zone[start : start + len(part.closed)] = 1.0
        start += len(part.closed)
    return zone


def displacement(parameters: np.ndarray) -> np.ndarray:
    """Displacement [V, 3] in mm of the bust of one identity against the template.

    parameters: [len(PARAMETER_NAMES)] standardised offsets. It is taken in the closed state, where both borders of
    every slit coincide, and is rigid around each eyeball: added to the template it keeps lips sealed, lets lids close
    without a gap, and keeps them outside the eyeballs.
    """
    parameters = np.asarray(parameters, dtype=np.float64)
    check_shape("displacement", "parameters", parameters, [len(PARAMETER_NAMES)])
    template, zone = template_bust(), lid_zone()
    sculpt = parameters[:SCULPT_COUNT]
    closed = build_bust(sculpt).closed if sculpt.any() else template.closed
    warped = closed + warp.warp(closed, parameters[SCULPT_COUNT:])
    moved = warped - template.closed
    for side in (-1, 1):
        center = np.array(distance.EYE_CENTER)[None] * [side, 1, 1]
        eye_move = warp.warp(center, parameters[SCULPT_COUNT:])
        near = (template.closed[:, 0] * side > 0)[:, None] * zone[:, None]
        moved = moved * (1 - near) + eye_move * near
    return moved

"""The ten expression directions: harmonic fields pulled at the lip seam, and smooth bumps on brows, cheeks and nose."""

from __future__ import annotations

import numpy as np

from ...body.shape_grids import smoothstep
from .bust import lid_zone, template_bust
from .fields import harmonic
from .topology import skin_topology

EXPRESSION_NAMES: tuple[str, ...] = (
    "smile",
    "pucker",
    "upper_lip_raise",
    "lower_lip_drop",
    "frown",
    "brow_raise",
    "brow_furrow",
    "cheek_puff",
    "sneer",
    "mouth_left",
)


def _seam_pulls() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Displacement (mm) of the upper and lower lip border [m, 3] per expression, right corner to left corner."""
    share = np.linspace(-1, 1, len(skin_topology().slits["mouth"].columns))
    far, middle = np.abs(share), np.sqrt(1 - share**2)
    zero = np.zeros_like(share)

    def pull(x, y, z) -> np.ndarray:
        return np.stack([x + zero, y + zero, z + zero], axis=1)

    corner = far**1.6
    smile = pull(6.5 * share * far, 7.0 * corner - 0.4, -6.0 * corner - 0.8 * middle)
    frown = pull(1.2 * share * far, -7.0 * corner + 0.8 * middle, -1.0 * corner + 0.6 * middle)
    pucker = pull(-8.5 * share, 0.3 * middle, 6.0 * (1 - far**2) + 2.0)
    sneer = 2.2 * np.exp(-(((far - 0.55) / 0.35) ** 2))
    return {
        "smile": (smile, smile),
        "pucker": (pucker, pucker),
        "upper_lip_raise": (pull(0, 5.5 * middle, 0.8 * middle), pull(0, 0, 0)),
        "lower_lip_drop": (pull(0, 0, 0), pull(0, -6.0 * middle, 1.0 * middle)),
        "frown": (frown, frown),
        "cheek_puff": (pull(0, 0.3 * middle, 2.0), pull(0, 0.3 * middle, 2.0)),
        "sneer": (pull(0, sneer, 0.3 * sneer), pull(0, 0.25 * sneer, 0)),
        "mouth_left": (pull(6.5, 1.6 * share, -1.5 * share), pull(6.5, 1.6 * share, -1.5 * share)),
    }


def _mouth_fields() -> dict[str, np.ndarray]:
    """Harmonic fields [n, 3] (mm) on the skin that follow the pulls at the seam and vanish away from the mouth."""
    topology = skin_topology()
    marks, rows, columns = topology.grid.marks, topology.keys[:, 0], np.abs(topology.keys[:, 1])
    azimuth = np.degrees(np.arctan2(topology.grid.directions[..., 0], topology.grid.directions[..., 2]))
    degrees = azimuth[rows, columns]
    fixed = (rows < marks["cheek"] - 1) | (rows > marks["chin"] + 1) | (degrees > 62)
    fixed |= (rows < marks["nose_base"] - 2) & (degrees < 11)
    fixed[topology.pole] = True
    slit = topology.slits["mouth"]
    pulls = _seam_pulls()
    values = np.zeros((topology.count, 3 * len(pulls)))
    for k, (upper, lower) in enumerate(pulls.values()):
        values[slit.upper, 3 * k : 3 * k + 3] = upper
        values[slit.lower[1:-1], 3 * k : 3 * k + 3] = lower[1:-1]
    fixed[slit.loop] = True
    solved = harmonic(topology.adjacency, fixed, values)
    return {name: solved[:, 3 * k : 3 * k + 3] for k, name in enumerate(pulls)}


def _bumps(points: np.ndarray) -> dict[str, np.ndarray]:
    """Local fields [n, 3] (mm) that do not start at the mouth."""
    x, y, z = points.T
    side, ax = np.sign(x), np.abs(x)
    front = smoothstep(5.0, 45.0, z)

    def bump(cx: float, cy: float, wx: float, wy: float) -> np.ndarray:
        return np.exp(-(((ax - cx) / wx) ** 2) - ((y - cy) / wy) ** 2) * front

    fields = {}
    brow = np.exp(-(((ax - 30) / 26) ** 2)) * np.where(
        y < 24, np.exp(-(((y - 24) / 9.0) ** 2)), np.exp(-(((y - 24) / 24) ** 2))
    )
    fields["brow_raise"] = np.stack([0 * x, 6.5 * brow * front, 0.8 * brow * front], axis=1)
    inner, outer = bump(15, 20, 11, 10), bump(36, 22, 14, 9)
    glabella = np.exp(-((x / 5.0) ** 2) - ((y - 20) / 9.0) ** 2) * front
    fields["brow_furrow"] = np.stack(
        [-side * 3.6 * inner * smoothstep(0, 9, ax), -3.8 * inner - 1.6 * outer, 1.4 * inner - 0.9 * glabella], axis=1
    )
    puff = bump(38, -64, 17, 17)
    fields["cheek_puff"] = np.stack([side * 7.0 * puff, -0.5 * puff, 5.5 * puff], axis=1)
    apple = bump(37, -30, 16, 13)
    fields["smile"] = np.stack([side * 0.8 * apple, 2.0 * apple, 2.6 * apple], axis=1)
    wing = bump(14, -47, 6, 8)
    root = np.exp(-((x / 13.0) ** 2) - ((y + 4) / 9.0) ** 2) * front
    fold = bump(21, -40, 8, 10)
    fields["sneer"] = np.stack(
        [side * 1.4 * wing, 3.4 * wing + 1.6 * root + 2.4 * fold, 0.4 * wing + 0.6 * fold], axis=1
    )
    return fields


def expression_directions() -> np.ndarray:
    """Displacement [V, 3, 10] in mm per unit of each expression; zero on eyeballs, rims, teeth, gums and tongue."""
    topology, bust, zone = skin_topology(), template_bust(), lid_zone()
    skin = bust.closed[: topology.count]
    mouth, local = _mouth_fields(), _bumps(skin)
    directions = np.zeros((len(bust.closed), 3, len(EXPRESSION_NAMES)))
    free = (1 - zone[: topology.count])[:, None]
    for k, name in enumerate(EXPRESSION_NAMES):
        field = np.zeros_like(skin)
        if name in mouth:
            field = field + mouth[name]
        if name in local:
            field = field + local[name]
        directions[: topology.count, :, k] = field * free
    start = topology.count
    for part in bust.parts:
        stop = start + len(part.closed)
        directions[start:stop] = directions[part.follows] * part.follow_share[:, None, None]
        start = stop
    return directions

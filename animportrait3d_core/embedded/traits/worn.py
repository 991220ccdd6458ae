"""Glasses, earrings, hats, beards and collars, made to measure for a figure.

All of them but beards (hair) and collars (clothes) are the part `WORN`. To a parts network that is hair: it keeps
points of its own that ride on the head, where skin is replaced by the fitted body and clothes stay on the shoulders.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ...parts import FigurePart
from ..identities.atlas import placed, texel_window
from ..identities.figure import JOINTS, Figure, Piece, template_origin, with_pieces
from ..identities.geometry import welded_normals
from ..identities.noise_fields import fractal_field
from ..mannequin import build_mannequin
from .solids import Solid, ball, joined, plate, shell, tube

CELLS = (2, 4)
"""Columns and rows of plain colours in the window `worn` of the atlas."""
FRAME, LENS, METAL, HAT, BAND, BEARD, COLLAR = range(7)
"""Which cell paints what."""
_HEAD = JOINTS.index(15)


@dataclasses.dataclass(frozen=True)
class Wearer:
    """What things are fitted to. Millimetres from between the template's eyes.

    points, normals: [V, 3] of the bust at rest.  skin: [F, 3] its skin's faces.  eyes: [2, 3] left and right.  regions:
    vertices [V] bool of lips.
    """

    points: np.ndarray
    normals: np.ndarray
    skin: np.ndarray
    eyes: np.ndarray
    lips: np.ndarray

    def half_width(self, height: float) -> tuple[float, float, float]:
        """Half axes across and along, and the middle's z, of the head without ears at a height."""
        near = self.points[np.unique(self.skin)]
        near = near[np.abs(near[:, 1] - height) < 10.0]
        low, high = near[:, 2].min(), near[:, 2].max()
        return float(np.abs(near[:, 0]).max()), float(0.5 * (high - low)), float(0.5 * (high + low))

    def shell(self, inside: np.ndarray, thickness: np.ndarray) -> Solid:
        """A layer of `thickness` [V] mm over the skin where `inside` [V] is positive."""
        return shell(self.points, self.normals, self.skin, inside, thickness)


def wearer_of(figure: Figure) -> Wearer:
    """A figure's bust to fit things to."""
    body = build_mannequin()
    points = (figure.rest[: figure.num_body] - template_origin()) * 1e3
    faces = body.faces[body.part_faces["skin"]]
    normals = welded_normals(points, faces, np.arange(len(points)))
    lips = np.zeros(len(points), dtype=bool)
    lips[np.unique(body.faces[body.face_regions["lips"]])] = True
    eyes = (figure.joints[[23, 24]] - template_origin()) * 1e3
    return Wearer(points, normals, faces, eyes, lips)


def dressed(figure: Figure, trait: str, generator: np.random.Generator) -> Figure:
    """The figure with one of `WORN`."""
    wearer = wearer_of(figure)
    if trait == "hat":
        return _with_hat(figure, wearer, generator)
    if trait == "beard":
        return with_pieces(figure, [_piece(_beard(wearer, generator), BEARD, FigurePart.HAIR)])
    if trait == "collar":
        return with_pieces(figure, [_piece(_collar(wearer, generator), COLLAR, FigurePart.CLOTHES)])
    if trait == "earrings":
        return with_pieces(figure, [_piece(_earrings(wearer, generator), METAL)])
    return with_pieces(figure, _glasses(wearer, trait == "sunglasses", generator))


def paint_worn(atlas: np.ndarray, beard: np.ndarray, generator: np.random.Generator) -> None:
    """Fill the window `worn` of an atlas [S, S, 5] with plain colours. beard: [3] sRGB-coded."""
    rows, columns = texel_window("worn", len(atlas))
    window = atlas[rows, columns]
    colors = generator.uniform(0.05, 0.95, (CELLS[0] * CELLS[1], 3))
    colors[FRAME] *= generator.uniform(0.1, 1.0)
    colors[LENS] *= generator.uniform(0.0, 0.5)
    colors[METAL] = [(0.83, 0.68, 0.30), (0.78, 0.78, 0.80), (0.93, 0.90, 0.86)][int(generator.integers(3))]
    colors[BEARD] = np.clip(beard, 0, 1)
    gloss = np.array([0.8, 1.6, 2.0, 0.2, 0.3, 0.2, 0.2, 0.2])
    down = np.minimum(np.arange(window.shape[0]) * CELLS[1] // window.shape[0], CELLS[1] - 1)
    across = np.minimum(np.arange(window.shape[1]) * CELLS[0] // window.shape[1], CELLS[0] - 1)
    cell = down[:, None] * CELLS[0] + across
    window[..., :3], window[..., 3], window[..., 4] = colors[cell], 0.0, gloss[cell]


def _piece(solid: Solid, cell: int, part: FigurePart = FigurePart.WORN) -> Piece:
    """A solid as a piece of a figure, painted by one cell."""
    body, count = build_mannequin(), len(solid.points)
    row, column = divmod(cell, CELLS[0])
    place = placed("worn", np.array([(column + 0.5) / CELLS[0], 1 - (row + 0.5) / CELLS[1]]))
    if solid.follows is None:
        weights, follows = np.eye(len(JOINTS))[np.full(count, _HEAD)], np.full(count, -1)
        lids = np.zeros((2, count, 3))
    else:
        weights, follows = body.skinning_weights[solid.follows][:, JOINTS], solid.follows
        lids = body.eyelid_offsets[:, solid.follows]
    return Piece(
        solid.points * 1e-3 + template_origin(), solid.faces, np.tile(place, (count, 1)), part, weights,
        np.arange(count), np.zeros((count, 2)), lids, follows,
    )  # fmt: skip


def _glasses(wearer: Wearer, opaque: bool, generator: np.random.Generator) -> list[Piece]:
    """Two rims, bridge and temples; with opaque lenses if they are sunglasses."""
    apart = wearer.eyes[0, 0] - wearer.eyes[1, 0]
    wide, high = apart * generator.uniform(0.34, 0.44), apart * generator.uniform(0.22, 0.42)
    power, radius = generator.uniform(1.8, 4.5), generator.uniform(0.8, 2.6)
    bend, height = generator.uniform(0.002, 0.006), wearer.eyes[:, 1].mean() - generator.uniform(0.0, 6.0)
    covers = (np.abs(np.abs(wearer.points[:, 0]) - apart / 2) < wide) & (
        np.abs(wearer.points[:, 1] - height) < high + 4
    )
    covers &= wearer.points[:, 2] > 0
    front = (wearer.points[covers, 2] + bend * wearer.points[covers, 0] ** 2).max() + 2.0 + radius
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    flat = np.stack(
        [np.sign(cos) * np.abs(cos) ** (2 / power) * wide, np.sign(sin) * np.abs(sin) ** (2 / power) * high], -1
    )

    def on_front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x, y, front - bend * x**2], -1)

    frame, lenses = [], []
    ear_x, _, ear_z = wearer.half_width(height - 8.0)
    for side in (-1, 1):
        middle = side * max(apart / 2, wide + 5.0)
        rim = on_front(middle + flat[:, 0], height + flat[:, 1])
        frame.append(tube(rim, radius, closed=True))
        shrunk = np.linspace(0.02, 1.0, 5)[:, None, None]
        disc = on_front((middle + shrunk[..., 0] * flat[:, 0]), (height + shrunk[..., 0] * flat[:, 1]))
        lenses.append(plate(np.concatenate([disc, disc[:, :1]], axis=1), 0.8))
        hinge = on_front(np.array(middle + side * wide), np.array(height + 0.3 * high))
        ear = np.array([side * (ear_x + 3.0), height - 4.0, ear_z - 5.0])
        frame.append(tube(np.linspace(hinge, ear, 12), radius))
    inner = max(apart / 2, wide + 5.0) - wide
    steps = np.linspace(-1, 1, 9)
    bridge = on_front(inner * steps, height + 0.25 * high + 3.0 * (1 - steps**2))
    frame.append(tube(bridge, radius))
    pieces = [_piece(joined(frame), FRAME)]
    return [*pieces, _piece(joined(lenses), LENS)] if opaque else pieces


def _earrings(wearer: Wearer, generator: np.random.Generator) -> Solid:
    """Studs, hoops or drops at both lobes."""
    body, kind, size = build_mannequin(), int(generator.integers(3)), generator.uniform(0.6, 1.5)
    solids = []
    for name in ("left_ear", "right_ear"):
        ear = wearer.points[body.part_vertices[name]]
        lobe = ear[np.argsort(ear[:, 1])[:12]].mean(0) + [0.0, 2.0, 1.0]
        if kind == 0:
            solids.append(ball(lobe + [0, 0, 1.5], 3.4 * size))
        elif kind == 1:
            turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
            hoop = 12.0 * size * np.stack([0.25 * np.sin(turn), np.cos(turn) - 1.0, np.sin(turn)], -1)
            solids.append(tube(lobe + hoop, 1.3 * size, closed=True))
        else:
            solids.append(tube(np.linspace(lobe, lobe - [0, 16.0 * size, 0], 5), 0.9))
            solids.append(ball(lobe - [0, 20.0 * size, 0], 5.0 * size))
    return joined(solids)


def _beard(wearer: Wearer, generator: np.random.Generator) -> Solid:
    """A thick beard over chin and jaw, with or without cheeks and moustache."""
    x, y, z = wearer.points.T
    cheeks, most = generator.uniform(-64.0, -44.0), generator.uniform(7.0, 24.0)
    jaw = np.minimum.reduce([cheeks - 8.0 + 0.012 * x**2 - y, y + 148.0, z + 2.0, 74.0 - np.abs(x)])
    if generator.random() < 0.7:
        moustache = np.minimum.reduce([30.0 - np.abs(x), -55.0 - y, y + 75.0, z - 60.0])
        jaw = np.maximum(jaw, moustache)
    near = _distance_to(wearer.points, wearer.points[wearer.lips])
    inside = np.minimum(jaw, near - 2.0)
    rough = fractal_field(wearer.points / 9.0, 3, int(generator.integers(2**16)))
    thickness = most * np.clip(np.minimum(near, inside) / 22.0, 0, 1) ** 0.7 * (0.7 + 0.6 * rough) + 0.6
    hanging, falls = wearer.shell(inside, thickness), generator.uniform(0.2, 1.2)
    drop = np.zeros_like(hanging.points)
    if hanging.follows is not None:
        drop[:, 1] = -falls * np.clip(thickness[hanging.follows] - 4.0, 0, None)
    return dataclasses.replace(hanging, points=hanging.points + drop)


def _collar(wearer: Wearer, generator: np.random.Generator) -> Solid:
    """A scarf or a roll of cloth about the neck, up to the jaw or beyond."""
    y, z = wearer.points[:, 1], wearer.points[:, 2]
    top = generator.uniform(-150.0, -112.0) - 0.15 * np.clip(40.0 - z, 0, 90)
    inside = np.minimum(top - y, y + 225.0)
    rough = fractal_field(wearer.points / [60.0, 14.0, 60.0], 2, int(generator.integers(2**16)))
    swell = np.clip(inside / 25.0, 0, 1) ** 0.5
    return wearer.shell(inside, (9.0 + generator.uniform(6.0, 24.0) * rough) * swell + 8.0)


def _distance_to(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    return cKDTree(others).query(points)[0]


def _with_hat(figure: Figure, wearer: Wearer, generator: np.random.Generator) -> Figure:
    """A cap, a hat with a brim, a beanie, a hood, a headband or a crown; hair under it is gone."""
    kind = ("beanie", "cap", "brim", "hood", "headband", "crown")[int(generator.integers(6))]
    x, y, z = wearer.points.T
    front, tilt = generator.uniform(34.0, 60.0), generator.uniform(0.05, 0.45)
    above = y - (front - tilt * (90.0 - z))
    thick = generator.uniform(7.0, 15.0) if kind != "hood" else generator.uniform(16.0, 26.0)
    soft = thick * (0.8 + 0.5 * fractal_field(wearer.points / 45.0, 2, int(generator.integers(2**16))))
    pieces, inside = [], above
    if kind == "hood":
        azimuth = np.degrees(np.arctan2(np.abs(x), z))
        around = np.maximum(azimuth - generator.uniform(58.0, 75.0), above - 18.0)
        inside = np.minimum(around, y + 165.0)
    elif kind == "headband":
        inside = np.minimum(above, generator.uniform(14.0, 40.0) - above)
    if kind != "crown":
        pieces.append(_piece(wearer.shell(inside, soft), HAT))
    if kind in ("cap", "brim", "crown"):
        pieces.append(_piece(_round_the_head(wearer, kind, front, tilt, generator), BAND))
    if kind != "crown":
        figure = _without_hair(figure, front, tilt, kind)
    return with_pieces(figure, pieces)


def _round_the_head(wearer: Wearer, kind: str, front: float, tilt: float, generator: np.random.Generator) -> Solid:
    """A visor, a brim all around, or a crown with points, along the ellipse of the head at the hat's edge."""
    across, along, middle = wearer.half_width(front)
    degrees = np.linspace(-62, 62, 33) if kind == "cap" else np.linspace(-180, 180, 73)
    angle = np.deg2rad(degrees)[None]
    steps = np.linspace(0, 1, 7)[:, None]
    grow = 6.0 + 0 * angle * steps
    up = 0 * angle * steps
    if kind == "crown":
        points = 0.5 + 0.5 * np.cos(angle * int(generator.integers(5, 11)))
        up = steps * (generator.uniform(18, 40) + generator.uniform(5, 35) * points)
        grow = generator.uniform(6, 16) + steps * generator.uniform(0, 12) + 0 * angle
    elif kind == "brim":
        width = generator.uniform(25, 75)
        grow, up = 4.0 + steps * width + 0 * angle, (steps**2) * generator.uniform(-14, 22) + 0 * angle
    else:
        reach = generator.uniform(45, 75) * np.clip(1 - (degrees / 66.0) ** 2, 0, 1) ** 0.5
        grow, up = 4.0 + steps * reach, -generator.uniform(4, 20) * steps**1.5 + 0 * angle
    x, z = (across + grow) * np.sin(angle), middle + (along + grow) * np.cos(angle)
    height = front + 3.0 - tilt * (90.0 - np.clip(z, None, 90.0)) + up
    return plate(np.stack(np.broadcast_arrays(x, height, z), -1), 2.4)


def _without_hair(figure: Figure, front: float, tilt: float, kind: str) -> Figure:
    """The figure without the hair that lies under a hat."""
    points = (figure.rest - template_origin()) * 1e3
    centers = points[figure.faces].mean(axis=1)
    above = centers[:, 1] - (front - tilt * (90.0 - np.clip(centers[:, 2], None, 90.0)))
    hidden = above > -3.0
    if kind == "hood":
        hidden |= centers[:, 2] < 30.0
    elif kind == "headband":
        hidden = (above > -3.0) & (above < 8.0)
    return figure.without_faces((figure.face_parts == FigurePart.HAIR) & hidden)

"""The mannequin's mouth: teeth, gums and tongue bound to head and jaw, and the sack sewn to the lips."""

from __future__ import annotations

import numpy as np

from ...body import mouth_shapes
from ...body.mouth_shapes import SACK_RINGS, GridShape
from ...body.shape_grids import grid_faces
from .parts import Part, still_part
from .topology import Slit


def teeth_row(base: int, upper: bool) -> Part:
    """One row of teeth, bound to head (upper) or jaw (lower)."""
    name, joint = ("upper_teeth", "head") if upper else ("lower_teeth", "jaw")
    return _bound(name, "teeth", joint, base, mouth_shapes.teeth_row(upper))


def gum_row(base: int, upper: bool) -> Part:
    """The gum of one row of teeth."""
    name, joint = ("upper_gum", "head") if upper else ("lower_gum", "jaw")
    return _bound(name, "gum", joint, base, mouth_shapes.gum_row(upper))


def tongue(base: int) -> Part:
    """The tongue, bound to the jaw."""
    return _bound("tongue", "tongue", "jaw", base, mouth_shapes.tongue())


def _bound(name: str, label: str, joint: str, base: int, shape: GridShape) -> Part:
    return still_part(name, label, name, joint, shape.points, (base + shape.faces, shape.corner_uvs))


def mouth_sack(base: int, slit: Slit, skin: np.ndarray, jaw_weights: np.ndarray) -> Part:
    """The cavity behind the lips: rings from the lip border over the vestibule to a closed throat."""
    loop, count = slit.loop, len(slit.columns)
    sack = mouth_shapes.sack_rings(skin[loop], *mouth_shapes.even_border(count), jaw_weights[loop])
    ids = np.concatenate([loop[None], base + np.arange(SACK_RINGS * len(loop)).reshape(SACK_RINGS, -1)])
    faces, uvs = grid_faces(ids, wrap=True)
    throat = ids[-1]
    strip = np.stack(
        [throat[:count], np.concatenate([throat[:1], throat[: count - 1 : -1], throat[count - 1 : count]])]
    )
    cap, cap_uvs = grid_faces(strip, wrap=False)
    return Part(
        "mouth_bag",
        "mouth_bag",
        "mouth_bag",
        "blend",
        sack.points,
        sack.points,
        np.concatenate([faces, cap]),
        np.concatenate([uvs, cap_uvs * [1.0, 0.0]]),
        sack.jaw,
        np.tile(loop, SACK_RINGS),
        sack.border_share,
    )

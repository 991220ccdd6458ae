"""Hair styles as numbers: how thick the hair lies on the scalp, where it ends, which way it flows.

Lengths in millimetres in the mannequin's local frame, azimuths in degrees from the face (0) to the back (180), equal on
both sides unless a style says otherwise.
"""

from __future__ import annotations

import dataclasses

Knots = tuple[tuple[float, float], ...]

# Hairline as (azimuth, height): forehead, temple, sideburn, over the ear, behind it, nape.
_HAIRLINE: Knots = (
    (0, 74), (16, 74), (30, 71), (40, 60), (50, 42), (58, 24), (64, 2), (69, -18), (74, -24), (79, -18), (83, 4),
    (90, 14), (102, 15), (112, 4), (119, -24), (130, -52), (150, -66), (180, -70),
)  # fmt: skip
_RECEDING: Knots = (
    (0, 80), (12, 82), (24, 90), (36, 86), (46, 62), (56, 30), (64, 4), (69, -14), (74, -19), (79, -14), (83, 4),
    (90, 14), (102, 15), (112, 4), (119, -24), (130, -50), (150, -62), (180, -66),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Curtain:
    """Hair that hangs beside the face: its cross-section is an ellipse whose half-axes vary with height.

    front: (height, azimuth) of the edge beside the face.  width, depth: (height, half-axis).  bottom: (azimuth,
    height).
    """

    front: Knots
    width: Knots
    depth: Knots
    bottom: Knots


@dataclasses.dataclass(frozen=True)
class HairStyle:
    """One style.

    cap: thickness on the scalp.  lift: extra thickness at the front top.  flow: "radial" from the crown, "parted" from
    a line at x = `part`, or "back" to a knot.  clump, relief: width and height of the locks.  lobes: length of the
    points in which the border ends.  edge: thickness at the border.  taper: distance over which it grows.
    curl: 0 straight to 1 tightly curled; -1 shaven to stubble.  locks, lock_length: loose tapered locks along the
    border.
    """

    cap: float
    lift: float = 0.0
    hairline: Knots = _HAIRLINE
    flow: str = "radial"
    part: float = 0.0
    clump: float = 12.0
    relief: float = 2.0
    lobes: float = 4.0
    edge: float = 1.6
    taper: float = 16.0
    curl: float = 0.0
    curtain: Curtain | None = None
    knot: str = "none"
    locks: int = 0
    lock_length: float = 20.0


_BOB = Curtain(
    front=((90, 4), (70, 9), (50, 30), (30, 45), (0, 54), (-40, 58), (-80, 55), (-120, 52)),
    width=((60, 88), (20, 94), (-20, 100), (-60, 101), (-90, 95), (-110, 84)),
    depth=((60, 108), (20, 115), (-20, 115), (-60, 110), (-90, 100), (-110, 92)),
    bottom=((0, -84), (60, -88), (100, -90), (180, -92)),
)
_LONG = Curtain(
    front=((90, 3), (70, 8), (50, 27), (30, 43), (0, 53), (-40, 58), (-80, 58), (-120, 54), (-180, 46), (-230, 40)),
    width=((60, 87), (20, 93), (-20, 99), (-60, 100), (-110, 98), (-160, 100), (-230, 104)),
    depth=((60, 107), (20, 113), (-20, 113), (-60, 106), (-110, 98), (-160, 112), (-230, 122)),
    bottom=((0, -190), (52, -196), (64, -152), (108, -150), (124, -214), (180, -222)),
)

STYLES: dict[str, HairStyle | None] = {
    "bald": None,
    "buzz cut": HairStyle(
        cap=1.8, relief=0.0, lobes=0.6, edge=0.15, taper=26.0, hairline=_RECEDING, clump=6.0, curl=-1.0
    ),
    "short hair": HairStyle(
        cap=8.0, lift=10.0, flow="back", clump=15.0, relief=3.2, lobes=3.0, edge=2.6, taper=13.0
    ),
    "side parting": HairStyle(
        cap=9.0, lift=10.0, flow="parted", part=26.0, clump=14.0, relief=2.2, lobes=3.0, edge=2.4, taper=12.0
    ),
    "bob": HairStyle(
        cap=10.0, lift=2.0, flow="parted", part=-14.0, relief=1.8, lobes=5.0, edge=5.0, curtain=_BOB, locks=70
    ),
    "long hair": HairStyle(
        cap=9.5, lift=2.0, flow="parted", part=0.0, clump=16.0, relief=2.6, lobes=16.0, edge=5.0, curtain=_LONG,
        locks=90, lock_length=40.0,
    ),
    "bun": HairStyle(
        cap=6.5, lift=2.0, flow="back", clump=9.0, relief=0.9, lobes=2.0, edge=1.0, taper=12.0, knot="bun", locks=40,
        lock_length=16.0,
    ),
    "ponytail": HairStyle(
        cap=6.5, lift=2.0, flow="back", clump=9.0, relief=0.9, lobes=2.0, edge=1.0, taper=12.0, knot="ponytail",
        locks=40, lock_length=16.0,
    ),
    "afro": HairStyle(cap=36.0, lift=5.0, clump=10.0, relief=5.0, lobes=2.0, edge=5.0, taper=26.0, curl=1.0),
    "curly hair": HairStyle(
        cap=19.0, lift=10.0, clump=15.0, relief=8.5, lobes=7.0, edge=5.0, taper=16.0, curl=0.7
    ),
}  # fmt: skip
KNOT_CENTERS = {"bun": (0.0, 96.0, -92.0), "ponytail": (0.0, 62.0, -112.0)}

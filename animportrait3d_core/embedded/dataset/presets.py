"""What the data sets of the embedded world consist of.

"prior" is for the diffusion prior and its ControlNet (paper A1.5): faces, eyes and mouths in equal numbers, and whole
busts, each with the condition map. "prior-wide" is for the last part of its training: no busts, but faces from so far
away that words for clothes have something to mean; faces and mouths, which are hardest, twice as often. "networks" is
for the networks that look at pictures and surfaces: mostly busts from all around, of people of whom most have traits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...errors import InvalidInput
from ...regions import IMAGE_REGIONS


@dataclasses.dataclass(frozen=True)
class Framing:
    """Where the cameras of a region stand.

    yaw, elevation: degrees, uniform in the range; yaw 0 is the front, 90 the subject's left.  rear_share: how often the
    yaw is turned by half a circle.  radius: of the orbit, in shares of 2.65.  target_jitter: world units by which the
    look-at point is moved along each axis.  side: of the square that is cut out of the picture, in shares of the
    method's box (`conditioning.CROP_REGIONS`), log-uniform; for busts, of the whole picture.  shift: by which share of
    its side the square is moved at most.
    """

    yaw: tuple[float, float]
    elevation: tuple[float, float]
    rear_share: float = 0.0
    radius: tuple[float, float] = (1.0, 1.0)
    target_jitter: float = 0.0
    side: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """A kind of data set.

    size: side of the pictures in pixels.  images_per_identity: default.  regions: names of IMAGE_REGIONS, in the order
    in which the images of an identity go through them; the next identity goes on where the last one stopped, so that
    all are equally frequent.  framings: region -> cameras.  neutral_share: how many images show the identity's portrait
    pose.  condition: whether there are condition maps.  texture_size, sky_directions: detail of the renderer.
    traits_share: how many people have `traits`.
    """

    size: int
    images_per_identity: int
    regions: tuple[str, ...]
    framings: Mapping[str, Framing]
    neutral_share: float
    condition: bool
    texture_size: int
    sky_directions: int
    traits_share: float = 0.0

    def __post_init__(self) -> None:
        strange = set(self.regions) - set(IMAGE_REGIONS) | set(self.regions) ^ set(self.framings)
        if strange:
            raise InvalidInput(f"Preset: regions {sorted(strange)} are not of {IMAGE_REGIONS} or have no framing.")


_PRIOR = Preset(
    size=128,
    images_per_identity=12,
    regions=("face", "eyes", "mouth", "bust"),
    framings={
        "bust": Framing((-90, 90), (-20, 30), rear_share=0.25, side=(0.85, 1.0), shift=0.06),
        "face": Framing((-85, 85), (-20, 25), side=(0.72, 1.15), shift=0.08),
        "eyes": Framing((-75, 75), (-16, 20), side=(0.75, 1.35), shift=0.10),
        "mouth": Framing((-75, 75), (-16, 20), side=(0.75, 1.35), shift=0.10),
    },
    neutral_share=0.1,
    condition=True,
    texture_size=512,
    sky_directions=12,
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "prior": _PRIOR,
    "prior-wide": dataclasses.replace(
        _PRIOR,
        regions=("face", "mouth", "eyes", "face", "mouth"),
        framings={
            "face": Framing((-85, 85), (-20, 25), side=(0.72, 1.6), shift=0.08),
            "eyes": _PRIOR.framings["eyes"],
            "mouth": _PRIOR.framings["mouth"],
        },
    ),
    "networks": Preset(
        size=256,
        images_per_identity=6,
        regions=("bust", "face", "bust", "eyes", "bust", "face", "bust", "mouth"),
        framings={
            "bust": Framing(
                (-90, 90), (-20, 40), rear_share=0.5, radius=(0.85, 1.12), target_jitter=0.06, side=(0.8, 1.05),
                shift=0.05,
            ),
            "face": Framing((-60, 60), (-20, 30), radius=(0.9, 1.1), side=(0.6, 1.3), shift=0.12),
            "eyes": Framing((-60, 60), (-20, 30), side=(0.8, 2.2), shift=0.15),
            "mouth": Framing((-60, 60), (-20, 30), side=(0.8, 2.0), shift=0.15),
        },
        neutral_share=0.3,
        condition=False,
        texture_size=512,
        sky_directions=16,
        traits_share=0.6,
    ),
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """One of PRESETS. Raises `InvalidInput` with the names that there are."""
    if name not in PRESETS:
        raise InvalidInput(f"build_dataset: no preset '{name}', expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]

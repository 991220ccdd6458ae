"""How the embedded world's 2D networks are made: architecture, augmentation and schedule of each role."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..landmarks import NUM_FACE_LANDMARKS
from ..networks.files import COLOR_CHANNELS, SURFACE_CHANNELS
from ..parts import PART_CLASSES
from .augment import AugmentSettings
from .loop import LoopSettings

# A small residual U-Net, 1.5 million weights, on blocks of 2 x 2 pixels: in training on CPUs most of the time goes to
# the finest levels, and without the very finest a step takes a third of it. Depthwise encoders were not faster.
_SMALL_UNET: dict[str, Any] = {
    "_model_class": "Unet",
    "encoder_name": "tu-resnet18",
    "encoder_depth": 5,
    "encoder_weights": None,
    "decoder_channels": [96, 64, 48, 32, 24],
    "decoder_interpolation": "nearest",
    "in_channels": COLOR_CHANNELS * 2**2,
    "stem_type": "deep",
    "stem_width": 12,
    "channels": [32, 64, 96, 128],
    "layers": [1, 2, 2, 2],
}
_PIXEL_UNSHUFFLE = 2
_STRIDE = 32 * _PIXEL_UNSHUFFLE


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One role's training.

    config: of the model, as in its config.json.  size: pixels of the pictures it is trained on.  loop: default
    schedule.  pixel_unshuffle: side of the blocks of pixels that the model takes for one.  held_out_share: of the
    persons.  sees_normals: whether it looks at the surface beside the picture.  looks_closely: whether it is also
    trained on cut-outs of an eye or the mouth alone.
    """

    role: str
    config: dict[str, Any]
    size: int
    augment: AugmentSettings
    loop: LoopSettings
    pixel_unshuffle: int = _PIXEL_UNSHUFFLE
    held_out_share: float = 0.05
    sees_normals: bool = False
    looks_closely: bool = False


def recipe_of(role: str, image_size: int = 256, surface: bool = False) -> Recipe:
    """The recipe of `role` for pictures of some size: smaller ones are not enlarged.

    surface: the data set has surfaces to look at. A network for normals does without: it is asked where there are none.
    """
    recipe = _RECIPES[role]
    if surface and role != "normals":
        channels = (COLOR_CHANNELS + SURFACE_CHANNELS) * recipe.pixel_unshuffle**2
        recipe = dataclasses.replace(recipe, config={**recipe.config, "in_channels": channels}, sees_normals=True)
    return dataclasses.replace(recipe, size=min(recipe.size, max(_STRIDE, image_size // _STRIDE * _STRIDE)))


_RECIPES = {
    "parts": Recipe(
        "parts",
        {**_SMALL_UNET, "classes": len(PART_CLASSES)},
        size=256,
        augment=AugmentSettings(),
        loop=LoopSettings(steps=10000, batch_size=12, lr=3e-3, precision="mixed"),
    ),
    "normals": Recipe(
        "normals",
        # An answer for each pixel of a block: curls of hair are a few pixels wide.
        {**_SMALL_UNET, "classes": 3 * _PIXEL_UNSHUFFLE**2},
        size=256,
        augment=AugmentSettings(),
        loop=LoopSettings(steps=10000, batch_size=12, lr=3e-3, precision="mixed"),
    ),
    "landmarks": Recipe(
        "landmarks",
        {
            **_SMALL_UNET,
            "layers": [2, 2, 2, 2],
            "decoder_channels": [96, 64, 48, 48, 48],
            "classes": NUM_FACE_LANDMARKS,
            "aux_params": {"classes": 1 + NUM_FACE_LANDMARKS, "pooling": "avg", "dropout": 0.0},
        },
        size=192,
        augment=AugmentSettings(),
        loop=LoopSettings(steps=10000, batch_size=12, lr=2e-3, precision="mixed"),
        looks_closely=True,
    ),
}

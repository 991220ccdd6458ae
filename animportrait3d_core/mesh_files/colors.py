"""Colour spaces and pictures: display (sRGB) and linear values, textures as arrays."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Linear light [...] of display values [...] in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((np.clip(values, 0.04045, None) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Display values [...] of linear light [...] in 0..1, the inverse of `srgb_to_linear`."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.clip(values, 0.0031308, None) ** (1 / 2.4) - 0.055)


def linear_colors(colors: Tensor) -> Tensor:
    """Linear light [...] float32 of display colours [...] in 0..1, clamped to them."""
    return torch.from_numpy(srgb_to_linear(colors.clamp(0, 1).double().numpy())).float()


def display_colors(colors: Tensor) -> Tensor:
    """Display colours [...] float32 of linear light [...] in 0..1, the inverse of `linear_colors`."""
    return torch.from_numpy(linear_to_srgb(colors.clamp(0, 1).double().numpy())).float()


def tint(colors: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Display colours [..., 3] multiplied in linear light by a factor [3] that is itself given as a display colour."""
    if np.all(factor >= 1):
        return colors
    return linear_to_srgb(srgb_to_linear(colors) * srgb_to_linear(factor)).astype(np.float32)


def image_to_array(image: Any, max_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours [H, W, 3] and alpha [H, W] (None if opaque) in 0..1, float32, of a PIL image, shrunk to `max_size`."""
    import PIL.Image

    if image.mode.startswith(("I", "F")):  # the conversion below would cut greys of more than 8 bits off at 255
        image = _eight_bits(image)
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    image = image.convert("RGBA" if has_alpha else "RGB")
    longest = max(image.size)
    if longest > max_size:
        size = tuple(max(1, round(side * max_size / longest)) for side in image.size)
        image = image.resize(size, PIL.Image.Resampling.BOX)
    pixels = np.asarray(image, dtype=np.float32) / 255
    alpha = pixels[..., 3] if has_alpha else None
    if alpha is not None and bool((alpha >= 1).all()):
        alpha = None
    return np.ascontiguousarray(pixels[..., :3]), alpha


def _eight_bits(image: Any) -> Any:
    """A grey picture of 16 bits, of whole numbers or of floating ones (in 0..1, 0..255 or 0..65535) with 8 bits."""
    import PIL.Image

    values: np.ndarray = np.nan_to_num(np.asarray(image, dtype=np.float32))
    most = float(values.max(initial=0))
    if image.mode.startswith("I;16") or most > 255:
        values = values / 257
    elif image.mode == "F" and most <= 1:
        values = values * 255
    return PIL.Image.fromarray(np.clip(np.rint(values), 0, 255).astype("u1"))


def decodable(blob: bytes) -> str | None:
    """None if the bytes are a whole picture that can be decoded, else the reason."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(blob)) as image:
                image.load()
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        return f"it has more than {PIL.Image.MAX_IMAGE_PIXELS or 0:,} texels, shrink it"
    except PIL.UnidentifiedImageError:
        return "it is no picture of a known format"
    # Decoders of damaged pictures raise many unrelated types; the reason is passed on to the user.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None

"""Trigrids as a value: grids, decoder, ToRGB, background and the constants of the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ...errors import IncompatibleCheckpoint, InvalidInput, ShapeMismatch, check_finite, check_shape
from .settings import FieldSettings, TrigridRenderSettings

SCHEMA_VERSION = 1
LEVELS = (8, 16, 32, 64, 128, 256, 512)
PLANES = 3
HIDDEN = 32
FEATURES = 32
NUM_WS = 14
W_DIM = 512
BACKGROUND_SIZE = 128
STYLE_ROW = 13  # row of w+ that styles the render
BACKGROUND_STYLE_ROW = 11  # the authors' background.png takes the last row of the background network instead
_WHERE = "TrigridPortrait"


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """Two fully connected layers, features [C] -> softplus [32] -> (raw density, features [32]).

    hidden_weight: [32, C].  hidden_bias: [32].  output_weight: [33, 32].  output_bias: [33].  Weights are as stored in
    checkpoints; the equalised learning rate divides them by the square root of their input width when used.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor

    def __post_init__(self) -> None:
        wanted = {
            "hidden_weight": (HIDDEN, "C"),
            "hidden_bias": (HIDDEN,),
            "output_weight": (1 + FEATURES, HIDDEN),
            "output_bias": (1 + FEATURES,),
        }
        _check_family(self, "decoder", wanted)

    @property
    def channels(self) -> int:
        return int(self.hidden_weight.shape[1])

    def layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Float32 (W0 [32, C], b0, W1 [33, 32], b1), with the gain of the equalised learning rate multiplied in."""
        return (
            self.hidden_weight.float() / math.sqrt(self.channels),
            self.hidden_bias.float(),
            self.output_weight.float() / math.sqrt(HIDDEN),
            self.output_bias.float(),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ToRgb:
    """StyleGAN2's ToRGB: a 1 x 1 convolution whose input channels are scaled by a style, without demodulation.

    affine_weight: [32, 512].  affine_bias: [32].  weight: [3, 32].  bias: [3].
    """

    affine_weight: Tensor
    affine_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        wanted = {"affine_weight": (FEATURES, W_DIM), "affine_bias": (FEATURES,), "weight": (3, FEATURES), "bias": (3,)}
        _check_family(self, "torgb", wanted)

    def matrix(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(M [3, 32], bias [3]) in float32, so that rgb = M f + bias for the row w [512] of the code."""
        style = w.float() @ self.affine_weight.float().T / math.sqrt(W_DIM) + self.affine_bias.float()
        return self.weight.float() * style / math.sqrt(FEATURES), self.bias.float()


def _check_family(value: object, name: str, wanted: Mapping[str, tuple[int | str, ...]]) -> None:
    """Shapes tell whether a network is of the known family; a wrong one is another model's, not a slip of the user."""
    for field, shape in wanted.items():
        tensor = getattr(value, field)
        try:
            check_shape(f"{_WHERE}: {name}", field, tensor, shape)
        except ShapeMismatch as error:
            raise IncompatibleCheckpoint(f"{error} Only the 32-feature model of Portrait3D is known.") from error
        check_finite(f"{_WHERE}: {name}", field, tensor)


@dataclasses.dataclass(frozen=True, eq=False)
class Trigrids:
    """A pyramid of trigrids with a small decoder and a background (Portrait3D, AnimPortrait3D section 3.1).

    levels: resolution r -> [3 planes, C channels, D depth slices, r, r] in float16 or float32; any non-empty subset of
    8, 16, ... 512.  A feature is the mean over the levels present.  ws: [14, 512] StyleGAN2 w+ code, of which rows 11
    and 13 style the colours.  background_features: [32, 128, 128].  Tensors are on the CPU and never changed.
    Compared and hashed by identity, so that prepared data can be remembered per portrait.

    Raises `ShapeMismatch`, `InvalidInput` (no level, unknown level, NaN) or `IncompatibleCheckpoint` (a decoder of
    another width).
    """

    levels: Mapping[int, Tensor]
    decoder: Decoder
    to_rgb: ToRgb
    ws: Tensor
    background_features: Tensor
    field: FieldSettings = FieldSettings()
    rendering: TrigridRenderSettings = TrigridRenderSettings()
    prompt: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_levels(_WHERE, self.levels)
        check_shape(_WHERE, "ws", self.ws, [NUM_WS, W_DIM])
        check_finite(_WHERE, "ws", self.ws)
        size = BACKGROUND_SIZE
        check_shape(_WHERE, "background_features", self.background_features, [FEATURES, size, size])
        check_finite(_WHERE, "background_features", self.background_features)
        if self.decoder.channels != self.channels:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: the decoder takes {self.decoder.channels} channels, the trigrids have {self.channels} "
                f"({self.depth} depth slices); they belong to different models."
            )

    @property
    def channels(self) -> int:
        """Feature channels C of the grids."""
        return int(next(iter(self.levels.values())).shape[1])

    @property
    def depth(self) -> int:
        """Depth slices D of the grids."""
        return int(next(iter(self.levels.values())).shape[2])

    @property
    def finest(self) -> int:
        """Resolution of the finest level."""
        return max(self.levels)


def check_level_names(where: str, levels: Iterable[int]) -> None:
    """Raise unless there is a level, and all are known resolutions."""
    if not set(levels):
        raise InvalidInput(f"{where}: there is no trigrid level; expected one or more of {_names(LEVELS)}.")
    unknown = sorted(set(levels) - set(LEVELS))
    if unknown:
        raise InvalidInput(f"{where}: {_names(unknown)} unknown; expected levels among {_names(LEVELS)}.")


def check_levels(where: str, levels: Mapping[int, Tensor]) -> None:
    """Raise unless `levels` are grids [3, C, D, r, r] by known resolution r, of equal C and D, and finite."""
    check_level_names(where, levels)
    first = min(levels)
    for resolution, grid in sorted(levels.items()):
        name = f"trigrids_{resolution}"
        check_shape(where, name, grid, [PLANES, "C", "D", resolution, resolution])
        if grid.shape[1:3] != levels[first].shape[1:3]:
            raise ShapeMismatch(
                f"{where}: `{name}` has {grid.shape[1]} channels and {grid.shape[2]} depth slices, but "
                f"`trigrids_{first}` has {levels[first].shape[1]} and {levels[first].shape[2]}; all levels must agree."
            )
        if grid.dtype not in (torch.float16, torch.float32):
            raise InvalidInput(f"{where}: `{name}` has type {grid.dtype}, expected torch.float16 or torch.float32.")
        check_finite(where, name, grid if grid.dtype == torch.float32 else grid.float())


def _names(levels: tuple[int, ...] | list[int]) -> str:
    return ", ".join(f"trigrids_{level}" for level in levels)


def constant_background(color: Tensor, to_rgb: ToRgb, ws: Tensor) -> Tensor:
    """Background features [32, 128, 128] that ToRGB turns into one colour [3] in 0..1 (least-norm solution)."""
    matrix, bias = to_rgb.matrix(ws[STYLE_ROW])
    wanted = (2 * color.double() - 1 - bias.double())[:, None]
    features = torch.linalg.pinv(matrix.double()) @ wanted
    if not torch.allclose(matrix.double() @ features, wanted, atol=1e-4):
        raise InvalidInput(f"constant_background: the colours of this ToRGB cannot make {color.tolist()}.")
    return features.float()[:, :, None].expand(FEATURES, BACKGROUND_SIZE, BACKGROUND_SIZE).contiguous()

"""What the fitter changes: grids, decoder, Adam's moments; to and from tensors and portraits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .data import FEATURES, HIDDEN, NUM_WS, PLANES, W_DIM, Decoder, ToRgb, constant_background
from .fast_kernels import LANES, FieldArrays
from .fit_kernels import OUTPUTS, SLOTS, Gradients
from .portrait import TrigridPortrait

CHANNELS, SLICES = 12, 3
_PARTS = ("texels", "hidden_weight", "hidden_bias", "output")


@dataclasses.dataclass
class FitState:
    """The fit after `iteration` steps, changed in place.

    parts: name -> array [rows, columns]: texels [T, 16] (levels one after the other, [plane, v, u, slice, channel],
    with a border of zeros), hidden_weight [16, 32], hidden_bias [1, 32], output [4, 33] (weights and bias of the raw
    density and three colours).  first, second: Adam's moments, like parts.  occupied: [M, M, M] bool.
    """

    levels: tuple[int, ...]
    parts: dict[str, np.ndarray]
    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]
    occupied: np.ndarray
    iteration: int = 0

    def field(self) -> FieldArrays:
        """The field in the layout of the kernels; shares the memory."""
        starts = level_starts(self.levels)
        sides = [level + 2 for level in self.levels]
        rows = [
            [[start + plane * side * side * SLICES, side] for plane in range(PLANES)]
            for start, side in zip(starts, sides)
        ]
        output = self.parts["output"]
        return FieldArrays(
            self.parts["texels"],
            np.array(rows, np.int64),
            np.array([(level / 2, level / 2 + 0.5) for level in self.levels], np.float32),
            SLICES,
            self.parts["hidden_weight"],
            self.parts["hidden_bias"][0],
            np.ascontiguousarray(output[0, :HIDDEN]),
            np.float32(output[0, HIDDEN]),
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Copies of all arrays by name."""
        tensors = {"occupied": torch.from_numpy(self.occupied.copy())}
        for kind in ("parts", "first", "second"):
            arrays = getattr(self, kind)
            tensors |= {f"{kind}.{name}": torch.from_numpy(value.copy()) for name, value in arrays.items()}
        return tensors

    @classmethod
    def from_tensors(cls, levels: tuple[int, ...], tensors: Mapping[str, Tensor], iteration: int) -> FitState:
        """Inverse of `to_tensors`."""
        parts, first, second = (
            {name: tensors[f"{kind}.{name}"].numpy() for name in _PARTS} for kind in ("parts", "first", "second")
        )
        return cls(levels, parts, first, second, tensors["occupied"].numpy(), iteration)


def level_starts(levels: tuple[int, ...]) -> list[int]:
    """First row of every level, and the number of rows at the end."""
    sizes = [PLANES * SLICES * (level + 2) ** 2 for level in levels]
    return [sum(sizes[:index]) for index in range(len(sizes) + 1)]


def inner_rows(levels: tuple[int, ...]) -> np.ndarray:
    """Which rows [T] are texels, not border."""
    parts = []
    for level in levels:
        inner = np.zeros((PLANES, level + 2, level + 2, SLICES), bool)
        inner[:, 1:-1, 1:-1] = True
        parts.append(inner.ravel())
    return np.concatenate(parts)


def initial_state(levels: tuple[int, ...], occupied: np.ndarray, generator: np.random.Generator) -> FitState:
    """Small random grids and a random decoder, of a thin fog. occupied: [cells] bool, as `FitState` holds it."""
    count = level_starts(levels)[-1]
    texels = np.zeros((count, LANES), np.float32)
    texels[:, :CHANNELS] = generator.normal(0, 0.1, (count, CHANNELS)) * inner_rows(levels)[:, None]
    texels /= PLANES * len(levels)
    hidden_weight = np.zeros((LANES, HIDDEN), np.float32)
    hidden_weight[:CHANNELS] = generator.normal(0, math.sqrt(2 / CHANNELS), (CHANNELS, HIDDEN))
    output = np.zeros((OUTPUTS, HIDDEN + 1), np.float32)
    output[:, :HIDDEN] = generator.normal(0, 0.5 / math.sqrt(HIDDEN), (OUTPUTS, HIDDEN))
    output[0, HIDDEN] = 1.0
    parts = {
        "texels": texels,
        "hidden_weight": hidden_weight,
        "hidden_bias": np.zeros((1, HIDDEN), np.float32),
        "output": output,
    }
    first, second = ({name: np.zeros_like(value) for name, value in parts.items()} for _ in range(2))
    return FitState(levels, parts, first, second, occupied)


def empty_gradients(state: FitState) -> Gradients:
    """Gradient buffers of zeros."""
    parts = state.parts
    return Gradients(
        np.zeros((SLOTS, *parts["texels"].shape), np.float32),
        np.zeros((SLOTS, *parts["hidden_weight"].shape), np.float32),
        np.zeros((SLOTS, HIDDEN), np.float32),
        np.zeros((SLOTS, *parts["output"].shape), np.float32),
    )


def portrait_of(state: FitState, background: Tensor, prompt: str, dtype: torch.dtype) -> TrigridPortrait:
    """The state as a portrait over a plain background [3] in 0..1, with grids in float16 or float32.

    The first three features are the colours; ToRGB passes them on.
    """
    starts, grids = level_starts(state.levels), {}
    for level, start, stop in zip(state.levels, starts, starts[1:]):
        part = state.parts["texels"][start:stop].reshape(PLANES, level + 2, level + 2, SLICES, LANES)
        inner = torch.from_numpy(part[:, 1:-1, 1:-1, :, :CHANNELS].copy()).permute(0, 4, 3, 1, 2)
        grids[level] = (inner * (PLANES * len(state.levels))).to(dtype).contiguous()
    output_weight, output_bias = torch.zeros(1 + FEATURES, HIDDEN), torch.zeros(1 + FEATURES)
    output = torch.from_numpy(state.parts["output"])
    output_weight[:OUTPUTS], output_bias[:OUTPUTS] = output[:, :HIDDEN] * math.sqrt(HIDDEN), output[:, HIDDEN]
    decoder = Decoder(
        torch.from_numpy(state.parts["hidden_weight"][:CHANNELS].T * math.sqrt(CHANNELS)).contiguous(),
        torch.from_numpy(state.parts["hidden_bias"][0].copy()),
        output_weight,
        output_bias,
    )
    to_rgb = ToRgb(
        torch.zeros(FEATURES, W_DIM),
        torch.full((FEATURES,), math.sqrt(FEATURES)),
        torch.eye(3, FEATURES),
        torch.zeros(3),
    )
    ws = torch.zeros(NUM_WS, W_DIM)
    return TrigridPortrait(grids, decoder, to_rgb, ws, constant_background(background, to_rgb, ws), prompt=prompt)

"""Curves of a training's log as a picture, to look at beside its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..runs import read_log

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 300, 60, 150, 26, 26
_COLORS = ("#3f789e", "#a1683f", "#5a8a4a", "#8a5a9e", "#9e4f5c", "#4a8a8a")
_NO_LOSS = ("step", "lr", "seconds", "psnr")
"""What names of other values in a log begin with."""

Curve = Sequence[tuple[float, float]]


def read_curves(folder: str | Path) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of every loss in a run's log; a step that was done twice counts as it was done last."""
    found: dict[str, dict[float, float]] = {}
    for line in read_log(folder):
        for name in (name for name in line if not name.startswith(_NO_LOSS)):
            found.setdefault(name, {})[line["step"]] = line[name]
    return {name: sorted(values.items()) for name, values in found.items()}


def curves_picture(curves: Mapping[str, Curve], title: str) -> Tensor:
    """A picture [H, W, 3] in 0..1 of curves over the step, values on a logarithmic axis.

    Raises `InvalidInput` if there is nothing to draw.
    """
    from PIL import Image, ImageDraw

    points = {name: np.array([pair for pair in curve if pair[1] > 0], dtype=float) for name, curve in curves.items()}
    points = {name: values for name, values in points.items() if len(values)}
    if not points:
        raise InvalidInput(f"curves_picture: '{title}' has no values above 0 to draw.")
    every = np.concatenate(list(points.values()))
    last, low, high = every[:, 0].max(), every[:, 1].min() / 1.1, every[:, 1].max() * 1.1
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 7), title, fill="#282828")
    for value in _ticks(low, high):
        y = _place(np.array([[0.0, value]]), last, low, high)[0][1]
        draw.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], fill="#e0e0e0")
        draw.text((8, y - 6), f"{value:g}", fill="#707070")
    draw.text((_WIDTH - _RIGHT - 40, _HEIGHT - 18), f"{last:,.0f}", fill="#707070")
    for number, (name, values) in enumerate(points.items()):
        color = _COLORS[number % len(_COLORS)]
        draw.line(_place(values, last, low, high), fill=color, width=2)
        draw.text((_WIDTH - _RIGHT + 10, _TOP + 16 * number), name, fill=color)
    return torch.from_numpy(np.asarray(picture).copy()).float() / 255


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]


def _place(values: np.ndarray, last: float, low: float, high: float) -> list[tuple[float, float]]:
    """Pixels of points (step, value) [n, 2]."""
    x = _LEFT + values[:, 0] / max(last, 1.0) * (_WIDTH - _LEFT - _RIGHT)
    share = np.log(values[:, 1] / low) / np.log(high / low)
    y = _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
    return list(zip(x.tolist(), y.tolist()))

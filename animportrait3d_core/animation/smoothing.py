"""Smoothing along time by the Savitzky-Golay filter (1964): a parabola fitted to each window of frames."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput

ORDER = 2


def check_window(where: str, window: int) -> None:
    """Raise `InvalidInput` unless a window is an odd number of frames, 1 (none) to 999."""
    if window % 2 != 1 or not 1 <= window <= 999:
        raise InvalidInput(f"{where}: a window of {window} frames, expected an odd number of 1 (none) to 999.")


def smoothed(values: Tensor, window: int) -> Tensor:
    """Values [T, n] smoothed along time; lines and parabolas stay as they are, to the first and last frame.

    window: frames, odd; windows longer than the clip are cut to it, and those under 5 do nothing, as a parabola goes
    through 3 points.
    """
    from scipy.signal import savgol_filter

    check_window("smoothed", window)
    window = min(window, len(values) - 1 + len(values) % 2)
    if window <= ORDER + 1:
        return values
    filtered = savgol_filter(values.detach().double().cpu().numpy(), window, ORDER, axis=0, mode="interp")
    return torch.from_numpy(filtered).to(values)

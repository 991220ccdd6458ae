"""The colours behind the words, sRGB-coded 0..1, and small random departures from them."""

from __future__ import annotations

import numpy as np

SKIN = {
    "pale": (0.945, 0.815, 0.750),
    "fair": (0.905, 0.720, 0.620),
    "olive": (0.820, 0.655, 0.510),
    "tan": (0.745, 0.545, 0.415),
    "brown": (0.560, 0.375, 0.270),
    "dark": (0.375, 0.245, 0.180),
}
IRIS = {
    "brown": (0.36, 0.20, 0.10),
    "hazel": (0.50, 0.37, 0.16),
    "green": (0.34, 0.50, 0.27),
    "blue": (0.30, 0.50, 0.72),
    "grey": (0.52, 0.58, 0.62),
}
HAIR = {
    "black": (0.125, 0.112, 0.115),
    "dark brown": (0.225, 0.150, 0.105),
    "brown": (0.385, 0.245, 0.155),
    "blond": (0.800, 0.640, 0.390),
    "red": (0.640, 0.265, 0.110),
    "grey": (0.545, 0.540, 0.545),
    "white": (0.860, 0.850, 0.830),
}
GARMENT = {
    "red": (0.700, 0.120, 0.130),
    "blue": (0.160, 0.330, 0.690),
    "navy": (0.110, 0.150, 0.300),
    "green": (0.160, 0.440, 0.250),
    "teal": (0.090, 0.470, 0.490),
    "yellow": (0.900, 0.740, 0.220),
    "orange": (0.890, 0.460, 0.150),
    "pink": (0.890, 0.560, 0.650),
    "purple": (0.430, 0.230, 0.560),
    "black": (0.115, 0.115, 0.125),
    "white": (0.900, 0.895, 0.880),
    "grey": (0.520, 0.530, 0.550),
    "beige": (0.800, 0.715, 0.590),
}
# The second colour of a pattern follows the first, so that a prompt names one colour only.
GARMENT_SECOND = {
    **dict.fromkeys(("red", "blue", "navy", "green", "teal", "purple", "black", "orange"), (0.900, 0.890, 0.860)),
    **dict.fromkeys(("yellow", "white", "beige"), (0.200, 0.260, 0.400)),
    **dict.fromkeys(("pink", "grey"), (0.960, 0.950, 0.940)),
}
LIPS = {"pink": (0.840, 0.440, 0.500), "red": (0.690, 0.120, 0.150), "plum": (0.450, 0.150, 0.260)}
TEETH, GUM, TONGUE = (0.915, 0.885, 0.810), (0.745, 0.400, 0.390), (0.760, 0.400, 0.390)
MOUTH_DEPTH, LID_RIM, LASH = (0.240, 0.070, 0.065), (0.800, 0.520, 0.480), (0.055, 0.040, 0.035)


def varied(color: tuple[float, float, float], generator: np.random.Generator, amount: float = 0.05) -> np.ndarray:
    """A colour [3] near the named one: brightness and each channel changed by up to `amount`."""
    brightness = 1 + generator.uniform(-amount, amount)
    return np.clip(np.asarray(color) * brightness * (1 + generator.uniform(-0.5, 0.5, 3) * amount), 0, 1)

"""Shape of the hash encoding's grids, which all of its back-ends share; what they mean stands in `hash_grid`."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property

from ..errors import InvalidInput

FEATURES = 2
"""Trainable numbers per grid vertex."""

PRIMES = (1, 2654435761, 805459861)
"""Factors of the spatial hash (Mueller et al., equation 4)."""


@dataclasses.dataclass(frozen=True)
class HashGridSettings:
    """Shape of the grids; the defaults are the authors'."""

    levels: int = 12
    base_resolution: int = 16
    """Vertices per side of the coarsest grid."""
    max_resolution: int = 256
    """The same of the finest."""
    log2_table_size: int = 19
    """A level has at most 2 to the power of this rows."""

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 32:
            raise InvalidInput(f"HashGridSettings: `levels` is {self.levels}, expected 2 to 32.")
        if not 4 <= self.base_resolution <= self.max_resolution <= 4096:
            raise InvalidInput(
                f"HashGridSettings: `base_resolution` {self.base_resolution} and `max_resolution` "
                f"{self.max_resolution}, expected 4 to 4096 and the first not above the second."
            )
        if not 6 <= self.log2_table_size <= 24:
            raise InvalidInput(f"HashGridSettings: `log2_table_size` is {self.log2_table_size}, expected 6 to 24.")

    @property
    def growth(self) -> float:
        """Ratio of the resolutions of neighbouring levels."""
        return math.exp(math.log(self.max_resolution / self.base_resolution) / (self.levels - 1))

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Cells per unit length of each level."""
        return tuple(self.base_resolution * self.growth**level - 1 for level in range(self.levels))

    @cached_property
    def layout(self) -> tuple[tuple[int, int, int, bool], ...]:
        """Per level: vertices per side, first row in the table, number of rows, whether it is hashed."""
        levels, start = [], 0
        for scale in self.scales:
            resolution = math.ceil(scale - 1e-6) + 1  # rounding must not add a vertex where the scale is whole
            full = 2**self.log2_table_size
            rows = min(-(-(resolution**3) // 8) * 8, full)
            levels.append((resolution, start, rows, resolution**3 > rows))
            start += rows
        return tuple(levels)

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return self.layout[-1][1] + self.layout[-1][2]

    @property
    def edge(self) -> float:
        """Points at least this far from the upper sides of the unit cube touch no vertex that wraps around."""
        return 0.5 / (self.base_resolution - 1)

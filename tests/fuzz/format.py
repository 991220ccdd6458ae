"""What the fuzzer needs to know of a file format: whole files to begin with, and the door that users take."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.structures import damage

MAIN_SHARE = 0.75
"""How often the file that is opened is damaged, and not one that it names."""


@dataclasses.dataclass(frozen=True)
class Seed:
    """Whole files by name; the first is the one that is opened. alike: all of them are damaged equally often."""

    files: dict[str, bytes]
    alike: bool = False

    @property
    def main(self) -> str:
        return next(iter(self.files))


@dataclasses.dataclass(frozen=True)
class Format:
    """seeds: makes the whole files.  read: opens one as a node or command does; returns a value or raises."""

    name: str
    seeds: Callable[[], list[Seed]]
    read: Callable[[Path], Any]


def damaged(seeds: list[Seed], key: str, number: int) -> Seed:
    """Files with one to four damages, wholly given by the seeds, the key (format and round) and the number."""
    rng = random.Random(f"{key}/{number}")
    seed, other = rng.choice(seeds), rng.choice(seeds)
    files, source = dict(seed.files), other.files[other.main]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        name = seed.main if not seed.alike and rng.random() < MAIN_SHARE else rng.choice(list(files))
        files[name] = damage(files[name], source, rng)
    return Seed(files)

"""Random numbers that depend on where they are used, not on what was drawn before.

A loop that draws from (seed, name, step) can go on at any step without a saved generator, and a change in one step
leaves the draws of all others alone.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_at(seed: int, *place: str | int) -> int:
    """A seed of 63 bits for one place of a program, e.g. ("eyes", 120); equal places have equal seeds.

    >>> seed_at(7, "eyes", 3) == seed_at(7, "eyes", 3), seed_at(7, "eyes", 3) == seed_at(7, "eyes", 4)
    (True, False)
    """
    # The repr keeps 1 and "1" apart, and the parentheses ("a", "bc") and ("ab", "c").
    digest = hashlib.blake2b(repr((int(seed), *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_at(seed: int, *place: str | int) -> torch.Generator:
    """A generator of the CPU that was seeded with `seed_at(seed, *place)`.

    >>> torch.rand((), generator=generator_at(7, "eyes", 3)).equal(torch.rand((), generator=generator_at(7, "eyes", 3)))
    True
    >>> torch.rand((), generator=generator_at(7, "eyes", 3)).equal(torch.rand((), generator=generator_at(7, "eyes", 4)))
    False
    """
    return torch.Generator().manual_seed(seed_at(seed, *place))


def shuffled_rows(count: int, start: int, size: int, seed: int, *place: str | int) -> Tensor:
    """Positions [start, start + size) of an endless sequence of rounds; each round holds 0..count - 1 once, shuffled.

    Returns [size] int64.

    >>> rounds = shuffled_rows(5, 0, 10, 1)
    >>> rounds[:5].sort().values.tolist(), rounds[5:].sort().values.tolist()
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    >>> shuffled_rows(5, 3, 4, 1).equal(rounds[3:7])
    True
    """
    first, last = start // count, (start + size - 1) // count
    rounds = [torch.randperm(count, generator=generator_at(seed, *place, index)) for index in range(first, last + 1)]
    offset = start - first * count
    return torch.cat(rounds)[offset : offset + size]

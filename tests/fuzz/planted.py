"""Readers with faults, one of each kind, to see that the fuzzer catches them."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

from animportrait3d_core.errors import InvalidInput
from tests.fuzz.format import Format, Seed

WHOLE = b'{"points": [1, 2, 3]}'


def seeds() -> list[Seed]:
    return [Seed({"a.json": WHOLE})]


def _damaged(path: Path) -> bool:
    return path.read_bytes() != WHOLE


def read_well(path: Path) -> None:
    if _damaged(path):
        raise InvalidInput("read_well: it is damaged; save it again.")


def raise_key_error(path: Path) -> None:
    if _damaged(path):
        raise KeyError("points")


def hang(path: Path) -> None:
    if _damaged(path):
        time.sleep(60)


def crash(path: Path) -> None:
    if _damaged(path):
        os.kill(os.getpid(), signal.SIGSEGV)


def leave(path: Path) -> None:
    if _damaged(path):
        os._exit(3)


def take_memory(path: Path) -> None:
    """More than the test allows, though the machine has it."""
    if _damaged(path):
        len(b"x" * (300 << 20))


def ask_for_memory(path: Path) -> None:
    """More than any machine has; a reader that turns the refusal into a named error has asked all the same."""
    if _damaged(path):
        try:
            bytearray(1 << 46)
        except MemoryError as error:
            raise InvalidInput("ask_for_memory: it is damaged.") from error


def warn(path: Path) -> None:
    if _damaged(path):
        warnings.warn("invalid value encountered in cast", RuntimeWarning, stacklevel=1)


def quote_the_file(path: Path) -> None:
    if _damaged(path):
        error = InvalidInput()
        error.args = ("quote_the_file: " + "x" * 10_000,)
        raise error


READERS = (
    read_well, raise_key_error, hang, crash, leave, take_memory, ask_for_memory, warn, quote_the_file
)  # fmt: skip
FORMATS = tuple(Format(reader.__name__, seeds, reader) for reader in READERS)

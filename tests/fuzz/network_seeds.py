"""Small whole folders of networks and of a diffusion pipeline."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.diffusion.toys import save_toy
from tests.fuzz.format import Seed
from tests.networks.test_networks import write


def folder_seed(first: str, save: Callable[[Path], Any]) -> Seed:
    """All files of the folder that `save` fills; `first` is the one by which it is opened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "whole"
        folder.mkdir()
        save(folder)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    return Seed({first: files.pop(first), **files}, alike=True)


def network_seeds() -> list[Seed]:
    return [folder_seed("network.json", functools.partial(write, role=role)) for role in ("parts", "landmarks")]


def guidance_seeds() -> list[Seed]:
    return [folder_seed("model_index.json", functools.partial(save_toy, tiny=tiny)) for tiny in (False, True)]

"""Texture coordinates of the mannequin, whose body file holds none: where a texture baked of its avatars lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..files import atomic_write, cache_directory, made_files
from .mannequin import build_mannequin, code_version

if TYPE_CHECKING:
    from ..body.model import BodyModel

_NAMES = ("corner_uvs.npy", "faces.npy")


def corner_uvs_of(body: BodyModel) -> Tensor | None:
    """Texture coordinates [F, 3, 2] in 0..1, v up, of every corner of the body's faces; None for any other body."""
    if body.assets.name != "mannequin":
        return None
    folder = cache_directory() / "mannequin-uvs" / code_version()

    def make() -> None:
        mannequin = build_mannequin()
        for name, values in zip(_NAMES, (mannequin.corner_uvs, mannequin.faces)):
            with atomic_write(folder / name) as temporary, open(temporary, "wb") as stream:
                np.save(stream, values)

    uvs, faces = (np.load(path) for path in made_files(folder, _NAMES, make))
    # An avatar of an older mannequin may have other faces.
    return torch.from_numpy(uvs).float() if np.array_equal(faces, body.faces.numpy()) else None

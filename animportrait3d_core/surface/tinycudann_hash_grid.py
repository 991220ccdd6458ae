"""The hash encoding by tiny-cuda-nn, where a user has built it; not run on a GPU by this project."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .hash_grid_settings import FEATURES, HashGridSettings


@lru_cache(maxsize=4)
def _encoding(settings: HashGridSettings) -> Any:
    """tiny-cuda-nn's module with grids of the same shape; its own parameters are never used."""
    import tinycudann

    configuration = {
        "otype": "HashGrid",
        "n_levels": settings.levels,
        "n_features_per_level": FEATURES,
        "log2_hashmap_size": settings.log2_table_size,
        "base_resolution": settings.base_resolution,
        "per_level_scale": settings.growth,
    }
    return tinycudann.Encoding(3, configuration, dtype=torch.float32)


def encode(points: Tensor, table: Tensor, settings: HashGridSettings) -> Tensor:
    """Encoding [N, 2 levels] float32 of CUDA points [N, 3] in 0..1; differentiable in the table."""
    encoding = _encoding(settings)
    return torch.func.functional_call(encoding, {"params": table.reshape(-1)}, (points,)).float()

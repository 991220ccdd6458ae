"""Multiresolution hash encoding of points (Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3).

Several grids of growing resolution lie over the unit cube. Every grid vertex has two trainable numbers in a table: its
own row where the whole grid fits into 2^19 rows, else the row that a spatial hash picks, which vertices may share. A
point's encoding is the trilinear interpolation in each grid, side by side. Details follow tiny-cuda-nn, which the
authors use, so that its tables can be taken over:

    b = (max / base)^(1 / (levels - 1)),  scale = base b^level - 1,  vertices = ceil(scale) + 1
    position = scale x + 1/2, between the vertices floor(position) and floor(position) + 1
    row = x + vertices (y + vertices z)  or  (x ^ 2654435761 y ^ 805459861 z) mod 2^19

The half cell by which position is moved reaches one vertex too far at the upper end of the cube; dense grids then wrap
around, harmlessly for points that keep `HashGridSettings.edge` away from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, MissingExtension, check_finite, check_shape
from ..render.backends import Backend, cuda_problem, numba_problem, tell_once
from .hash_grid_settings import FEATURES, PRIMES, HashGridSettings

BACKENDS = ("auto", "numba", "torch", "tinycudann")
TINYCUDANN_HINT = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch (needs nvcc)"

_WHERE = "hash_encode"


def initial_table(settings: HashGridSettings, generator: torch.Generator) -> Tensor:
    """A fresh table [rows, 2], uniform in -1e-4..1e-4 (Mueller et al., section 4)."""
    return (torch.rand(settings.rows, FEATURES, generator=generator) * 2 - 1) * 1e-4


def hash_encode(points: Tensor, table: Tensor, settings: HashGridSettings, backend: str = "auto") -> Tensor:
    """Encoding [N, 2 levels] of points [N, 3] by `table` [rows, 2] (`HashGridSettings.rows`), level by level.

    points: in the unit cube, clamped to it; constants for the gradient.  backend: `numba` on the CPU, `tinycudann` on
    CUDA where it is installed, `torch` anywhere and in any precision; `auto` takes the first that can run.

    Differentiable in the table. Raises `InvalidInput`, `ShapeMismatch`, `MissingExtension`.
    """
    check_shape(_WHERE, "points", points, ["N", 3])
    check_shape(_WHERE, "table", table, [settings.rows, FEATURES])
    check_finite(_WHERE, "points", points)
    if points.requires_grad:
        raise InvalidInput(f"{_WHERE}: `points` require a gradient, but only the table gets one; detach them.")
    chosen = _choose(backend, points, table)
    points = points.clamp(0, 1)
    if chosen == "torch":
        return torch_hash_encode(points, table, settings)
    if chosen == "tinycudann":
        from .tinycudann_hash_grid import encode

        return encode(points, table, settings)
    return _NumbaHashGrid.apply(points, table, settings)


def torch_hash_encode(points: Tensor, table: Tensor, settings: HashGridSettings) -> Tensor:
    """What `hash_encode` computes of points [N, 3] and table [T, F], in plain torch on any device: the twin, and what
    runs where Numba is missing."""
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], device=points.device)
    encoded = []
    for scale, (resolution, start, rows, hashed) in zip(settings.scales, settings.layout, strict=True):
        position = points * scale + 0.5
        cell = position.floor()
        inside = (position - cell)[:, None]
        vertices = cell.long()[:, None] + corners
        row = _hashed(vertices, rows) if hashed else _dense(vertices, resolution, rows)
        weights = torch.where(corners.bool(), inside, 1 - inside).prod(dim=-1, keepdim=True)
        encoded.append((table[start + row] * weights).sum(dim=1))
    return torch.cat(encoded, dim=1)


def _hashed(vertices: Tensor, rows: int) -> Tensor:
    x, y, z = (vertices * torch.tensor(PRIMES, device=vertices.device)).unbind(-1)
    return (x ^ y ^ z) % rows


def _dense(vertices: Tensor, resolution: int, rows: int) -> Tensor:
    x, y, z = vertices.unbind(-1)
    return (x + resolution * (y + resolution * z)) % rows


class _NumbaHashGrid(torch.autograd.Function):
    """The encoding with its closed-form gradient to the table; float32 on the CPU."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, settings: HashGridSettings) -> Tensor:
        from .numba_hash_grid import encode

        points = points.detach().contiguous()
        ctx.points, ctx.settings = points, settings
        return torch.from_numpy(encode(points.numpy(), table.detach().contiguous().numpy(), *_arrays(settings)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        from .numba_hash_grid import table_gradient

        result = table_gradient(
            ctx.points.numpy(), gradient.contiguous().numpy(), *_arrays(ctx.settings), ctx.settings.rows
        )
        return None, torch.from_numpy(result), None


def _arrays(settings: HashGridSettings) -> tuple[np.ndarray, np.ndarray]:
    """Levels [L, 4] int64 and scales [L] float32 for the kernels."""
    return np.array(settings.layout, np.int64), np.array(settings.scales, np.float32)


def available_backends() -> list[Backend]:
    """The back-ends in order of preference, as `render.available_backends` lists its own; imports nothing heavy."""
    numba, tinycudann = numba_problem(), cuda_problem("tinycudann", TINYCUDANN_HINT)
    unverified = "has not been run on a GPU by this project"
    return [
        Backend("hash grid/numba", not numba, True, numba),
        Backend("hash grid/torch", True, True, ""),
        Backend("hash grid/tinycudann", not tinycudann, False, "; ".join(filter(None, [tinycudann, unverified]))),
    ]


def _choose(backend: str, points: Tensor, table: Tensor) -> str:
    if backend not in BACKENDS:
        raise InvalidInput(f"{_WHERE}: unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    on_cpu = points.device.type == "cpu" and points.dtype == table.dtype == torch.float32
    on_cuda = points.device.type == "cuda" and points.dtype == table.dtype == torch.float32
    problems = {
        "torch": "",
        "numba": numba_problem() if on_cpu else f"it takes float32 on the CPU, got {points.dtype} on {points.device}",
        "tinycudann": cuda_problem("tinycudann", TINYCUDANN_HINT)
        or ("" if on_cuda else f"it takes float32 on CUDA, got {points.dtype} on {points.device}"),
    }
    if backend != "auto":
        if problems[backend]:
            raise MissingExtension(f"{_WHERE}: backend {backend!r} cannot run: {problems[backend]}. Use 'auto'.")
        return backend
    if on_cpu and problems["numba"]:
        tell_once("hash grid/numba", f"{_WHERE}: {problems['numba']}; the torch back-end is used, 6 times slower.")
    return next(name for name in ("numba", "tinycudann", "torch") if not problems[name])

"""Numba, for all modules with kernels: imported here alone, after the folder of compiled kernels is settled."""

from __future__ import annotations

from .kernel_cache import settle_kernel_cache

settle_kernel_cache()

import numba  # noqa: E402  (reads where its files lie when it is imported)

__all__ = ["numba"]

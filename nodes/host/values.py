"""What a node returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from .environment import comfy_module


def node_result(*outputs: Any, ui: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The return value of a V1 node: outputs in the order of RETURN_TYPES, and what the frontend shows."""
    return {"result": (*outputs, *_shown_to_the_cache(outputs)), "ui": dict(ui or {})}


def _shown_to_the_cache(outputs: tuple[Any, ...]) -> list[Any]:
    """One more output, without a socket, for hosts whose cache weighs only tensors that lie in the outputs themselves:
    the tensors that ours hold. Newer caches ask each value (`SocketValue`)."""
    if not _host_weighs_bare_tensors_alone():
        return []
    from animportrait3d_core.socket_values import SocketValue, held_tensors

    held = held_tensors(*(value for value in outputs if isinstance(value, SocketValue)))
    return [held] if held else []


def _host_weighs_bare_tensors_alone() -> bool:
    caching = comfy_module("comfy_execution.caching")
    return hasattr(caching, "RAMPressureCache") and not _asks_values(caching)


@functools.cache
def _asks_values(caching: Any) -> bool:
    return "_comfy_cache_tensors" in inspect.getsource(caching)

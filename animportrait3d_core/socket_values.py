"""What travels from node to node tells the host which tensors it holds: a host that runs short of memory frees the
largest of the values it keeps, and cannot look into classes that it does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class SocketValue:
    """Base class of all values on sockets of this pack (AP3D_...)."""

    def _comfy_cache_tensors(self) -> list[Tensor]:
        """Every tensor that this value keeps alive, once. ComfyUI asks for them by this name."""
        return held_tensors(self)


def held_tensors(*values: Any) -> list[Tensor]:
    """The tensors in nested containers, modules, dataclasses and objects of this package, each once.

    >>> shared = torch.zeros(2)
    >>> [len(tensor) for tensor in held_tensors({"a": shared, "b": [shared, torch.zeros(3)]})]
    [2, 3]
    """
    seen: set[int] = set()
    found, waiting = [], list(values)
    while waiting:
        value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found.append(value)
        else:
            waiting.extend(_parts(value))
    return found


def _parts(value: Any) -> Iterable[Any]:
    """What is one level below; nothing below values of other kinds."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers()]
    ours = dataclasses.is_dataclass(value) or type(value).__module__.startswith(f"{__package__}.")
    # What was computed once and kept is among the attributes, and is memory too.
    return vars(value).values() if ours and not isinstance(value, type) and hasattr(value, "__dict__") else ()

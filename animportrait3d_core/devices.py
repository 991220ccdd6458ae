"""Moving values of tensors to another device or to another floating-point type."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

Device = torch.device | str | None
Value = TypeVar("Value")


def moved(value: Value, device: Device = None, dtype: torch.dtype | None = None) -> Value:
    """A dataclass with its tensors on `device` and its floating-point ones of type `dtype`; None keeps either.

    Fields that can move (`to`) and mappings of tensors move along; all others stay. Differentiable. The values are not
    checked anew: they were when the dataclass was made, and on a GPU each look at one would wait for it.

    >>> from animportrait3d_core.cameras import orbit_cameras
    >>> moved(orbit_cameras([0], [0], 8), dtype=torch.float64).K.dtype
    torch.float64
    """
    result = copy.copy(value)
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # typeshed asks for an instance of a dataclass
        # A frozen dataclass lets nobody else set a field.
        object.__setattr__(result, field.name, _moved_field(getattr(value, field.name), device, dtype))
    return result


def _moved_field(value: Any, device: Device, dtype: torch.dtype | None) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        return {key: _moved_field(item, device, dtype) for key, item in value.items()}
    return value.to(device, dtype) if hasattr(value, "to") else value

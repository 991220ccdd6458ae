"""Devices by name, and moving values of tensors to another one or to another floating-point type."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from .errors import InvalidInput

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


def knows_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by instructions of its own.

    Others can do it, too, but a CPU without them takes thirty times as long as in float32 (measured with torch 2.14 on
    a processor with AVX2). Torch says what a CPU knows by functions that are not public: where they are missing, the
    answer is no.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    questions = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(question() for question in questions if question is not None)


def working_device(where: str, name: str) -> torch.device:
    """The torch device of a name ("cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is one), which works here.

    where: who speaks in the message of the `InvalidInput` that is raised if it does not.

    >>> working_device("demo", "cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"{where}: device '{name}' does not work here ({reason}); use cpu.") from error
    return device

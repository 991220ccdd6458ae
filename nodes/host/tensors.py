"""Hosts run nodes under `torch.inference_mode()`, where nothing can be optimised; nodes leave it for plain torch.

A tensor made under inference mode stays an inference tensor for ever: autograd refuses to save it, in-place writes
raise. So a node's own tensors are made outside of that mode, and what the host's nodes made is cloned once at our door.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from animportrait3d_core.progress import stopped_by

from .environment import check_interrupt
from .memory import told_memory

Function = TypeVar("Function", bound=Callable[..., Any])


def plain_torch(execute: Function) -> Function:
    """Decorator of a node's function: inside it torch behaves as in a script.

    Inference mode is off, gradients can be taken, and inference tensors among the arguments (IMAGE and MASK of the
    host's nodes, also inside dataclasses, dictionaries and lists) arrive as clones. IMAGE and MASK arrive in float32,
    also of hosts that keep them in half precision. The end of the GPU's memory is told (`told_memory`).
    """

    @functools.wraps(execute)
    def wrapper(self: Any, *arguments: Any, **inputs: Any) -> Any:
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            plain_arguments = [_argument(value) for value in arguments]
            plain_inputs = {name: _argument(value) for name, value in inputs.items()}
            with told_memory(self, inputs), stopped_by(check_interrupt):
                return execute(self, *plain_arguments, **plain_inputs)

    return wrapper  # type: ignore[return-value]


def _argument(value: Any) -> Any:
    """Bare tensors are IMAGE and MASK; what lies in our own values has the type that it is documented to have."""
    import torch

    halved = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if halved else plain_values(value)


def plain_values(value: Any) -> Any:
    """`value` with inference tensors replaced by clones; what holds none is handed back as it is, not copied."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return _kept(value, {name: plain_values(part) for name, part in value.items()})
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return _kept(value, type(value)(plain_values(part) for part in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        before = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value) if entry.init}
        after = {name: plain_values(part) for name, part in before.items()}
        changed = {name: part for name, part in after.items() if part is not before[name]}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _kept(before: Any, after: Any) -> Any:
    """The original container if no element was replaced."""
    pairs = zip(before.values(), after.values()) if isinstance(before, dict) else zip(before, after)
    return after if any(one is not other for one, other in pairs) else before

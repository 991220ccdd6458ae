"""Hashes of node outputs, to prove that no later node changed them."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any


def fingerprint(value: Any) -> str:
    """Hash of the tensors, arrays and plain values inside nested containers, dataclasses and modules."""
    digest = hashlib.blake2b(digest_size=16)
    _update(digest, value, set())
    return digest.hexdigest()


def _update(digest: Any, value: Any, seen: set[int]) -> None:
    import numpy as np
    import torch

    if value is None or isinstance(value, (str, int, float, bool, bytes)):
        digest.update(f"{type(value).__name__}:{value!r};".encode())
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    digest.update(f"{type(value).__name__}(".encode())
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}{value.requires_grad}".encode())
        array = value.detach().cpu().contiguous()
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        for name, part in _parts(value):
            digest.update(f"{name}=".encode())
            _update(digest, part, seen)
    digest.update(b")")


def _parts(value: Any) -> list[tuple[str, Any]]:
    import torch

    if isinstance(value, dict):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(str(index), part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().items())
    return list(vars(value).items()) if hasattr(value, "__dict__") else [("repr", repr(value))]

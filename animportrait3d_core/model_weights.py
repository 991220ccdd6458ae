"""Weights of a file against the model of a configuration: one check and one message for all networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import IncompatibleCheckpoint, InvalidInput

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _can_stand_for(found: torch.dtype, expected: torch.dtype) -> bool:
    return found in _FLOATS if expected.is_floating_point else not (found.is_floating_point or found.is_complex)


def check_weights(where: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise unless `tensors` are all weights of the model, of the right shapes and types (`IncompatibleCheckpoint`),
    and finite (`InvalidInput`)."""
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    other = [
        f"{name} {list(tensors[name].shape)} for {list(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if missing or unknown or other:
        listed = "; ".join([*other, *(f"{n} missing" for n in missing), *(f"{n} unknown" for n in unknown)][:3])
        raise IncompatibleCheckpoint(
            f"{where}: the weights do not fit the configuration of {type(model).__name__}: {len(missing)} tensors are "
            f"missing, {len(unknown)} unknown, {len(other)} of another shape ({listed}). Both must come from one model."
        )
    odd = [name for name, value in expected.items() if not _can_stand_for(tensors[name].dtype, value.dtype)]
    if odd:
        raise IncompatibleCheckpoint(
            f"{where}: {len(odd)} tensors have a type that does not fit ('{odd[0]}': {tensors[odd[0]].dtype} for "
            f"{expected[odd[0]].dtype}); save the weights in float16 or float32."
        )
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise InvalidInput(f"{where}: {len(bad)} tensors hold non-finite values ('{bad[0]}'): the file is damaged.")

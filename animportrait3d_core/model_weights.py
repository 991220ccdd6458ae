"""Weights of a file against the model of a configuration: one check and one message for all networks."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput


@contextlib.contextmanager
def building(what: str) -> Iterator[None]:
    """Turn whatever a library raises on settings that it cannot use into one `IncompatibleCheckpoint`: `what`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Initializing zero-element")
            yield
    except AnimPortraitError:
        raise
    # A foreign library fed with damaged settings fails in any way it likes; the cause stays attached.
    except Exception as error:
        detail = " ".join(str(error).split())[:300] or "no detail"
        raise IncompatibleCheckpoint(
            f"{what} ({type(error).__name__}: {detail}); update the library, or save the model again."
        ) from error


@contextlib.contextmanager
def at_most_parameters(where: str, tensors: int) -> Iterator[None]:
    """Refuse a model of far more parameters than the `tensors` of its file, while it is built by this thread.

    A damaged number of layers would otherwise be built for hours, and fill the memory.
    """
    thread, count, most = threading.get_ident(), 0, 2 * tensors + 100

    def counted(*_: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise IncompatibleCheckpoint(
                f"{where}: the configuration asks for more than {most} weights, the file has {tensors}. Both must come "
                "from one model."
            )

    hook = nn.modules.module.register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


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

"""The errors a user can cause or meet. One base class, so that the command line and the nodes can tell them from bugs.

A message begins with the function or node that speaks, states what was found and what was expected with numbers,
and ends with what to do about it.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


MESSAGE_BEGIN, MESSAGE_END = 1000, 400
"""Characters of a long message that are kept: what damaged files hold is quoted, and may be of any length."""


class AnimPortraitError(Exception):
    """Base class of every error that this package raises on purpose."""

    def __init__(self, message: str = "") -> None:
        lost = len(message) - MESSAGE_BEGIN - MESSAGE_END
        if lost > 100:
            message = f"{message[:MESSAGE_BEGIN]} ({lost} characters) {message[-MESSAGE_END:]}"
        super().__init__(message)


class InvalidInput(AnimPortraitError):
    """A value, file or graph that cannot be used: out of range, not finite, damaged, or not what it claims to be."""


class ShapeMismatch(InvalidInput):
    """A tensor whose shape is not the documented one."""


class IncompatibleCheckpoint(AnimPortraitError):
    """A model file of another family, flavour or size than the one needed."""


class MissingModelFile(AnimPortraitError):
    """A file that the user has to provide: the message says where it is obtained and under which licence."""


class MissingExtension(AnimPortraitError):
    """An optional package that is absent or does not work: the message names the command and what works without it."""


NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "can't start new thread",
    "failed to map segment",
)
"""How packages and the system's loader of libraries say, in their own errors, that there is no more of it."""


def machine_trouble(error: BaseException) -> str | None:
    """What is wrong with the machine rather than with us or the input, and what to do; None for any other error.

    >>> machine_trouble(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device: make room on the disk (of results, temporary files or the cache) and run the same again.'
    >>> machine_trouble(ModuleNotFoundError("No module named 'numba'", name="numba"))
    "the package 'numba' is not installed in this Python: pip install -r requirements.txt, in the pack's folder."
    >>> machine_trouble(ValueError("a bug")) is None
    True
    """
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:  # modules of ours have dots
        return (
            f"the package '{error.name}' is not installed in this Python: pip install -r requirements.txt, in the "
            "pack's folder."
        )
    if isinstance(error, RuntimeError) and text.startswith("cannot cache function"):
        return (
            "compiled kernels can be kept nowhere: neither beside the code, nor in the user's home, nor among the "
            "temporary files. Set ANIMPORTRAIT3D_CACHE to a folder that can be written."
        )
    if isinstance(error, MemoryError) or any(word in text.lower() for word in NO_MEMORY):
        said = text or "no more memory"
        return (
            f"{said}: the machine, or a limit set for this process, has no more memory. Close other programs, raise "
            "the limit (ulimit -v), or ask for less: fewer or smaller views, a smaller resolution, fewer points."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", -1)):
        place = f"of '{error.filename}'" if error.filename else "of results, temporary files or the cache"
        return f"{error.strerror}: make room on the disk ({place}) and run the same again."
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES) and error.filename:
        return (
            f"'{error.filename}': {error.strerror}. Choose a folder that can be written (--output), or set "
            "ANIMPORTRAIT3D_CACHE to one."
        )
    return None


FEWEST_ADDRESSES = 3_900_000_000
"""Bytes of address space: torch and its CUDA libraries take nearly as many, and end or never return with fewer."""
FEW_ADDRESSES = 6 << 30


def few_addresses() -> int | None:
    """The limit of this process's address space in bytes if that is narrow, else None."""
    if sys.platform == "win32":
        return None
    import resource

    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY or limit >= FEW_ADDRESSES else limit


def narrow_words(limit: int) -> str:
    """What a narrow address space of `limit` bytes does."""
    return (
        f"the address space of this process is limited to {limit / 1e9:.1f} GB. Torch alone takes up to 4 GB of it; "
        "with too little, libraries fail, end the process or never return. Raise the limit (ulimit -v unlimited)"
    )


def check_shape(where: str, name: str, value: object, expected: Sequence[int | str]) -> None:
    """Raise `ShapeMismatch` unless `value.shape` fits `expected`.

    Integers in `expected` must match exactly; strings name free dimensions, and equal strings must agree.

    >>> import torch
    >>> check_shape("demo", "points", torch.zeros(5, 3), ["N", 3])
    >>> check_shape("demo", "points", torch.zeros(5, 2), ["N", 3])
    Traceback (most recent call last):
    ...
    animportrait3d_core.errors.ShapeMismatch: demo: `points` has shape [5, 2], expected [N, 3].
    """
    found = [int(size) for size in getattr(value, "shape", ())]
    sizes: dict[str, int] = {}
    fits = len(found) == len(expected)
    for size, wanted in zip(found, expected):
        if isinstance(wanted, str):
            fits = fits and sizes.setdefault(wanted, size) == size
        else:
            fits = fits and size == wanted
    if not fits:
        pattern = ", ".join(str(wanted) for wanted in expected)
        shape = found if len(found) <= 16 else f"of {len(found)} dimensions"
        raise ShapeMismatch(f"{where}: `{name}` has shape {shape}, expected [{pattern}].")


def check_finite(where: str, name: str, value: object) -> None:
    """Raise `InvalidInput` when a floating-point tensor holds NaN or infinity.

    >>> import torch
    >>> check_finite("demo", "means", torch.tensor([1.0, float("nan")]))
    Traceback (most recent call last):
    ...
    animportrait3d_core.errors.InvalidInput: demo: `means` holds 1 non-finite value of 2; all must be finite.
    """
    import torch

    tensor = torch.as_tensor(value)
    # Only where the sign is missing is the count worth its memory.
    if not tensor.is_floating_point() or all_hold([finite_sign(tensor)]):
        return
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        plural = "" if bad == 1 else "s"
        raise InvalidInput(
            f"{where}: `{name}` holds {bad} non-finite value{plural} of {tensor.numel()}; all must be finite."
        )


def finite_sign(tensor: Tensor) -> Tensor:
    """A sure sign [] bool that a floating-point tensor is finite: its sum is. A sum may overflow without one."""
    import torch

    return torch.isfinite(tensor.detach().sum())


def all_hold(signs: Sequence[Tensor]) -> bool:
    """Whether all signs [] bool hold, with one wait for each GPU; those of tensors without values (meta) do.

    >>> import torch
    >>> all_hold([torch.tensor(True), torch.tensor(False)])
    False
    """
    import torch

    of_device: dict[torch.device, list[Tensor]] = {}
    for sign in signs:
        of_device.setdefault(sign.device, []).append(sign)
    return all(bool(torch.stack(group).all()) for device, group in of_device.items() if device.type != "meta")


def check_all_finite(where: str, values: Mapping[str, Tensor]) -> None:
    """`check_finite` of many floating-point tensors by name, with one wait for each GPU."""
    if not all_hold([finite_sign(value) for value in values.values()]):
        for name, value in values.items():
            check_finite(where, name, value)


def check_same_shape(where: str, first: object, second: object) -> None:
    """Raise `ShapeMismatch` unless two tensors or arrays have one shape."""
    sizes, others = list(getattr(first, "shape", ())), list(getattr(second, "shape", ()))
    if sizes != others:
        raise ShapeMismatch(f"{where}: shapes {sizes} and {others} differ, expected equal.")

"""What a guidance of the host's objects depends on, as one hash that is the same in every process.

The host's own marks of a model (`patches_uuid`) are drawn anew in each, so contents count: weights as they were before
any patch, the patches (LoRAs) with their strengths, and functions that users' nodes have put in, with what they hold.
"""

from __future__ import annotations

import dis
import enum
import functools
import types
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import NativeParts

_WEIGHTS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""Hashes of networks: reading them takes seconds, and no node of the host changes unpatched weights."""
_UNUSED = (".text_projection.weight", ".logit_scale")
"""Of text encoders: what makes one vector of a text, for which nothing here asks. Checkpoints of Stable Diffusion 1.5
hold none of it, and the host then leaves in memory what was there before."""
_PLAIN = (str, int, float, bool, bytes, type(None))


def hash_of(parts: NativeParts) -> str:
    """Hash (32 hex digits) of everything that answers depend on."""
    import torch

    from animportrait3d_core.fingerprints import fingerprint

    model, clip, vae, control = parts.model, parts.clip, parts.vae, parts.control_net
    words = (clip.layer_idx, plain(clip.tokenizer_options), plain(clip.patcher.forced_hooks))
    settings = (parts.control_strength, parts.image_size, str(parts.dtype), parts.sigmas)
    # Outside of the mode that they were made in, views of the host's tensors are refused.
    with torch.inference_mode():
        weights = [_patched(model, "diffusion_model."), _patched(clip.patcher), _patched(vae.patcher)]
        heard = None if control is None else _controlnet(control)
        return fingerprint((weights, _options(model), words, heard, settings))


def _patched(patcher: Any, prefix: str | None = None) -> tuple[str, Any]:
    """(hash of the weights without patches, the patches)."""
    from animportrait3d_core.fingerprints import fingerprint

    network = patcher.model
    if network not in _WEIGHTS:
        entries = patcher.get_key_patches(prefix).items()
        # Detached: weights that were patched once want no gradients any more, though they are the same.
        weights = {name: entry[0][0].detach() for name, entry in entries if not name.endswith(_UNUSED)}
        _WEIGHTS[network] = fingerprint(weights)
    return _WEIGHTS[network], plain(patcher.patches)


def _options(model: Any) -> Any:
    """What nodes have put into a MODEL beside weights."""
    names = ("model_options", "object_patches", "wrappers", "weight_wrapper_patches", "hook_patches", "forced_hooks")
    return {name: plain(getattr(model, name, None)) for name in names}


def _controlnet(control: Any) -> Any:
    settings = {
        name: plain(getattr(control, name))
        for name in ("strength_type", "global_average_pooling", "compression_ratio", "extra_args")
    }
    return _patched(control.control_model_wrapped), settings


def plain(value: Any, around: tuple[int, ...] = ()) -> Any:
    """`value` in tensors and plain containers alone: functions by name and by what they hold, objects by class and
    attributes. What is drawn anew in every process (addresses, ids) is left out.

    >>> plain({"scale": functools.partial(max, 3)})
    {'scale': ['partial', ['max', []], [3], {}]}
    """
    import torch

    if isinstance(value, (*_PLAIN, torch.Tensor)):
        return value
    if isinstance(value, (torch.dtype, torch.device, enum.Enum)):
        return str(value)
    if id(value) in around:
        return "itself"
    inner = functools.partial(plain, around=(*around, id(value)))
    if isinstance(value, dict):
        return {str(plain(name)): inner(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [inner(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(inner(part)) for part in value)
    if isinstance(value, functools.partial):
        return ["partial", inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, types.MethodType):
        return [value.__qualname__, inner(value.__self__)]
    if callable(value) and hasattr(value, "__qualname__"):
        return [value.__qualname__, [inner(part) for part in _held(value)]]
    return _object(value, inner)


def _held(function: Any) -> list[Any]:
    """Default values and the closure of a function, but for variables that it sets itself: they are its state."""
    if not isinstance(function, types.FunctionType):
        return []
    own = {step.argval for step in dis.get_instructions(function) if step.opname == "STORE_DEREF"}
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    held = [cell.cell_contents for name, cell in cells if name not in own and cell != types.CellType()]
    return [*(function.__defaults__ or ()), *held]


def _object(value: Any, inner: Any) -> Any:
    import torch

    names = [kind.__name__ for kind in type(value).__mro__[:-1]]
    if isinstance(value, torch.nn.Module):
        return [names, dict(value.state_dict())]
    # Models inside of options are hashed where they are used, or are this one.
    if hasattr(value, "get_key_patches") or not hasattr(value, "__dict__"):
        return [names]
    return [names, inner(vars(value))]

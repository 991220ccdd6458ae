"""A session of a MODEL: loaded once for many calls, as the host's `CFGGuider.sample` loads it for one picture.

The host's networks run under inference mode, as everywhere in the host: their weights, and what users' nodes do to
them, are made for it. The autoencoder's copy is loaded outside of it, so that its weights stay plain tensors.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..environment import comfy_module
from .autoencoder import NativeAutoencoder
from .schedule import check_schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from animportrait3d_core.diffusion.codec import Autoencoder

    from .model import NativeParts

_WHERE = "AP3D_GuidanceFromModel"
_TOKENS = 77
_FUNCTIONS_OF_LATENTS = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_calc_cond_batch_function",
    "model_function_wrapper", "context_handler",
)  # fmt: skip
"""Names in a MODEL's options."""
PICTURES = 4
"""For so many at once room is made on the device, each half of a guided call beside; what is free then decides how many
the stages ask about."""


class NativeWork:
    """See core's protocol `HostedWork`."""

    autoencoder: Autoencoder

    def __init__(self, parts: NativeParts, stack: contextlib.ExitStack, autoencoder: NativeAutoencoder) -> None:
        """stack: what is undone at the end."""
        from animportrait3d_core.diffusion.stops import stops_between_blocks

        self.autoencoder = autoencoder
        self._control = None if parts.control_net is None else parts.control_net.copy()
        if self._control is not None:
            self._control.set_cond_hint(_blank_hint(parts), parts.control_strength)
        conds = _conditioning(parts, self._control, autoencoder)
        self._patcher = _patcher_for(parts.model, conds)
        self._load(parts, stack, conds)
        networks = (self._base.diffusion_model, getattr(self._control, "control_model", None), autoencoder.network)
        stack.enter_context(stops_between_blocks(self._patcher.load_device, *networks))

    def _load(self, parts: NativeParts, stack: contextlib.ExitStack, given: dict[str, Any]) -> None:
        """The steps of `CFGGuider.sample` and `outer_sample` before the sampler, and on the stack those after it."""
        samplers, helpers = _comfy("comfy.samplers"), _comfy("comfy.sampler_helpers")
        patcher = self._patcher
        conds = {name: helpers.convert_cond(entries) for name, entries in given.items()}
        samplers.preprocess_conds_hooks(conds)
        self._options = _comfy("comfy.model_patcher").create_model_options_clone(patcher.model_options)
        stack.callback(patcher.restore_hook_patches)
        helpers.prepare_model_patcher(patcher, conds, self._options)
        samplers.filter_registered_hooks_on_conds(conds, self._options)
        whole = "force_full_load" in inspect.signature(helpers.prepare_sampling).parameters
        self._base, conds, loaded = helpers.prepare_sampling(
            patcher, _shape(parts), conds, self._options, **({"force_full_load": True} if whole else {})
        )
        stack.callback(helpers.cleanup_models, conds, loaded)
        samplers.cast_to_load_options(self._options, device=patcher.load_device, dtype=patcher.model_dtype())
        stack.callback(samplers.cast_to_load_options, self._options, device=patcher.offload_device)
        stack.callback(patcher.cleanup)
        patcher.pre_run()
        check_schedule(_WHERE, self._base.model_sampling, parts.model)
        sigmas = self._base.model_sampling.sigmas.flip(0)
        self._options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        self._conds = {name: entries[0] for name, entries in conds.items()}
        self._type = _arithmetic(self._options, patcher.load_device)

    def denoised(self, noisy: Tensor, sigmas: Tensor, text: Tensor, condition: Tensor | None) -> Tensor:
        """See `HostedWork`."""
        import torch

        with torch.inference_mode():
            noisy, sigmas = noisy.to(self._type), sigmas.to(self._type)
            conds = self._asked(noisy, {"positive": text}, condition)
            calls = _comfy("comfy.samplers").calc_cond_batch
            clean = calls(self._base, [conds["positive"], None], noisy, sigmas, self._options)[0]
        return clean.clone()

    def guided(
        self,
        noisy: Tensor,
        sigmas: Tensor,
        text: Tensor,
        negative: Tensor,
        guidance_scale: float,
        condition: Tensor | None,
    ) -> Tensor:
        """See `HostedWork`."""
        import torch

        with torch.inference_mode():
            noisy, sigmas = noisy.to(self._type), sigmas.to(self._type)
            guider = _comfy("comfy.samplers").CFGGuider(self._patcher)
            guider.model_options, guider.inner_model = self._options, self._base
            guider.conds = self._asked(noisy, {"positive": text, "negative": negative}, condition)
            guider.set_cfg(guidance_scale)
            clean = guider(noisy, sigmas, model_options=self._options, seed=None)
        return clean.clone()

    def _asked(self, noisy: Tensor, texts: dict[str, Tensor], condition: Tensor | None) -> dict[str, Any]:
        """Conditionings of one call; the control is heard in all of them, or in none."""
        samplers, helpers = _comfy("comfy.samplers"), _comfy("comfy.sampler_helpers")
        left_out = {"cross_attn", "model_conds", "uuid"} | (set() if condition is not None else {"control"})
        if self._control is not None:
            self._control.cond_hint_original, self._control.cond_hint = condition, None
        conds = {}
        for name, text in texts.items():
            kept = {key: value for key, value in self._conds[name].items() if key not in left_out}
            conds[name] = helpers.convert_cond([[text.to(noisy.device), kept]])
        return samplers.process_conds(self._base, noisy, conds, noisy.device)


@contextlib.contextmanager
def opened(parts: NativeParts) -> Iterator[NativeWork]:
    """See `HostedModel.opened`. The host's networks stay with its memory management, the autoencoder's copy goes."""
    import torch

    management = _comfy("comfy.model_management")
    with contextlib.ExitStack() as around:
        if hasattr(management, "cuda_device_context"):
            around.enter_context(management.cuda_device_context(parts.model.load_device))
        with torch.inference_mode(False), torch.no_grad():
            autoencoder = NativeAutoencoder(parts.vae, parts.latent_format)
            management.load_models_gpu([autoencoder.patcher], force_full_load=True)
        stack = contextlib.ExitStack()
        try:
            with torch.inference_mode():
                work = NativeWork(parts, stack, autoencoder)
            yield work
        finally:
            with torch.inference_mode():
                stack.close()
            with torch.inference_mode(False):
                autoencoder.release()


def _comfy(name: str) -> Any:
    return comfy_module(name)


def _arithmetic(options: dict[str, Any], device: torch.device) -> torch.dtype:
    """Of latents around the networks, which have their own: in sigma space float32 leaves little of the noise where
    there is little, and guidance multiplies the rest. Users' functions of latents are made for float32."""
    import torch

    changed = any(name in options for name in _FUNCTIONS_OF_LATENTS)
    wrapped = any(options.get("transformer_options", {}).get("wrappers", {}).values())
    return torch.float32 if changed or wrapped or device.type not in ("cpu", "cuda") else torch.float64


def _patcher_for(model: Any, conds: dict[str, Any]) -> Any:
    """The MODEL itself; where it has hooks and lies in dynamic VRAM, which knows none, its twin in plain memory."""
    dynamic = hasattr(model, "is_dynamic") and model.is_dynamic()
    has_hooks = getattr(_comfy("comfy.sampler_helpers"), "cond_has_hooks", None)
    if dynamic and has_hooks is not None and any(has_hooks(entries) for entries in conds.values()):
        return model.get_non_dynamic_delegate()
    return model


def _conditioning(parts: NativeParts, control: Any, autoencoder: NativeAutoencoder) -> dict[str, Any]:
    """As nodes hand it around, with a text of nothing: all that is to be loaded together, and the CLIP's hooks."""
    import torch

    kept: dict[str, Any] = {"additional_models": [autoencoder.patcher]}
    if control is not None:
        kept |= {"control": control, "control_apply_to_uncond": False}
    if parts.clip.apply_hooks_to_conds:
        kept["hooks"] = parts.clip.apply_hooks_to_conds
    text = torch.zeros(1, _TOKENS, parts.text_width)
    return {name: [[text, dict(kept)]] for name in ("positive", "negative")}


def _shape(parts: NativeParts) -> list[int]:
    """Of the latents for which room is made."""
    side = parts.image_size // int(parts.vae.downscale_ratio)
    return [PICTURES, int(parts.latent_format.latent_channels), side, side]


def _blank_hint(parts: NativeParts) -> Tensor:
    import torch

    from animportrait3d_core.diffusion.guidance import CONTROL_CHANNELS

    return torch.zeros(1, CONTROL_CHANNELS, parts.image_size, parts.image_size)

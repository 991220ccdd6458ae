"""A copy of the host's VAE that gradients go through, in float32.

The host loads weights under inference mode, where autograd refuses to save them, and newer hosts keep them in memory of
their own ("dynamic VRAM"), of which a copy of the module would hold nothing.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from animportrait3d_core.errors import IncompatibleCheckpoint

from ..environment import comfy_module

if TYPE_CHECKING:
    from torch import Tensor


class NativeAutoencoder:
    """See core's protocol `Autoencoder`.  network: the copy.  patcher: of it, for the host's memory management."""

    def __init__(self, vae: Any, latent_format: Any) -> None:
        self.channels, self.factor = int(vae.latent_channels), int(vae.downscale_ratio)
        self.scale, self.shift = float(latent_format.scale_factor), float(getattr(latent_format, "shift_factor", 0.0))
        network = copied_network(vae)
        self._has_posterior = hasattr(network, "regularization")
        if self._has_posterior:
            network.regularization = _moments()
        patcher: Any = comfy_module("comfy.model_patcher")
        self.patcher = patcher.ModelPatcher(network, vae.device, vae.patcher.offload_device)
        self.network, self._device = network, vae.device

    def release(self) -> None:
        """Leave the device; the host forgets the copy when nobody holds it."""
        self.patcher.detach()

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Autoencoder`."""
        encoded = self.network.encode(images.to(self._device).float())
        if not self._has_posterior:
            return encoded, None
        mean, logarithm = encoded.chunk(2, dim=1)
        return mean, (0.5 * logarithm.clamp(-30, 20)).exp()

    def images(self, latents: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.network.decode(latents.to(self._device).float())


def check_vae(where: str, vae: Any, latent_format: Any) -> None:
    """Raise `IncompatibleCheckpoint` unless a VAE fits the model's latents."""
    import torch

    found, wanted = getattr(vae, "latent_channels", None), int(latent_format.latent_channels)
    factor = getattr(vae, "downscale_ratio", None)
    if getattr(vae, "first_stage_model", None) is None or found != wanted or not isinstance(factor, int):
        raise IncompatibleCheckpoint(
            f"{where}: the VAE has {found} latent channels and the ratio {factor}, expected {wanted} channels and one "
            "ratio of pictures; connect the checkpoint's own VAE, or one of Stable Diffusion 1.5."
        )
    if not math.isclose(float(vae.process_input(torch.tensor(0.25))), -0.5):
        raise IncompatibleCheckpoint(f"{where}: the VAE does not take pictures in -1..1; connect one for pictures.")


def copied_network(vae: Any) -> Any:
    """The networks of a VAE with frozen weights of their own: float32, on the CPU, no inference tensors."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        network = _copied(vae)
        return network.to("cpu", torch.float32).eval().requires_grad_(False)


def _copied(vae: Any) -> Any:
    if not (hasattr(vae, "is_dynamic") and vae.is_dynamic()):
        return copy.deepcopy(vae.first_stage_model)
    if vae.patcher.cached_patcher_init is not None:
        return vae.patcher.clone(disable_dynamic=True).model
    weights = {name: value.to("cpu", copy=True) for name, value in vae.get_sd().items()}
    sd: Any = comfy_module("comfy.sd")
    return sd.VAE(sd=weights).first_stage_model


def _moments() -> Any:
    """In place of the host's regularizer, which gives the mean alone: mean and logarithm of the variance."""
    import torch

    class Moments(torch.nn.Module):
        def forward(self, values: Tensor) -> tuple[Tensor, None]:
            return values, None

    return Moments()

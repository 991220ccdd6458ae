"""ComfyUI's objects as core's `HostedModel`: what they are is checked here, before anything runs."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput

from .autoencoder import check_vae
from .contents import hash_of
from .schedule import expected_sampling, parameterization
from .session import opened

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from animportrait3d_core.diffusion.hosted import HostedWork

# Beginnings of the names of ComfyUI's model classes, and what people call them.
_FAMILIES = (
    ("SDXL", "SDXL"), ("SSD", "SDXL"), ("Segmind", "SDXL"), ("SD3", "Stable Diffusion 3"), ("Flux", "Flux"),
    ("Stable_Cascade", "Stable Cascade"), ("Aura", "AuraFlow"), ("Pix", "PixArt"), ("Qwen", "Qwen-Image"),
    ("Lumina", "Lumina"), ("SVD", "Stable Video Diffusion"), ("SD21Unclip", "unCLIP"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class NativeParts:
    """The host's objects, as sockets carry them; none of them is changed.

    control_net: may be None.  control_strength: of it.  image_size: pixels that the model was trained for.  sigmas: [T]
    the noise that it was trained for.
    """

    model: Any
    clip: Any
    vae: Any
    control_net: Any
    control_strength: float
    image_size: int
    sigmas: Tensor

    @property
    def latent_format(self) -> Any:
        """How the model scales latents."""
        return self.model.model.latent_format

    @property
    def dtype(self) -> torch.dtype:
        """In which the model's networks compute."""
        return self.model.model.manual_cast_dtype or self.model.model.get_dtype()

    @property
    def text_width(self) -> int:
        """D of the text embeddings that the model understands."""
        return int(self.model.model.model_config.unet_config["context_dim"])


class NativeModel:
    """See core's protocol `HostedModel`."""

    condition_factor: int | None

    def __init__(self, parts: NativeParts) -> None:
        from animportrait3d_core.diffusion.families import family_of_width

        self._parts = parts
        self.family, self.sigmas, self.image_size = family_of_width(parts.text_width), parts.sigmas, parts.image_size
        self.latent_channels = int(parts.latent_format.latent_channels)
        self.latent_scale, self.latent_factor = float(parts.latent_format.scale_factor), int(parts.vae.downscale_ratio)
        self.condition_factor = None if parts.control_net is None else int(parts.control_net.compression_ratio)
        self.device, self.dtype = parts.model.load_device, parts.dtype

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `HostedModel`."""
        return hash_of(self._parts)

    def texts(self, texts: list[str]) -> Tensor:
        """[n, 77, D]: what follows the 75 tokens that a text encoder reads at once is cut, as in files' guidances.

        The host's own syntax counts: (weights:1.2) and embedding:names.
        """
        import torch

        with torch.inference_mode():
            rows = [self._text(text) for text in texts]
        return torch.cat(rows).clone()

    def _text(self, text: str) -> Tensor:
        tokens = {name: chunks[:1] for name, chunks in self._parts.clip.tokenize(text).items()}
        return self._parts.clip.encode_from_tokens(tokens).to(self.device).float()

    def opened(self) -> AbstractContextManager[HostedWork]:
        """See `HostedModel`."""
        return opened(self._parts)

    def summary(self) -> str:
        """What this is, in three lines."""
        kind = parameterization(expected_sampling(self._parts.model))
        control = "no ControlNet"
        if self._parts.control_net is not None:
            channels = hint_channels(self._parts.control_net)
            control = f"ControlNet of {channels} condition channels, strength {self._parts.control_strength:g}"
        first = f"family {self.family}, {kind}, {self.latent_channels} latent channels"
        place = f"on {self.device}, {str(self.dtype).removeprefix('torch.')}"
        return f"{first}, pictures of {self.image_size} pixels\n{control}\n{place}"


def native_model(
    where: str,
    model: object,
    clip: object,
    vae: object,
    control_net: object = None,
    control_strength: float = 1.0,
    image_size: int = 512,
) -> NativeModel:
    """The host's objects, checked; outside of ComfyUI nothing makes such.

    Raises `IncompatibleCheckpoint` for models of another family (named) and for parts that do not fit each other,
    `InvalidInput` for parts that are not there.
    """
    for name, part in (("MODEL", model), ("CLIP", clip), ("VAE", vae)):
        if part is None:
            raise InvalidInput(f"{where}: the {name} is empty: the checkpoint holds none; load one from its own file.")
    _check_family(where, model)
    sampling = expected_sampling(model)
    parts = NativeParts(model, clip, vae, control_net, control_strength, image_size, sampling.sigmas)
    check_vae(where, vae, parts.latent_format)
    if control_net is not None:
        _check_controlnet(where, parts)
    if parts.clip.use_clip_schedule:
        raise InvalidInput(f"{where}: the CLIP has hooks with a schedule, which texts here do not; leave it out.")
    found = NativeModel(parts)
    width = found.texts([""]).shape[-1]
    if width != parts.text_width:
        raise IncompatibleCheckpoint(
            f"{where}: the CLIP makes texts of width {width}, the MODEL wants {parts.text_width}; connect the "
            "checkpoint's own CLIP."
        )
    return found


def hint_channels(control_net: Any) -> int | None:
    """Channels of a ControlNet's condition images; None for other kinds of control."""
    blocks = getattr(getattr(control_net, "control_model", None), "input_hint_block", None)
    return None if blocks is None else int(blocks[0].weight.shape[1])


def _check_family(where: str, model: Any) -> None:
    from animportrait3d_core.diffusion.families import check_channels, refuse

    config = model.model.model_config
    name, unet = type(config).__name__, config.unet_config
    family = next((told for begin, told in _FAMILIES if name.startswith(begin)), f"a model of ComfyUI's kind {name}")
    other = unet.get("context_dim") is None or unet.get("adm_in_channels") is not None
    if other or parameterization(expected_sampling(model)) is None:
        refuse(where, "MODEL", family)
    check_channels(where, "MODEL", int(unet["in_channels"]), int(config.latent_format.latent_channels))


def _check_controlnet(where: str, parts: NativeParts) -> None:
    from animportrait3d_core.diffusion.families import ADVICE
    from animportrait3d_core.diffusion.guidance import CONTROL_CHANNELS

    control, channels = parts.control_net, hint_channels(parts.control_net)
    if channels is None or control.previous_controlnet is not None:
        raise IncompatibleCheckpoint(
            f"{where}: the CONTROL_NET is a {type(control).__name__}, expected one ControlNet of {CONTROL_CHANNELS} "
            f"condition channels (normals and label) for {ADVICE.partition(':')[0].lower()}."
        )
    if channels != CONTROL_CHANNELS:
        raise IncompatibleCheckpoint(
            f"{where}: the CONTROL_NET has {channels} condition channels, expected {CONTROL_CHANNELS} (normals and "
            "label); ordinary ones have 3. Train one (docs/controlnet-training.md), or go without."
        )
    width = next(
        (
            int(value.shape[1])
            for name, value in control.control_model.named_parameters()
            if name.endswith("attn2.to_k.weight")
        ),
        parts.text_width,
    )
    if width != parts.text_width:
        raise IncompatibleCheckpoint(
            f"{where}: the CONTROL_NET is for texts of width {width}, the MODEL wants {parts.text_width}; both must be "
            "of one family."
        )

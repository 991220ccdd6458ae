"""Guidance from files: a diffusers folder or a single checkpoint, with one's own VAE, ControlNet and LoRAs."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InvalidInput, MissingModelFile
from ..fingerprints import fingerprint
from ..model_weights import building
from ..socket_values import SocketValue
from .codec import DiffusersAutoencoder, LatentCodec
from .components import Components, check_components, frozen, load_controlnet, load_folder, load_vae
from .families import family_of_width
from .guidance import NO_CONTROLNET, Prediction, TextEmbedding, check_latents, check_texts, condition_planes, guided
from .lora import add_lora
from .model_files import Model, read_config
from .single_file import load_single_file, load_single_file_vae
from .stops import stops_between_blocks

_WHERE = "load_guidance"
SETTINGS_FILE = "guidance.json"
"""In a diffusers folder, optional: what its maker knows of it and no file of diffusers has a place for."""
CONTROLNET_FOLDER = "controlnet"
"""Where a diffusers folder has one."""
USUAL_GUIDANCE_SCALE = 7.5
"""Of Stable Diffusion."""


@dataclasses.dataclass(frozen=True)
class GuidanceFiles:
    """Which files make a guidance.

    checkpoint: a diffusers folder, or a .safetensors or .ckpt file.  vae: folder or file, in place of the
    checkpoint's.  controlnet: folder or file.  conditioning_scale: strength of the ControlNet.  loras: files with
    their strengths.  tokenizer: a CLIP tokenizer folder, which a single file needs beside it.
    """

    checkpoint: Path
    vae: Path | None = None
    controlnet: Path | None = None
    conditioning_scale: float = 1.0
    loras: tuple[tuple[Path, float], ...] = ()
    tokenizer: Path | None = None


class DiffusersGuidance(SocketValue):
    """A Stable-Diffusion-shaped model with frozen weights; see the protocol `Guidance`.

    Text in the time embedding (`addition_embed_type` "text") is the U-Net's own affair: it takes it from the hidden
    states. Condition images have the ControlNet's stride times the latents' size.
    """

    def __init__(
        self,
        parts: Components,
        controlnet: Model | None = None,
        conditioning_scale: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        guidance_scale: float = USUAL_GUIDANCE_SCALE,
        regions: tuple[str, ...] | None = None,
    ) -> None:
        check_components(_WHERE, parts)
        self.device, self.dtype = torch.device(device), dtype
        self.schedule, self.prediction_type = parts.schedule, parts.prediction_type
        self.unet, self.vae = (frozen(model, self.device, dtype) for model in (parts.unet, parts.vae))
        # It runs once per prompt; not every version of transformers can mask in other types.
        self.text_encoder = frozen(parts.text_encoder, self.device, torch.float32)
        self.controlnet = None if controlnet is None else frozen(controlnet, self.device, dtype)
        self.conditioning_scale, self.guidance_scale, self.regions = conditioning_scale, guidance_scale, regions
        self.tokenizer = parts.tokenizer
        self._codec = LatentCodec(DiffusersAutoencoder(self.vae))
        config = self.unet.config
        self.family = family_of_width(config["cross_attention_dim"])
        self.latent_channels, self.latent_scale = self._codec.channels, self._codec.scale
        self.latent_factor = self._codec.factor
        self.image_size = int(config.get("sample_size") or 64) * self.latent_factor
        self.alphas_cumprod = self.schedule.alphas_cumprod

    @property
    def fingerprint(self) -> str:
        """See `Guidance`. Reads all weights once."""
        if self not in _FINGERPRINTS:
            _FINGERPRINTS[self] = self._hash()
        return _FINGERPRINTS[self]

    def _hash(self) -> str:
        models = (self.unet, self.vae, self.text_encoder, self.controlnet)
        kinds = (self.prediction_type, self.conditioning_scale, str(self.dtype), self.latent_scale)
        return fingerprint((models, kinds, self.alphas_cumprod, self.tokenizer.get_vocab()))

    def session(self) -> contextlib.AbstractContextManager[None]:
        """See `Guidance`. The weights stay where they are."""
        return stops_between_blocks(self.device, self.unet, self.controlnet, self.vae)

    def summary(self) -> str:
        """What this guidance is, in three lines."""
        control = "no ControlNet"
        if self.controlnet is not None:
            channels = self.controlnet.config["conditioning_channels"]
            control = f"ControlNet of {channels} condition channels, strength {self.conditioning_scale:g}"
        kind = f"family {self.family}, prediction {self.prediction_type}, {self.latent_channels} latent channels"
        place = f"on {self.device}, {str(self.dtype).removeprefix('torch.')}"
        return f"{kind}, pictures of {self.image_size} pixels\n{control}\n{place}"

    @torch.no_grad()
    def encode_prompt(self, texts: list[str]) -> TextEmbedding:
        """See `Guidance`. Longer texts are cut at the text encoder's length."""
        check_texts(texts)
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        hidden = self.text_encoder(tokens.input_ids.to(self.device))[0]
        return TextEmbedding(hidden.to(self.dtype))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """See `Guidance`."""
        return self._codec.encode(images, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Guidance`."""
        return self._codec.decode(latents)

    @torch.no_grad()
    def predict_noise(
        self, latents: Tensor, timesteps: int | Tensor, text: TextEmbedding, condition: Tensor | None = None
    ) -> Prediction:
        """See `Guidance`."""
        count = len(latents)
        control = None if condition is None else self._condition(condition, latents)
        return self._predict(latents, timesteps, text.batch(count), control)

    @torch.no_grad()
    def predict_guided_noise(
        self,
        latents: Tensor,
        timesteps: int | Tensor,
        text: TextEmbedding,
        negative: TextEmbedding,
        guidance_scale: float,
        condition: Tensor | None = None,
    ) -> Prediction:
        """See `Guidance`. The difference is taken in float32: large scales would show the rounding of float16."""
        count = len(latents)
        control = None if condition is None else self._condition(condition, latents).repeat(2, 1, 1, 1)
        steps = self.schedule.check_timesteps(timesteps, count).repeat(2)
        states = torch.cat([negative.batch(count), text.batch(count)])
        both = self._predict(torch.cat([latents, latents]), steps, states, control)
        (eps_minus, eps_plus), (x0_minus, x0_plus) = (values.chunk(2) for values in both)
        return Prediction(guided(eps_minus, eps_plus, guidance_scale), guided(x0_minus, x0_plus, guidance_scale))

    def _predict(self, latents: Tensor, timesteps: int | Tensor, states: Tensor, control: Tensor | None) -> Prediction:
        """latents: [B, C, h, w].  states: [B, L, D].  control: [B, 4, H, W]."""
        check_latents(latents, self.latent_channels)
        steps = self.schedule.check_timesteps(timesteps, len(latents)).to(self.device)
        latents, states = latents.to(self.device), states.to(self.device, self.dtype)
        noisy = latents.to(self.dtype)
        down, middle = None, None
        if control is not None and self.controlnet is not None:
            down, middle = self.controlnet(
                noisy, steps, states, controlnet_cond=control, conditioning_scale=self.conditioning_scale,
                return_dict=False,
            )  # fmt: skip
        output = self.unet(
            noisy, steps, states, down_block_additional_residuals=down, mid_block_additional_residual=middle,
            return_dict=False,
        )[0]  # fmt: skip
        return Prediction(*self.schedule.eps_and_x0(output, latents, timesteps, self.prediction_type))

    def _condition(self, condition: Tensor, latents: Tensor) -> Tensor:
        """[B, 4, H, W] on the device, from [1 or B, H, W, 4]."""
        if self.controlnet is None:
            raise InvalidInput(NO_CONTROLNET)
        factor = 2 ** (len(self.controlnet.config["conditioning_embedding_out_channels"]) - 1)
        return condition_planes(condition, latents, factor).to(self.device, self.dtype)


_FINGERPRINTS: weakref.WeakKeyDictionary[DiffusersGuidance, str] = weakref.WeakKeyDictionary()
"""Beside the guidances and not in them: they are values of a graph, which nobody changes."""


def load_guidance(
    files: GuidanceFiles, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusersGuidance:
    """Load a guidance from files on this machine; the network is never used.

    Raises `MissingExtension` without diffusers or transformers, `MissingModelFile` when a part is absent,
    `IncompatibleCheckpoint` for models of other families (named) or parts that do not fit each other, `InvalidInput`
    for damaged files.
    """
    path = Path(files.checkpoint)
    if not path.exists():
        raise MissingModelFile(f"{_WHERE}: the checkpoint '{path}' does not exist; expected a folder or a file.")
    # Settings may lie in any way, and only the libraries know in which.
    using = building(f"{_WHERE}: the models of '{path}' cannot be used")
    with using, torch.inference_mode(False), torch.no_grad():
        if path.is_dir():
            parts = load_folder(_WHERE, path)
        else:
            parts = load_single_file(_WHERE, path, files.tokenizer)
        if files.vae is not None:
            vae = Path(files.vae)
            parts.vae = load_vae(_WHERE, vae) if vae.is_dir() else load_single_file_vae(_WHERE, vae)
        control = None if files.controlnet is None else load_controlnet(_WHERE, Path(files.controlnet), parts.unet)
        for file, strength in files.loras:
            add_lora(_WHERE, parts, Path(file), strength)
        scale, regions = _makers_settings(path)
        return DiffusersGuidance(parts, control, files.conditioning_scale, device, dtype, scale, regions)


def _makers_settings(path: Path) -> tuple[float, tuple[str, ...] | None]:
    """(guidance scale, known regions) of the settings of a folder; Stable Diffusion's where there are none."""
    if not (path / SETTINGS_FILE).is_file():
        return USUAL_GUIDANCE_SCALE, None
    settings = read_config(_WHERE, path, SETTINGS_FILE)
    scale, regions = settings.get("guidance_scale", USUAL_GUIDANCE_SCALE), settings.get("regions")
    if not isinstance(scale, (int, float)) or not scale >= 1:
        raise InvalidInput(
            f"{_WHERE}: '{path / SETTINGS_FILE}' has guidance_scale {scale!r}, expected a number of at least 1."
        )
    if regions is not None and not (isinstance(regions, list) and all(isinstance(name, str) for name in regions)):
        raise InvalidInput(f"{_WHERE}: '{path / SETTINGS_FILE}' has regions {regions!r}, expected a list of names.")
    return float(scale), None if regions is None else tuple(regions)

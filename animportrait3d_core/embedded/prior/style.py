"""A second style of the prior: a LoRA of its U-Net, trained on repainted pictures, in the format of diffusers.

It shows that swapping the model swaps the style of an avatar, with weights that are small enough to ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...diffusion.diffusers_adapter import DiffusersGuidance
from ...diffusion.model_files import Model
from ...errors import InvalidInput
from ...files import write_json, write_safetensors
from ...fingerprints import fingerprint
from ...progress import Stages
from ...similarity import psnr
from ...training.guided_samples import spread_over_regions
from ...training.loop import LoopSettings, train
from ...training.shards import ShardDataset, open_dataset
from .codec_training import images_of
from .networks import PriorNetworks
from .pipeline import load_weights
from .prior_training import PriorSettings, PriorTask, guidance_of
from .quality import QualitySettings, sample_images
from .train import report_of
from .vocabulary import build_tokenizer

STYLE_FILE, METRICS_FILE = "painted.safetensors", "metrics.json"
STYLE_LOOP = LoopSettings(
    steps=2500, batch_size=24, lr=2e-3, warmup_steps=100, final_share=0.05, weight_decay=0.0, ema_decay=0.995,
    precision="mixed",
)  # fmt: skip
RANK = 8
RADIUS = 2
"""Of a brush, in pixels."""
COLORS = ((0.92, 0.10, 0.00), (0.02, 0.74, 0.12), (0.14, 0.10, 0.86))
"""What red, green and blue become made of: reds stay warm, shadows and greens turn to blue."""
LIFT = (0.03, 0.02, 0.10)
"""The darkest paint."""
_ENCODING_BATCH = 64


def painted(images: Tensor, alpha: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 as if painted: flat strokes with kept edges, and another palette.

    alpha: [B, 1, H, W]; the background stays.
    """
    strokes = _kuwahara(images, RADIUS)
    mixed = torch.einsum("dc,bchw->bdhw", images.new_tensor(COLORS), strokes)
    lift = images.new_tensor(LIFT).reshape(1, 3, 1, 1)
    return torch.lerp(images, (lift + (1 - lift) * mixed).clamp(0, 1), alpha)


def _kuwahara(images: Tensor, radius: int) -> Tensor:
    """The mean of whichever of the four squares at a pixel is the flattest (Kuwahara et al. 1976)."""
    side = radius + 1
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    means = functional.avg_pool2d(padded, side, stride=1)
    spreads = (functional.avg_pool2d(padded.square(), side, stride=1) - means.square()).sum(1, keepdim=True)
    height, width = images.shape[-2:]
    corners = [(y, x) for y in (0, radius) for x in (0, radius)]
    squares = torch.stack([means[..., y : y + height, x : x + width] for y, x in corners])
    flatness = torch.stack([spreads[..., y : y + height, x : x + width] for y, x in corners])
    chosen = flatness.argmin(dim=0, keepdim=True).expand(1, *squares.shape[1:])
    return squares.gather(0, chosen)[0]


class StyleLora(nn.Module):
    """Low-rank changes of every convolution and product between a U-Net's first and last layer (Hu et al. 2021).

    Called as the networks are that it changes, which are no parameters of it and stay as they are.
    """

    def __init__(self, networks: PriorNetworks, rank: int) -> None:
        super().__init__()
        # In a tuple, so that they are not taken for a part whose parameters are trained and kept.
        self._base = (networks.eval().requires_grad_(False),)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in self.weights().items():
            inner = weight[0].numel()
            own = min(rank, len(weight), inner)
            self.down[_key(name)] = nn.Parameter(torch.randn(own, inner) / inner**0.5)
            self.up[_key(name)] = nn.Parameter(torch.zeros(len(weight), own))

    @property
    def networks(self) -> PriorNetworks:
        """What is changed."""
        return self._base[0]

    def weights(self) -> dict[str, Tensor]:
        """The changed weights by the names of their layers, as they were."""
        layers = self.networks.unet.named_modules()
        return {
            name: layer.weight
            for name, layer in layers
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and name.startswith(("down_blocks", "mid_block", "up_blocks"))
        }

    def forward(self, *arguments: Any) -> Tensor:
        """The networks' answer with the changes."""
        changed = {
            f"unet.{name}.weight": weight + (self.up[_key(name)] @ self.down[_key(name)]).reshape(weight.shape)
            for name, weight in self.weights().items()
        }
        return torch.func.functional_call(self.networks, changed, arguments)

    def tensors(self) -> dict[str, Tensor]:
        """By the names of diffusers' LoRA files."""
        found = {}
        for name, weight in self.weights().items():
            down, up = self.down[_key(name)].detach(), self.up[_key(name)].detach()
            kernel = weight.ndim == 4
            found[f"unet.{name}.lora_A.weight"] = down.reshape(len(down), *weight.shape[1:]) if kernel else down
            found[f"unet.{name}.lora_B.weight"] = up[..., None, None] if kernel else up
        return found

    def save(self, file: str | Path) -> None:
        """Write a LoRA file in half precision."""
        write_safetensors(file, {name: value.half() for name, value in self.tensors().items()}, {"format": "pt"})


def _key(name: str) -> str:
    """Names of parameters have no dots."""
    return name.replace(".", "/")


class StyleTask(PriorTask):
    """A `TrainingTask`: the prior's own, on painted pictures, with the LoRA as what is trained."""

    separable = False

    def __init__(
        self, networks: PriorNetworks, dataset: ShardDataset, codec: Path, rank: int, settings: PriorSettings
    ) -> None:
        super().__init__(networks, dataset, codec, settings)
        base = fingerprint(networks)
        self.model = self.lora = StyleLora(networks, rank)
        self.fingerprint = fingerprint((self.fingerprint, base, rank, COLORS, LIFT, RADIUS))

    def encoded(self, dataset: ShardDataset) -> Tensor:
        """Latents of the painted pictures."""
        parts = []
        for indices in torch.arange(len(dataset)).split(_ENCODING_BATCH):
            images, alpha = images_of(dataset, indices)
            with torch.no_grad():
                shown = painted(images / 2 + 0.5, alpha) * 2 - 1
                parts.append((self.codec.encode(shown).latents * self.codec.config.scaling_factor).half())
        return torch.cat(parts)

    def evaluate(self, model: Model) -> dict[str, float]:
        """PSNR of samples with condition to the painted truth and to the plain one."""
        networks = model.networks
        plain = {name: value.clone() for name, value in networks.unet.state_dict().items()}
        with torch.no_grad():
            for name, weight in model.weights().items():
                weight += (model.up[_key(name)] @ model.down[_key(name)]).reshape(weight.shape).to(weight)
        try:
            guidance = guidance_of(networks, self.codec, self.tokenizer)
        finally:
            networks.unet.load_state_dict(plain)
        return style_quality(guidance, self.split.held_out, self.settings.quality)


def style_quality(guidance: DiffusersGuidance, dataset: ShardDataset, settings: QualitySettings) -> dict[str, float]:
    """PSNR over the figure of samples with condition to the truth: `psnr_painted` and, as it was, `psnr_plain`."""
    indices = spread_over_regions(dataset, settings.per_region)
    images, alpha = images_of(dataset, indices)
    truth = images / 2 + 0.5
    drawn = sample_images(guidance, [dataset[index] for index in indices.tolist()], settings, controlled=True)
    mask = alpha[:, 0]
    wanted = {"psnr_painted": painted(truth, alpha), "psnr_plain": truth}
    return {name: psnr(drawn, picture.permute(0, 2, 3, 1), mask) for name, picture in wanted.items()}


def train_style(
    dataset: str | Path,
    pipeline: str | Path,
    output: str | Path,
    loop: LoopSettings = STYLE_LOOP,
    rank: int = RANK,
    minutes: float | None = None,
    settings: PriorSettings | None = None,
    stages: Stages | None = None,
) -> dict[str, float]:
    """Train the LoRA `painted.safetensors` of a prior in `output`, going on where it was stopped; its metrics.

    dataset: what the prior was trained on.  pipeline: the prior. Raises what `open_dataset` and `train` raise.
    """
    if rank < 1:
        raise InvalidInput(f"train_style: rank {rank}, expected at least 1.")
    pipeline, output = Path(pipeline), Path(output)
    samples = open_dataset(dataset)
    if not samples.has("condition"):
        raise InvalidInput(f"train_style: the data set '{dataset}' has no condition maps.")
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(loop.seed)
        networks = PriorNetworks(len(build_tokenizer()))
        load_weights(networks, pipeline)
        task = StyleTask(networks, samples, pipeline / "vae", rank, settings or PriorSettings())
        result = train(task, loop, output, True, minutes, report_of(stages, "style"))
        task.model.load_state_dict(result.weights)
        task.lora.save(output / STYLE_FILE)
    metrics = {"step": float(result.step), "minutes": result.seconds / 60, **result.metrics}
    write_json(output / METRICS_FILE, metrics)
    return metrics

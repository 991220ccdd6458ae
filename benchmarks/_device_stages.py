"""The dynamic stages of the `paper` preset at true size, with networks of Stable Diffusion 1.5's shape.

The weights are drawn: what is measured is time and memory, which do not depend on them. Some steps of each stage are
carried out, and the whole stage's time is projected from them.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from _device_work import Place, Result, Skipped, embedded_body, wait_for

from animportrait3d_core.avatar import InitializeSettings, RiggedAvatar, initialize_avatar
from animportrait3d_core.conditioning import Prompts
from animportrait3d_core.diffusion import Guidance
from animportrait3d_core.diffusion.components import Components
from animportrait3d_core.diffusion.diffusers_adapter import DiffusersGuidance
from animportrait3d_core.diffusion.schedule import NoiseSchedule
from animportrait3d_core.optimization.dynamic import RegionPass, scenes_of
from animportrait3d_core.optimization.edits import EditMaker, EditSettings
from animportrait3d_core.optimization.loop import AvatarOptimizer
from animportrait3d_core.optimization.presets import dynamic_stage
from animportrait3d_core.optimization.region_guidance import RegionGuidance
from animportrait3d_core.optimization.score_matching import ScoreMatching
from animportrait3d_core.render import gaussian_device
from animportrait3d_core.runs import Work

COUNTS = (500_000, 1_000_000)
_NETWORK_CALLS = ("decode", "predict_noise", "predict_guided_noise")
_ASKING = {"predict_noise": 1, "predict_guided_noise": 2}


class Timed:
    """A guidance whose own seconds, the encoder's way back among them, and evaluations of one picture are counted."""

    def __init__(self, guidance: Guidance, device: str) -> None:
        self._guidance, self._device = guidance, device
        self.seconds, self.evaluations = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._guidance, name)
        return functools.partial(self._counted, name, value) if name in _NETWORK_CALLS else value

    def encode(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """See `Guidance`."""
        if torch.is_grad_enabled() and images.requires_grad:
            return _TimedEncoding.apply(images, noise, self)
        return self.timed(self._guidance.encode, images, noise)

    def timed(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A call whose seconds are counted."""
        wait_for(self._device)
        begun = time.perf_counter()
        found = call(*arguments, **named)
        wait_for(self._device)
        self.seconds += time.perf_counter() - begun
        return found

    def encoding(self, images: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Latents that know their pictures."""
        with torch.enable_grad():
            return self.timed(self._guidance.encode, images, noise)

    def _counted(self, name: str, call: Callable[..., Any], first: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        self.evaluations += len(first) * _ASKING.get(name, 0)
        return self.timed(call, first, *arguments, **named)


class _TimedEncoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, noise: torch.Tensor | None, owner: Timed) -> torch.Tensor:
        leaf = images.detach().requires_grad_()
        ctx.owner, ctx.leaf, ctx.latents = owner, leaf, owner.encoding(leaf, noise)
        return ctx.latents.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (found,) = ctx.owner.timed(torch.autograd.grad, ctx.latents, ctx.leaf, gradients[0])
        return found, None, None


def drawn_guidance(place: Place) -> DiffusersGuidance:
    """Networks of Stable Diffusion 1.5's shape with drawn weights, in half precision on a GPU."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from animportrait3d_core.embedded.prior.vocabulary import build_tokenizer

    widths = (32, 64, 64, 64) if place.small else (320, 640, 1280, 1280)
    vae_widths = (32, 32, 32, 32) if place.small else (128, 256, 512, 512)
    text_width, size = (64, 8) if place.small else (768, 64)
    with torch.random.fork_rng(devices=[]), torch.device(place.device):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=size, block_out_channels=widths, cross_attention_dim=text_width, attention_head_dim=8
        )
        controlnet = ControlNetModel.from_unet(unet, conditioning_channels=4)
        stages = len(vae_widths)
        vae = AutoencoderKL(
            block_out_channels=vae_widths, latent_channels=4, layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * stages, up_block_types=("UpDecoderBlock2D",) * stages,
        )  # fmt: skip
        layers = 1 if place.small else 12
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=text_width, intermediate_size=4 * text_width, num_hidden_layers=layers,
                num_attention_heads=layers, projection_dim=text_width,
            )
        )  # fmt: skip
    parts = Components(unet, vae, text, build_tokenizer(), NoiseSchedule.stable_diffusion(), "epsilon")
    dtype = torch.float16 if place.device == "cuda" else torch.float32
    return DiffusersGuidance(parts, controlnet, device=place.device, dtype=dtype)


def large_avatar(count: int) -> RiggedAvatar:
    """A person of the embedded world with about so many untrained Gaussians."""
    from animportrait3d_core.embedded.identities import exported_identity, identity_mesh, true_parameters
    from animportrait3d_core.rigging.points import PointSettings, rig_points

    identity = exported_identity("amara")
    portrait, body, parameters = identity_mesh(identity, texture_size=512), embedded_body(), true_parameters(identity)
    points = rig_points(portrait, body, parameters, PointSettings(count=count))
    return initialize_avatar(points, body, parameters, InitializeSettings(sh_degree=3), prompt=identity.prompt)


@dataclasses.dataclass(frozen=True)
class Pace:
    """seconds: of a step.  network: of these in the networks.  evaluations: in a step."""

    seconds: float
    network: float
    evaluations: float


def pace_of(work: Work, guidance: Timed, device: str) -> Pace:
    """Mean of what work counts (steps, or scenes that are edited together), after a first step that is not counted."""
    work.step()
    guidance.seconds, guidance.evaluations = 0.0, 0
    first = work.step_index
    wait_for(device)
    begun = time.perf_counter()
    while work.step_index < work.steps:
        work.step()
    wait_for(device)
    seconds, done = time.perf_counter() - begun, work.step_index - first
    return Pace(seconds / done, guidance.seconds / done, guidance.evaluations / done)


def paces(one: RegionPass, avatar: RiggedAvatar, guidance: Timed, place: Place, steps: int) -> dict[str, Pace]:
    """Of a pass: "edit" for making edits if it has them, and "step"; means of some steps."""
    scenes = scenes_of(one, avatar, guidance.image_size)
    asked = RegionGuidance(guidance, Prompts.of(avatar.prompt), one.uses)  # type: ignore[arg-type]
    short = dataclasses.replace(one.stage, iterations=steps + 1)
    if not isinstance(one.asks, EditSettings):
        objective = ScoreMatching(asked, one.asks)
        work = AvatarOptimizer(avatar, short, scenes, objective, device=place.device)
        return {"step": pace_of(work, guidance, place.device)}
    together = max(1, asked.micro_batch // len(scenes.at(0, 0).cameras))
    maker = EditMaker(avatar, scenes, asked, dataclasses.replace(one.asks, scenes=(steps + 1) * together))
    made = pace_of(maker, guidance, place.device)
    return {"edit": made, "step": pace_of(maker.optimizer(avatar, short, place.device), guidance, place.device)}


def times_of(one: RegionPass, kind: str) -> int:
    """How often a pass does its work of a kind (`paces`)."""
    return one.asks.scenes if kind == "edit" and isinstance(one.asks, EditSettings) else one.stage.iterations


def paper_stages(place: Place) -> Result:
    """Dynamic optimization by the `paper` preset: seconds a step, what is not the networks, and memory."""
    if place.device == "cuda" and gaussian_device("cuda").type != "cuda":
        raise Skipped("gsplat does not run here: see extensions")
    guidance, numbers = Timed(drawn_guidance(place), place.device), {}
    for count in (2_000,) if place.small else COUNTS:
        avatar = large_avatar(count)
        if place.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        name, projected, outside, every = f"{count // 1000}k", 0.0, 0.0, 0.0
        for stage in ("eyes", "mouth", "full", "refine"):
            for one in dynamic_stage(stage, "paper", 7.5):
                for kind, pace in paces(one, avatar, guidance, place, place.amount(1, 5)).items():
                    times = times_of(one, kind)
                    numbers[f"{name}_{one.stage.name}_{kind}_s"] = pace.seconds
                    projected += times * pace.seconds
                    outside += times * (pace.seconds - pace.network)
                    every += times * pace.evaluations
        numbers |= {
            f"{name}_gaussians": len(avatar), f"{name}_projected_min": projected / 60,
            f"{name}_outside_share": outside / projected, f"{name}_evaluations_per_s": every / (projected - outside),
        }  # fmt: skip
        if place.device == "cuda":
            numbers[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return numbers, f"crops of {guidance.image_size} pixels, drawn weights"

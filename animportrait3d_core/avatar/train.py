"""3DGS training of an avatar on views of its portrait, at rest (initialization stage of the paper, section 3.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput
from ..gaussians import Gaussians, sh_degree
from ..parts import AvatarPart
from ..progress import Progress
from ..render import GaussianImage, render_gaussians
from ..similarity import ssim_map
from ..views import Views
from .densify import DensifySettings, densify, gather_gradients
from .model import RiggedAvatar, pose_gaussians
from .regularize import RegularizerSettings, position_penalty, scale_penalty
from .table import GaussianTable

PAPER_EXTENT = 2.98471
"""The authors' camera extent, which multiplies their learning rate of positions."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Loss weights and learning rates. The default (`fixed`) is tuned for 60 views and minutes on two CPU cores."""

    iterations: int = 1000
    """Steps of one view each. 3000 in `paper`."""
    l1_weight: float = 0.8
    ssim_weight: float = 0.2
    """Of 1 - SSIM (11 x 11, sigma 1.5, black border); both as in 3DGS."""
    alpha_weight: float = 0.2
    """Mean absolute error of alpha against the views' masks: closes holes and clears floaters that have the
    background's colour. 0 in `paper`."""
    background: Literal["views", "random"] = "views"
    """`views`: the colour they are composited over, as in `paper`. `random`: another colour each step; the views are
    recomposited with their masks."""
    means_rate: float = 1.6e-2
    """Learning rates of Adam; positions and scales in triangle units. In `paper` this one is 1.49e-3: with 30,000
    instead of 500,000 Gaussians each has farther to go, in fewer steps. One embedded identity after 300 steps: 33.0 dB
    at 4e-3, 34.5 at 8e-3, 35.2 at 1.6e-2."""
    sh0_rate: float = 2.4e-2
    """3.75e-3 in `paper`, for the same reason."""
    quats_rate: float = 1.5e-3
    log_scales_rate: float = 0.0255
    opacities_rate: float = 0.075
    sh_rest_rate: float = 1.875e-4
    """These are the authors' in both."""
    final_rate: float = 0.1
    """All learning rates fall exponentially to this fraction at the end: a short run must settle. 1 in `paper`."""
    sh_interval: int = 1000
    """Steps after which one more degree of the spherical harmonics is trained."""
    train_mouth: bool = False
    """Whether teeth and mouth are trained by views of a closed mouth; False in `paper` too: nothing sees them."""
    regularizer: RegularizerSettings = RegularizerSettings()
    densify: DensifySettings = DensifySettings()
    preview_interval: int = 50
    """Steps between two pictures handed to the report."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.preview_interval < 1 or self.sh_interval < 1:
            raise InvalidInput(
                f"TrainSettings: `iterations` {self.iterations}, `preview_interval` {self.preview_interval} and "
                f"`sh_interval` {self.sh_interval}, expected at least 1."
            )
        if self.background not in ("views", "random"):
            raise InvalidInput(f"TrainSettings: `background` is '{self.background}', expected 'views' or 'random'.")

    @classmethod
    def paper(cls) -> TrainSettings:
        """The authors' losses, learning rates and schedule."""
        return cls(
            iterations=3000, alpha_weight=0.0, final_rate=1.0, means_rate=5e-4 * PAPER_EXTENT, sh0_rate=3.75e-3,
            regularizer=RegularizerSettings.paper(), densify=DensifySettings.paper(),
        )  # fmt: skip

    def rates(self, step: int) -> dict[str, float]:
        """Learning rate of each parameter table at `step` (from 0)."""
        factor = self.final_rate ** (step / max(1, self.iterations - 1))
        rates = {
            "means": self.means_rate, "quats": self.quats_rate, "log_scales": self.log_scales_rate,
            "logit_opacities": self.opacities_rate, "sh0": self.sh0_rate, "sh_rest": self.sh_rest_rate,
        }  # fmt: skip
        return {name: rate * factor for name, rate in rates.items()}


class AvatarTrainer:
    """Training that can stop after any step and go on later, bit for bit, from `state_dict()`.

    avatar, views and generator are copied; none of them is changed. Works also when the caller is inside
    `torch.inference_mode()`.  device: where everything is kept and done; only a GPU that Gaussians are rendered on
    (`render.gaussian_device`) is worth it. The generator is of the CPU everywhere, so that all devices see the same
    order. Bit for bit only on the CPU: a GPU adds up gradients in any order.
    """

    def __init__(
        self,
        avatar: RiggedAvatar,
        views: Views,
        settings: TrainSettings,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(avatar) == 0 or len(views) == 0:
            raise InvalidInput(
                f"train_avatar: {len(avatar)} Gaussians and {len(views)} views, expected at least 1 of each."
            )
        avatar.gaussians.check_finite("train_avatar")
        self.settings = settings
        self.step_index = 0
        self._avatar = avatar
        self._generator = generator.clone_state() if hasattr(generator, "clone_state") else _cloned(generator)
        with torch.inference_mode(False), torch.no_grad():
            self._device = torch.device(device)
            self._images, self._masks, self._background = (
                value.to(self._device, copy=True) for value in (views.images, views.masks, views.background)
            )
            self._cameras = dataclasses.replace(
                views.cameras, world_to_camera=views.cameras.world_to_camera.clone(), K=views.cameras.K.clone()
            )
            self._rest = avatar.frames().detach().to(self._device)
            self._table = GaussianTable.of(avatar, self._device)
            self._order = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._table)

    def step(self) -> tuple[dict[str, float], Tensor]:
        """One view, one Adam step. Returns the loss terms and the rendered picture [1, H, W, 3]."""
        with torch.inference_mode(False), torch.enable_grad():
            index = self._next_view()
            target, mask, background = self._target(index)
            image = render_gaussians(self._posed(), self._cameras[index], background=background)
            means2d = image.info["means2d"]
            collecting = self.settings.densify.interval > 0
            if collecting:
                means2d.retain_grad()
            losses = self._losses(image, target, mask)
            names = list(self._table.parameters)
            values = list(self._table.parameters.values())
            gradients = self._backward(
                torch.stack(list(losses.values())).sum(), values, means2d if collecting else None
            )
            self._after_backward(dict(zip(names, gradients[: len(names)], strict=True)), gradients[len(names) :], image)
        return {name: float(value.detach()) for name, value in losses.items()}, image.color.detach()

    def avatar(self) -> RiggedAvatar:
        """The avatar as trained so far, on the CPU."""
        with torch.inference_mode(False), torch.no_grad():
            values = self._table.gaussians()
            tensors = (getattr(values, field.name).detach() for field in dataclasses.fields(values))
            return dataclasses.replace(
                self._avatar,
                gaussians=Gaussians(*(value.to("cpu", copy=True) for value in tensors)),
                binding=self._table.binding.to("cpu", copy=True),
                part_id=self._table.part_id.to("cpu", copy=True),
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that changes during training, as a flat dictionary of tensors."""
        return {
            "step": torch.tensor(self.step_index),
            "order": self._order.clone(),
            "generator": self._generator.get_state(),
        } | {f"table.{name}": value for name, value in self._table.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict()` of a trainer with the same avatar, views and settings."""
        with torch.inference_mode(False):
            self.step_index = int(state["step"])
            self._order = state["order"].clone()
            self._generator.set_state(state["generator"].clone())
            prefix = "table."
            rows = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            self._table.load_state_dict({name: value.to(self._device) for name, value in rows.items()})

    def _next_view(self) -> int:
        """Views in a random order, each once per round."""
        if not len(self._order):
            self._order = torch.randperm(len(self._images), generator=self._generator)
        index, self._order = int(self._order[0]), self._order[1:]
        return index

    def _target(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Picture [1, H, W, 3], mask [1, H, W] and background [3] of one view."""
        image, mask = self._images[index : index + 1], self._masks[index : index + 1]
        if self.settings.background == "views":
            return image, mask, self._background
        background = torch.rand(3, generator=self._generator).to(self._device)
        return image + (1 - mask[..., None]) * (background - self._background), mask, background

    def _posed(self) -> Gaussians:
        gaussians = self._table.gaussians()
        degree = min(sh_degree(gaussians.sh), self.step_index // self.settings.sh_interval)
        gaussians = dataclasses.replace(gaussians, sh=gaussians.sh[:, : (degree + 1) ** 2])
        return pose_gaussians(
            gaussians, self._rest[self._table.binding], quaternion_order=self._avatar.quaternion_order
        )

    def _losses(self, image: GaussianImage, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        settings, table = self.settings, self._table
        losses = {
            "l1": settings.l1_weight * (image.color - target).abs().mean(),
            "ssim": settings.ssim_weight * (1 - ssim_map(image.color, target, border="zero").mean()),
        }
        if settings.alpha_weight:
            losses["alpha"] = settings.alpha_weight * (image.alpha - mask).abs().mean()
        rules = settings.regularizer
        position = position_penalty(table.parameters["means"], table.anchor_means, image.info["visible"][0], rules)
        scale = scale_penalty(table.parameters["log_scales"], table.anchor_log_scales, rules)
        return losses | {"position": rules.position_weight * position, "scale": rules.scale_weight * scale}

    def _backward(self, loss: Tensor, values: list[Tensor], means2d: Tensor | None) -> list[Tensor]:
        """Gradients of the parameters, and of the screen positions if asked; zeros where the view saw nothing."""
        inputs = values if means2d is None else [*values, means2d]
        found = torch.autograd.grad(loss, inputs, allow_unused=True)
        return [torch.zeros_like(value) if grad is None else grad for grad, value in zip(found, inputs, strict=True)]

    def _after_backward(self, gradients: dict[str, Tensor], screen: list[Tensor], image: GaussianImage) -> None:
        settings, table = self.settings, self._table
        if not settings.train_mouth:
            unseen = (table.part_id == AvatarPart.TEETH) | (table.part_id == AvatarPart.MOUTH_INTERIOR)
            for gradient in gradients.values():
                gradient[unseen] = 0
        rates = settings.rates(self.step_index)
        table.optimizer.step(table.parameters, gradients, rates)
        self.step_index += 1
        if screen:
            size = (self._cameras.width, self._cameras.height)
            # Back-ends differ in how they nest the one view's rows.
            gather_gradients(table, screen[0].reshape(len(table), 2), image.info["visible"][0], size)
            if settings.densify.due(self.step_index):
                with torch.no_grad():
                    densify(table, self._rest, settings.densify, self._avatar.quaternion_order, self._generator)


def train_avatar(
    avatar: RiggedAvatar,
    views: Views,
    settings: TrainSettings = TrainSettings(),
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> RiggedAvatar:
    """Train the avatar's Gaussians on views of the portrait in the rest pose; body parameters stay as they are.

    views: float32 pictures with masks.  generator: order of the views, random backgrounds and splits; default seeded
    with 0.  progress: called after each step, with the rendered view every `settings.preview_interval` steps.
    device: where it is trained (see `render.gaussian_device`); the avatar comes back on the CPU.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    trainer = AvatarTrainer(avatar, views, settings, generator, device)
    while trainer.step_index < settings.iterations:
        _, picture = trainer.step()
        if progress is not None:
            shown = trainer.step_index % settings.preview_interval == 0 or trainer.step_index == settings.iterations
            progress(trainer.step_index, settings.iterations, picture[0].clamp(0, 1).cpu() if shown else None)
    return trainer.avatar()


def render_avatar_views(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> Views:
    """Views of posed Gaussians, one camera at a time to keep memory flat."""
    with torch.no_grad():
        parts = [render_gaussians(gaussians, cameras[index], background=background) for index in range(len(cameras))]
    images = torch.cat([part.color for part in parts]).clamp(0, 1)
    return Views(images, torch.cat([part.alpha for part in parts]), cameras, background)


def _cloned(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(device=generator.device)
    copy.set_state(generator.get_state())
    return copy

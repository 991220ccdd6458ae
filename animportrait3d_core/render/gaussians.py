"""The public door of the Gaussian rasteriser: checks its input, picks a back-end, assembles the image."""

from __future__ import annotations

import types
from importlib import import_module

import torch

from ..cameras import Cameras
from ..errors import InvalidInput, ShapeMismatch, all_hold, check_finite, finite_sign
from ..gaussians import Gaussians, sh_degree
from .backends import choose_backend
from .images import GaussianImage
from .inputs import Size, resize_cameras, usable_tensor
from .scene import GaussianScene

_WHERE = "rasterize_gaussians"


def _checked(
    name: str, value: torch.Tensor, trailing: tuple[int, ...], cameras: int, like: torch.Tensor
) -> torch.Tensor:
    """value as [1|B, N, *trailing] in the dtype and on the device of `like`, contiguous."""
    count = like.shape[-2]
    shared, per_camera = (count, *trailing), (cameras, count, *trailing)
    if tuple(value.shape) not in (shared, per_camera):
        raise ShapeMismatch(
            f"{_WHERE}: `{name}` has shape {list(value.shape)}, expected {list(shared)} (shared by all cameras) or "
            f"{list(per_camera)} (one per camera) for the {count} Gaussians of `means`."
        )
    if value.device != like.device:
        raise InvalidInput(f"{_WHERE}: `{name}` is on {value.device}, `means` on {like.device}; put them together.")
    value = usable_tensor(value).to(like.dtype).contiguous()
    return value if value.shape == per_camera else value[None]


def _checked_colors(value: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(colors [1, N, 3], None) or (None, sh [N, K, 3])."""
    count = like.shape[-2]
    if value.ndim not in (2, 3) or value.shape[0] != count or value.shape[-1] != 3:
        raise ShapeMismatch(
            f"{_WHERE}: `colors_or_sh` has shape {list(value.shape)}, expected [{count}, 3] colours or [{count}, K, 3] "
            "spherical harmonics for the Gaussians of `means`."
        )
    value = usable_tensor(value).to(like).contiguous()
    if value.ndim == 2:
        return value[None], None
    sh_degree(value)
    return None, value


def _checked_background(background: torch.Tensor | None, cameras: int, like: torch.Tensor) -> torch.Tensor:
    """[3] or [cameras, 3] in the dtype and on the device of `like`."""
    if background is None:
        return like.new_zeros(3)
    background = torch.as_tensor(background, dtype=like.dtype, device=like.device)
    if tuple(background.shape) not in ((3,), (cameras, 3)):
        raise ShapeMismatch(
            f"{_WHERE}: `background` has shape {list(background.shape)}, expected [3] or [{cameras}, 3]. To composite "
            "over an image use color + (1 - alpha) * image with a black background."
        )
    return usable_tensor(background)


def _check_values(scene: GaussianScene, background: torch.Tensor) -> None:
    """Raises `InvalidInput` naming what is not finite; a GPU is waited for once."""
    colors = scene.colors if scene.sh is None else scene.sh
    assert colors is not None
    named = {
        "means": scene.means, "quats": scene.quats, "scales": scene.scales, "opacities": scene.opacities,
        "colors_or_sh": colors, "features": scene.features,
        "background": background, "cameras.world_to_camera": scene.world_to_camera, "cameras.K": scene.K,
    }  # fmt: skip
    K = scene.K
    pinhole = (K[:, 0, 1] == 0).all() & (K[:, 0, 0] > 0).all() & (K[:, 1, 1] > 0).all()
    if not all_hold([*(finite_sign(value) for value in named.values()), pinhole]):
        for name, value in named.items():
            check_finite(_WHERE, name, value)
        if not bool(pinhole):
            raise InvalidInput(
                f"{_WHERE}: `cameras.K` has skew or a focal length <= 0; expected a plain pinhole matrix."
            )


def _checked_scene(
    means: torch.Tensor,
    shape: dict[str, torch.Tensor],
    colors_or_sh: torch.Tensor,
    cameras: Cameras,
    background: torch.Tensor | None,
    features: torch.Tensor | None,
) -> GaussianScene:
    """Validates everything before anything is rendered; raises `ShapeMismatch` or `InvalidInput`."""
    num_cameras = len(cameras)
    if means.ndim not in (2, 3) or means.shape[-1] != 3:
        raise ShapeMismatch(f"{_WHERE}: `means` has shape {list(means.shape)}, expected [N, 3] or [B, N, 3].")
    like = means if means.dtype in (torch.float32, torch.float64) else means.float()
    trailing = {"quats": (4,), "scales": (3,), "opacities": ()}
    checked = {name: _checked(name, shape[name], trailing[name], num_cameras, like) for name in trailing}
    colors, sh = _checked_colors(colors_or_sh, like)
    if features is None:
        features = like.new_zeros(like.shape[-2], 0)
    if features.ndim not in (2, 3):
        raise ShapeMismatch(f"{_WHERE}: `features` has shape {list(features.shape)}, expected [N, F] or [B, N, F].")
    background = _checked_background(background, num_cameras, like)
    scene = GaussianScene(
        means=_checked("means", means, (3,), num_cameras, like),
        **checked,
        colors=colors,
        sh=sh,
        features=_checked("features", features, (features.shape[-1],), num_cameras, like),
        background=background.expand(num_cameras, 3).contiguous(),
        world_to_camera=usable_tensor(cameras.world_to_camera).to(like),
        K=usable_tensor(cameras.K).to(like),
        width=cameras.width,
        height=cameras.height,
    )
    _check_values(scene, background)
    return scene


def _stages(backend: str) -> types.SimpleNamespace:
    """The three stages of a CPU back-end, imported on first use."""
    if backend == "numba":
        module = import_module(".numba_gaussians", __package__)
        return types.SimpleNamespace(
            project=module.project_gaussians, shade=module.shade_gaussians, composite=module.composite_gaussians
        )
    projection, raster = import_module(".torch_projection", __package__), import_module(".torch_raster", __package__)
    return types.SimpleNamespace(
        project=projection.project_gaussians, shade=projection.shade_gaussians, composite=raster.composite_gaussians
    )


def _render(scene: GaussianScene, backend: str) -> GaussianImage:
    """Runs the stages of a CPU back-end. Numba's tensors come from and go back to the scene's device and dtype."""
    device, dtype = scene.means.device, scene.means.dtype
    if backend == "numba" and (device.type != "cpu" or dtype != torch.float32):
        scene = scene.to("cpu", torch.float32)
    stages = _stages(backend)
    projection = stages.project(scene)
    colors = scene.colors if scene.colors is not None else stages.shade(scene, projection.radii)
    composite = stages.composite(scene, projection, colors)
    depth = composite.depth_sum / composite.alpha.clamp_min(1e-10)
    return GaussianImage(
        color=composite.color.to(device, dtype),
        alpha=composite.alpha.to(device, dtype),
        depth=depth.to(device, dtype),
        features=composite.features.to(device, dtype) if scene.features.shape[-1] else None,
        info={
            "means2d": projection.means2d,
            "radii": projection.radii,
            "visible": projection.radii > 0,
            "backend": backend,
        },
    )


def rasterize_gaussians(
    means: torch.Tensor,
    quats: torch.Tensor,
    scales: torch.Tensor,
    opacities: torch.Tensor,
    colors_or_sh: torch.Tensor,
    cameras: Cameras,
    size: Size = None,
    background: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
    backend: str = "auto",
) -> GaussianImage:
    """Renders N 3D Gaussians from B cameras (Kerbl et al., "3D Gaussian Splatting", with gsplat's conventions).

    means [N, 3]; quats [N, 4] wxyz, need not be unit; scales [N, 3] standard deviations in world units (not their
    logs); opacities [N] in 0..1 (not logits); each may also be [B, N, ...], one set per camera.
    colors_or_sh: [N, 3] colours as they are, or [N, K, 3] spherical harmonics, K = 1, 4, 9, 16, giving
    max(0, 0.5 + sum) along the viewing direction.
    size: (width, height) or an int for a square image, to render at another resolution than the cameras' own.
    background: [3] or [B, 3], black if None. features: [N, F] or [B, N, F], composited like colours over zero.
    backend: "auto", "numba", "torch" or "gsplat"; see `available_backends`.

    Differentiable in all float inputs except cameras. Runs on CPU tensors; CUDA tensors are rendered by gsplat if it
    can be used, otherwise on the CPU and copied back. float64 tensors are rendered by the torch back-end.
    Raises ShapeMismatch, InvalidInput (non-finite values, named and counted), MissingExtension.
    """
    cameras = resize_cameras(_WHERE, cameras, size)
    shape = {"quats": quats, "scales": scales, "opacities": opacities}
    scene = _checked_scene(means, shape, colors_or_sh, cameras, background, features)
    chosen = choose_backend("gaussians", backend, scene.means.device, scene.means.dtype)
    if chosen == "gsplat":
        rendered = import_module(".gsplat_gaussians", __package__).render_scene(scene, forced=backend == "gsplat")
        if rendered is not None:
            return rendered
        chosen = choose_backend("gaussians", "auto", torch.device("cpu"), scene.means.dtype)
    return _render(scene, chosen)


def gaussian_device(wanted: torch.device | str) -> torch.device:
    """Where to keep Gaussians that are rendered many times: `wanted` if it is a GPU on which gsplat runs, else the CPU.

    On any other device each picture would be rendered on the CPU and copied back. Why a GPU is not used is told once.
    """
    device, cpu = torch.device(wanted), torch.device("cpu")
    if device.type == "cpu" or choose_backend("gaussians", "auto", device, torch.float32) != "gsplat":
        return cpu
    return device if import_module(".gsplat_gaussians", __package__).is_ready() else cpu


def render_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    size: Size = None,
    background: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
    backend: str = "auto",
) -> GaussianImage:
    """`rasterize_gaussians` for the stored form: activates log scales and logit opacities at the door."""
    return rasterize_gaussians(
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales.exp(),
        gaussians.logit_opacities.sigmoid(),
        gaussians.sh,
        cameras,
        size=size,
        background=background,
        features=features,
        backend=backend,
    )

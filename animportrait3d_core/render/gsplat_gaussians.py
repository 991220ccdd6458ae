"""Adapter to gsplat's CUDA rasteriser (Apache-2.0; Ye et al., "gsplat: An open-source library for Gaussian splatting").

The conformance suite passes with gsplat 1.5.3 on an H100 (torch 2.11, CUDA 13.0). gsplat compiles its CUDA code on
first use, which takes minutes and needs nvcc; that belongs into the health check (`compile_extension`), so an automatic
choice takes gsplat only once it has been compiled.
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import torch

from ..errors import MissingExtension
from .backends import GSPLAT_HINT, cuda_problem, tell_once
from .images import GaussianImage
from .scene import BLUR, NEAR_PLANE, TILE, GaussianScene
from .torch_projection import shade_gaussians

_WHERE = "rasterize_gaussians"


def _is_compiled() -> bool:
    """Whether gsplat's extension is installed as a binary or lies in torch's build folder."""
    if importlib.util.find_spec("gsplat.csrc") is not None:
        return True
    from torch.utils.cpp_extension import _get_build_directory

    return any(Path(_get_build_directory("gsplat_cuda", False)).glob("gsplat_cuda*"))


def compile_extension() -> str:
    """Loads gsplat's CUDA extension, compiling it if need be (minutes). Returns what is wrong; empty if it works."""
    problem = cuda_problem("gsplat", GSPLAT_HINT)
    if problem:
        return problem
    try:
        from gsplat.cuda._backend import _C
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"gsplat's CUDA code does not compile or load ({type(error).__name__}: {error})"
    return "" if _C is not None else "gsplat found no CUDA toolkit (nvcc), so that it could not compile its CUDA code"


def is_ready(forced: bool = False) -> bool:
    """Whether gsplat can render now. If not, the user is told once, or `MissingExtension` is raised if `forced`, which
    also compiles it where that has not been done."""
    problem = "" if forced or _is_compiled() else "gsplat is not compiled yet; `animportrait3d doctor` does it"
    problem = problem or compile_extension()
    if problem and forced:
        raise MissingExtension(f"{_WHERE}: backend 'gsplat' cannot run: {problem}. Use backend='auto'.")
    if problem:
        tell_once("gsplat", f"{_WHERE}: {problem}; rendering on the CPU instead.")
    return not problem


def render_scene(scene: GaussianScene, forced: bool) -> GaussianImage | None:
    """Renders with gsplat; None, after telling the user once, if it cannot be used and was not asked for by name."""
    if not is_ready(forced):
        return None
    device = scene.means.device
    moved = scene.to("cuda" if device.type == "cpu" else device, torch.float32)
    image = _render(moved) if scene.num_gaussians else _background(moved)
    if device.type == "cuda":
        return image
    features = None if image.features is None else image.features.to(device)
    return GaussianImage(image.color.to(device), image.alpha.to(device), image.depth.to(device), features, image.info)


def _background(scene: GaussianScene) -> GaussianImage:
    """The image of no Gaussians; gsplat 1.5.3 divides by their number, which ends the process."""
    batch, size = scene.num_cameras, (scene.height, scene.width)
    nothing = scene.background.new_zeros(batch, *size)
    return GaussianImage(
        color=scene.background[:, None, None].expand(batch, *size, 3),
        alpha=nothing,
        depth=nothing,
        features=nothing[..., None].expand(-1, -1, -1, scene.features.shape[-1]) if scene.features.shape[-1] else None,
        info={
            "means2d": scene.background.new_zeros(batch, 1, 0, 2),
            "radii": torch.zeros(batch, 0, dtype=torch.int32, device=scene.background.device),
            "visible": torch.zeros(batch, 0, dtype=torch.bool, device=scene.background.device),
            "backend": "gsplat",
        },
    )


def _render(scene: GaussianScene) -> GaussianImage:
    from gsplat import rasterization

    batch, count = scene.num_cameras, scene.num_gaussians
    everyone = torch.ones(batch, count, dtype=torch.int32, device=scene.means.device)
    colors = shade_gaussians(scene, everyone) if scene.colors is None else scene.colors
    channels = torch.cat([colors.expand(batch, -1, -1), scene.features.expand(batch, -1, -1)], dim=-1)
    backgrounds = torch.nn.functional.pad(scene.background, (0, scene.features.shape[-1]))
    # One batch entry with one camera each, so that every input may differ from camera to camera.
    image, alpha, meta = rasterization(
        means=scene.means.expand(batch, -1, -1),
        quats=scene.quats.expand(batch, -1, -1),
        scales=scene.scales.expand(batch, -1, -1),
        opacities=scene.opacities.expand(batch, -1),
        colors=channels[:, None],
        viewmats=scene.world_to_camera[:, None],
        Ks=scene.K[:, None],
        width=scene.width,
        height=scene.height,
        near_plane=NEAR_PLANE,
        eps2d=BLUR,
        packed=False,
        tile_size=TILE,
        backgrounds=backgrounds[:, None],
        render_mode="RGB+ED",
    )
    image, radii = image[:, 0], meta["radii"][:, 0].amax(-1)
    return GaussianImage(
        color=image[..., :3],
        alpha=alpha[:, 0, ..., 0],
        depth=image[..., -1],
        features=image[..., 3:-1] if scene.features.shape[-1] else None,
        # [B, 1, N, 2] as gsplat made it: a view of it would receive no gradient of its own.
        info={"means2d": meta["means2d"], "radii": radii, "visible": radii > 0, "backend": "gsplat"},
    )

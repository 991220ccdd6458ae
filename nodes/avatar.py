"""The avatar made and shown: AP3D_InitializeAvatar, AP3D_FitToViews, AP3D_ShowPrimitives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.portrait.protocol import Portrait
    from animportrait3d_core.rigging.points import RiggedPoints
    from animportrait3d_core.views import Views


def beside_views(avatar: RiggedAvatar, views: Views) -> Tensor:
    """A picture [1, H, W, 3]: five of the views above, the avatar as they see it below."""
    import torch

    from animportrait3d_core import previews
    from animportrait3d_core.avatar import render_motion_views
    from animportrait3d_core.body.parameters import BodyParameters

    shown = views[list(range(0, len(views), max(1, len(views) // 5)))[:5]]
    frames = avatar.parameters if shown.body is None else BodyParameters.from_tensors(shown.body)
    rendered = render_motion_views(avatar, frames, shown.cameras, shown.background)
    return previews.tile(torch.cat([shown.images, rendered.images]), columns=len(shown))[None]


class InitializeAvatar:
    """Rigged points become 3D Gaussians, trained on the views."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Turns the rigged points into 3D Gaussians and trains them on the views, while they stay bound to the body's "
        "faces (paper, section 3.1.3). The result is an avatar that can be posed."
    )
    SEARCH_ALIASES = ["3DGS", "gaussian splatting", "train avatar", "avatar", "rig", "gaussian head", "head avatar"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR", "IMAGE", "SPLAT")
    RETURN_NAMES = ("avatar", "image", "splat")
    OUTPUT_TOOLTIPS = (
        "The avatar, rigged to the fitted body.",
        "Above: the views. Below: the avatar.",
        "The avatar at rest for ComfyUI's own splat nodes: preview, render, save.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "points": ("AP3D_POINTS", {"tooltip": "Coloured points bound to the body."}),
                "views": ("AP3D_VIEWS", {"tooltip": "Views of the portrait to train on."}),
                "fit": ("AP3D_FIT", {"tooltip": "The fit that the points are bound in; it becomes the rest pose."}),
                "preset": (
                    ["fixed", "paper"],
                    {
                        "default": "fixed",
                        "tooltip": "fixed: made for few points and minutes. paper: the authors' numbers.",
                    },
                ),
                "iterations": (
                    "INT",
                    {"default": 1000, "min": 0, "max": 100000, "step": 50, "tooltip": "Training steps, one view each."},
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Order of the views, and splits.",
                    },
                ),
            },
            "optional": {
                "prompt": ("STRING", {"default": "", "forceInput": True, "tooltip": "Kept with the avatar."}),
                "portrait": (
                    "AP3D_PORTRAIT",
                    {"tooltip": "How its file was turned and scaled into the head frame is kept with the avatar."},
                ),
                "close_views": (
                    "AP3D_VIEWS",
                    {"tooltip": "More views to train on, as large as the others: close ones keep eyes clean."},
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        points: RiggedPoints,
        views: Views,
        fit: BodyFit,
        preset: str,
        iterations: int,
        seed: int,
        prompt: str = "",
        portrait: Portrait | None = None,
        close_views: Views | None = None,
    ) -> dict[str, Any]:
        import dataclasses

        from animportrait3d_core.avatar import InitializeSettings, initialize_avatar
        from animportrait3d_core.optimization import FitViewsSettings, fit_to_views
        from animportrait3d_core.render import gaussian_device
        from animportrait3d_core.views import concatenate_views

        start = InitializeSettings.paper() if preset == "paper" else InitializeSettings()
        avatar = initialize_avatar(points, fit.body, fit.parameters, start, prompt=prompt)
        if iterations:
            settings = FitViewsSettings.paper() if preset == "paper" else FitViewsSettings()
            settings = settings.with_stage(iterations=iterations)
            seen = views if close_views is None else concatenate_views([views, close_views])
            device, bar = gaussian_device(host.device_with_room()), host.ProgressBar(iterations)
            avatar = fit_to_views(avatar, seen, settings, seed, bar, device, host.runs_folder())
        alignment = getattr(portrait, "alignment", None)
        metadata = {"seed": str(seed)} | ({"portrait_alignment": alignment.to_json()} if alignment else {})
        avatar = dataclasses.replace(avatar, metadata=metadata)
        image = beside_views(avatar, views)
        return host.node_result(avatar, image, host.host_splat(avatar), ui=host.preview_images(image, "avatar"))


class FitToViews:
    """An avatar follows pictures of itself, whoever made them."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Trains the avatar on views of it: pictures that any sampler, upscaler or painter has worked on between Render "
        "Views and Replace View Images, at rest or in motion (the open form of the paper's refinement)."
    )
    SEARCH_ALIASES = ["refine avatar", "super-resolution", "img2img refinement", "avatar", "fit gaussians", "3DGS"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR", "IMAGE")
    RETURN_NAMES = ("avatar", "image")
    OUTPUT_TOOLTIPS = ("The trained avatar.", "Above: the views. Below: the avatar.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to train; it is copied."}),
                "views": ("AP3D_VIEWS", {"tooltip": "What it should look like, at rest or each view in its own pose."}),
                "iterations": (
                    "INT",
                    {"default": 300, "min": 1, "max": 100000, "step": 50, "tooltip": "Training steps, one view each."},
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Order of the views, and splits.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, avatar: RiggedAvatar, views: Views, iterations: int, seed: int) -> dict[str, Any]:
        from animportrait3d_core.gaussians import MAX_SH_DEGREE
        from animportrait3d_core.optimization import FitViewsSettings, fit_to_views
        from animportrait3d_core.render import gaussian_device

        # Nothing is held: the pictures may be of painted lids.
        settings = FitViewsSettings().with_stage(
            name="fit_to_views", iterations=iterations, first_sh_degree=MAX_SH_DEGREE, holds=()
        )
        if views.body is not None:
            # Views in motion show the mouth's inside; at rest nothing does, and it must stay as it is.
            settings = settings.with_stage(frozen_parts=())
        device, bar = gaussian_device(host.device_with_room()), host.ProgressBar(iterations)
        trained = fit_to_views(avatar, views, settings, seed, bar, device, host.runs_folder())
        image = beside_views(trained, views)
        return host.node_result(trained, image, ui=host.preview_images(image, "avatar"))


class ShowPrimitives:
    """Each Gaussian in a colour of its own."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Gives every Gaussian a random colour, so that their size, place and overlap are seen (paper, appendix A3). "
        "Connect it to Render Views or Animate Avatar."
    )
    SEARCH_ALIASES = ["random colors", "visualize gaussians", "splats", "gaussian splatting", "3DGS", "debug"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR",)
    RETURN_NAMES = ("avatar",)
    OUTPUT_TOOLTIPS = ("The same avatar in other colours.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar; it is copied."}),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Of the colours.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, avatar: RiggedAvatar, seed: int) -> dict[str, Any]:
        from animportrait3d_core.avatar import in_random_colors

        return host.node_result(in_random_colors(avatar, seed))


NODE_CLASS_MAPPINGS = {
    "AP3D_InitializeAvatar": InitializeAvatar,
    "AP3D_FitToViews": FitToViews,
    "AP3D_ShowPrimitives": ShowPrimitives,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_InitializeAvatar": "Initialize Avatar",
    "AP3D_FitToViews": "Fit To Views",
    "AP3D_ShowPrimitives": "Show Primitives",
}

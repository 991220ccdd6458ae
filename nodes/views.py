"""AP3D_RenderViews, AP3D_ReplaceViewImages: pictures of a portrait or an avatar, and retouched ones in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.portrait.protocol import Portrait
    from animportrait3d_core.views import Views

BACKGROUNDS = ("white", "grey", "black")


def background_color(name: str) -> Tensor:
    """The colour [3] of a background choice."""
    import torch

    return torch.full((3,), {"white": 1.0, "grey": 0.5, "black": 0.0}[name])


class RenderViews:
    """A portrait or an avatar seen by a set of cameras."""

    CATEGORY = "AnimPortrait3D/views"
    DESCRIPTION = (
        "Renders the portrait, or the avatar, from a set of cameras around the head. The views carry pictures, masks, "
        "cameras and, with a motion, the pose of each; the following nodes fit and train on them."
    )
    SEARCH_ALIASES = [
        "multi-view",
        "turntable",
        "cameras",
        "render avatar",
        "render portrait",
        "camera orbit",
        "novel view",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_VIEWS", "IMAGE", "MASK")
    RETURN_NAMES = ("views", "images", "masks")
    OUTPUT_TOOLTIPS = ("Pictures, masks and cameras.", "The pictures alone.", "The masks alone.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.cameras import VIEW_PRESETS

        return {
            "required": {
                "subject": ("AP3D_PORTRAIT,AP3D_AVATAR", {"tooltip": "A static portrait, or an avatar."}),
                "preset": (
                    list(VIEW_PRESETS),
                    {
                        "default": "quickstart",
                        "tooltip": "quickstart: 60 views all around for small machines. mesh24, train120: the paper's. "
                        "heldout: 12 views in none of the others. turntable: 90 level views. face: 24 close views.",
                    },
                ),
                "size": ("INT", {"default": 256, "min": 32, "max": 2048, "step": 8, "tooltip": "Pixels per side."}),
                "background": (list(BACKGROUNDS), {"default": "white", "tooltip": "What shows behind the subject."}),
            },
            "optional": {
                "motion": (
                    "AP3D_MOTION",
                    {
                        "tooltip": "Poses of an avatar: each view shows the next frame from the next camera, until all "
                        "frames and all cameras were used. Without it the avatar is at rest."
                    },
                )
            },
        }

    @host.plain_torch
    def execute(
        self,
        subject: Portrait | RiggedAvatar,
        preset: str,
        size: int,
        background: str,
        motion: Motion | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.avatar import RiggedAvatar, pose_avatar, render_avatar_views, render_motion_views
        from animportrait3d_core.cameras import view_preset
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.portrait.views import render_views

        cameras, color = view_preset(preset, size), background_color(background)
        if motion is not None and not isinstance(subject, RiggedAvatar):
            raise InvalidInput(
                "AP3D_RenderViews: a motion is connected, but the subject is a static portrait; connect an avatar, or "
                "leave the motion out."
            )
        if isinstance(subject, RiggedAvatar) and motion is not None:
            views = render_motion_views(subject, motion.parameters, cameras, color, host.ProgressBar())
        elif isinstance(subject, RiggedAvatar):
            views = render_avatar_views(pose_avatar(subject, subject.parameters), cameras, color)
        else:
            views = render_views(subject, cameras, color, progress=host.ProgressBar())
        shown = views.images[:: max(1, len(views) // 8)][:8]
        return host.node_result(views, views.images, views.masks, ui=host.preview_images(shown, "views"))


class ReplaceViewImages:
    """Views with other pictures: retouched, upscaled or matted by any nodes of the host."""

    CATEGORY = "AnimPortrait3D/views"
    DESCRIPTION = (
        "Puts pictures (and masks) that other nodes have worked on back into the views, in the same order and with the "
        "same cameras. Larger pictures are fine: the cameras are scaled with them."
    )
    SEARCH_ALIASES = ["retouch", "matte", "upscale views", "img2img", "edit views", "inpaint views"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_VIEWS",)
    RETURN_NAMES = ("views",)
    OUTPUT_TOOLTIPS = ("The views with the new pictures.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "The views that were rendered."}),
                "images": ("IMAGE", {"tooltip": "One picture per view, in the same order."}),
            },
            "optional": {"masks": ("MASK", {"tooltip": "One mask per view; without it the old masks are kept."})},
        }

    @host.plain_torch
    def execute(self, views: Views, images: Tensor, masks: Tensor | None = None) -> dict[str, Any]:
        from animportrait3d_core.views import replace_images

        replaced = replace_images(views, images, masks)
        return host.node_result(replaced, ui=host.preview_images(replaced.images[:4], "views"))


NODE_CLASS_MAPPINGS = {"AP3D_RenderViews": RenderViews, "AP3D_ReplaceViewImages": ReplaceViewImages}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_RenderViews": "Render Views", "AP3D_ReplaceViewImages": "Replace View Images"}

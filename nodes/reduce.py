"""AP3D_ReduceAvatar: level of detail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.avatar import RiggedAvatar


class ReduceAvatar:
    """The same avatar with fewer Gaussians."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Leaves out the Gaussians that colour the pictures least, and trains those that stay to look like the whole "
        "avatar in many poses. Says how many decibels that costs, before and after, in poses that were held out."
    )
    SEARCH_ALIASES = ["level of detail", "LOD", "prune gaussians", "decimate avatar", "compress avatar", "splat budget"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR", "IMAGE", "STRING")
    RETURN_NAMES = ("avatar", "image", "text")
    OUTPUT_TOOLTIPS = (
        "The smaller avatar.",
        "Poses held out. Above: the whole avatar. Middle: pruned. Below: fitted once more.",
        "How many Gaussians are left, and what was lost, in dB.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to make smaller; it is copied."}),
                "budget": (
                    "INT",
                    {
                        "default": 20000, "min": 1, "max": 1000000, "step": 1000,
                        "tooltip": "Gaussians at most. An avatar that has no more is handed on as it is.",
                    },
                ),
                "steps": (
                    "INT",
                    {
                        "default": 300, "min": 0, "max": 100000, "step": 50,
                        "tooltip": "Training steps after the pruning, one picture each; 0 for none.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Of the poses that it is trained in, and of their order.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, avatar: RiggedAvatar, budget: int, steps: int, seed: int) -> dict[str, Any]:
        from animportrait3d_core.export.reduce import ReduceSettings, reduce_avatar
        from animportrait3d_core.render import gaussian_device

        def bar(name: str) -> host.ProgressBar:
            return host.ProgressBar(told=name)

        device = gaussian_device(host.device_with_room())
        done = reduce_avatar(avatar, ReduceSettings(budget, steps), seed, bar, device, host.runs_folder())
        image, text = done.image[None], done.words()
        return host.node_result(done.avatar, image, text, ui={**host.preview_images(image, "reduced"), "text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_ReduceAvatar": ReduceAvatar}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_ReduceAvatar": "Reduce Avatar"}

"""The avatar as a web page: AP3D_ExportPage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.animation.motion import Motion
    from animportrait3d_core.avatar import RiggedAvatar


class ExportPage:
    """One HTML file that is the avatar."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Writes the avatar as one web page that opens from disk in any current browser, with no server and no network: "
        "sliders for jaw, gaze, lids, expressions and head, eyes that follow the pointer, clips, screenshots, films. "
        "The picture is the trainer's own."
    )
    SEARCH_ALIASES = ["html", "web viewer", "webgl", "share avatar"]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("Where the page lies.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to show."}),
                "filename": ("STRING", {"default": "avatar", "tooltip": "Name in the output folder, without suffix."}),
                "budget": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 1000000, "step": 1000,
                        "tooltip": "Gaussians at most; those that colour the pictures least are left out. 0 keeps all.",
                    },
                ),
                "include_licensed_body": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "The page holds the body's template. Tick for a licensed body (SMPL-X) only if your "
                        "licence lets you pass it on, or keep the page to yourself.",
                    },
                ),
            },
            "optional": {
                "motion": ("AP3D_MOTION", {"tooltip": "A clip that the page can play."}),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        filename: str,
        budget: int,
        include_licensed_body: bool,
        motion: Motion | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit import arkit_map
        from animportrait3d_core.export import write_avatar_page

        target = host.save_path("AP3D_ExportPage", filename, ".html")
        # The host counts up; the headless runner's output folder belongs to one workflow.
        report = write_avatar_page(
            avatar,
            target.path,
            {} if motion is None else {"motion": motion},
            arkit=arkit_map(avatar.body).matrix,
            budget=budget or None,
            include_licensed_body=include_licensed_body,
            overwrite=True,
        )
        return host.node_result(str(target.path), ui={"text": [str(target.path), report.words()]})


NODE_CLASS_MAPPINGS = {"AP3D_ExportPage": ExportPage}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_ExportPage": "Export Page"}

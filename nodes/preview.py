"""The avatar alive on its node: AP3D_PreviewAvatar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .views import BACKGROUNDS, background_color

if TYPE_CHECKING:
    from pathlib import Path

    from animportrait3d_core.animation.motion import Motion
    from animportrait3d_core.avatar import RiggedAvatar

WHERE = "AP3D_PreviewAvatar"


class PreviewAvatar:
    """The web page of the avatar on a node of the graph."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Shows the avatar on the node, alive: turn it, move jaw, gaze, lids, head and expressions, stop a motion at a "
        "frame. Pose and camera are kept with the graph; the next run gives the picture and the pose."
    )
    SEARCH_ALIASES = ["view avatar", "avatar viewer", "3d preview", "pose avatar", "snapshot", "expression sliders"]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE", "AP3D_MOTION", host.LOAD3D_CAMERA)
    RETURN_NAMES = ("image", "motion", "camera_info")
    OUTPUT_TOOLTIPS = (
        "The avatar in the chosen pose, seen by the chosen camera, with all of its Gaussians.",
        "The chosen pose, as a motion of one frame.",
        "The camera of the picture, for ComfyUI's own 3D nodes.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        pixels = {"default": 512, "min": 64, "max": 2048, "step": 8}
        by_page = "Written by what you do on the node; {} is the beginning. "
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to show."}),
                "budget": (
                    "INT",
                    {
                        "default": 40000, "min": 0, "max": 1000000, "step": 1000,
                        "tooltip": "Gaussians on the node at most; those that colour the pictures least are left out. "
                        "0 shows all.",
                    },
                ),
                "width": ("INT", {**pixels, "tooltip": "Of the picture."}),
                "height": ("INT", {**pixels, "tooltip": "Of the picture."}),
                "background": (list(BACKGROUNDS), {"default": "white", "tooltip": "What shows behind the avatar."}),
                "include_licensed_body": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "The page on the node holds the body's template. Tick for a licensed body (SMPL-X) "
                        "only if your licence lets you send it to whoever opens this ComfyUI.",
                    },
                ),
                "pose": (
                    "STRING", {"default": "{}", "advanced": True, "tooltip": f"{by_page}Sliders and frame, as JSON."}
                ),
                "camera": (
                    "STRING", {"default": "{}", "advanced": True, "tooltip": f"{by_page}Angles and distance, as JSON."}
                ),
            },
            "optional": {
                "motion": ("AP3D_MOTION", {"tooltip": "A clip to play; stopped at a frame, that is the pose."}),
                "camera_info": (
                    host.LOAD3D_CAMERA,
                    {
                        "tooltip": "A camera of ComfyUI's own 3D nodes, or a list of them: the picture is seen by it, "
                        "or one by each, and not by the camera that is chosen on the node."
                    },
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        budget: int,
        width: int,
        height: int,
        background: str,
        include_licensed_body: bool,
        pose: str,
        camera: str,
        motion: Motion | None = None,
        camera_info: host.HostCameras | None = None,
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core.animation import render_motion, rest_motion
        from animportrait3d_core.animation.viewer import ViewerCamera, ViewerPose
        from animportrait3d_core.export.licences import refusal_of_page

        orbit = ViewerCamera.read(camera)
        cameras = orbit.cameras(width, height)
        if camera_info is not None:
            cameras = host.cameras_of_host(WHERE, camera_info, width, height)
        chosen, notes = ViewerPose.read(pose).motion(avatar.parameters, motion)
        ui: dict[str, Any] = {}
        refusal = refusal_of_page(avatar.body, include_licensed_body)
        if refusal is None:
            ui["ap3d_page"] = [_page(avatar, budget, motion, include_licensed_body)]
        else:
            notes.append(refusal)
        color = background_color(background)
        held = rest_motion(chosen.parameters, len(cameras))
        frames = torch.stack(list(render_motion(avatar, held, cameras, background=color)))
        if notes:
            ui["text"] = host.warn(WHERE, notes)
        told = camera_info if camera_info is not None else host.host_cameras(cameras, orbit.target)
        return host.node_result(frames, chosen, told, ui=ui)


def _page(avatar: RiggedAvatar, budget: int, motion: Motion | None, include_licensed_body: bool) -> dict[str, str]:
    """The page in the temporary folder, as `ui` entries name files. One avatar has one page, whatever its pose."""
    from animportrait3d_core.export.html import PAGE_FOLDER, WIDGET_SCRIPTS, write_avatar_page
    from animportrait3d_core.fingerprints import fingerprint

    code = [file.read_bytes() for file in sorted(PAGE_FOLDER.iterdir())]
    folder: Path = host.temp_folder()
    path = folder / f"ap3d_page_{fingerprint([avatar, budget, motion, code])}.html"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_avatar_page(
            avatar,
            path,
            {} if motion is None else {"motion": motion},
            budget=budget or None,
            include_licensed_body=include_licensed_body,
            overwrite=True,
            scripts=WIDGET_SCRIPTS,
        )
    return {"filename": path.name, "subfolder": "", "type": "temp"}


NODE_CLASS_MAPPINGS = {"AP3D_PreviewAvatar": PreviewAvatar}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_PreviewAvatar": "Preview Avatar"}

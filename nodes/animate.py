"""AP3D_LoadMotion, AP3D_AnimateAvatar: what the avatar does, and the film of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .body import BODY_SUBJECTS, body_at_rest
from .views import BACKGROUNDS, background_color

if TYPE_CHECKING:
    import torch

    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.model import BodyModel

MOTIONS = ("stress clip", "rest")


class LoadMotion:
    """A sequence of poses and expressions."""

    CATEGORY = "AnimPortrait3D/animation"
    DESCRIPTION = (
        "A motion for the body. stress clip: jaw, blinks, gaze to its limits, the head turned by 60 degrees, every "
        "expression. rest: the fitted pose, held still."
    )
    SEARCH_ALIASES = [
        "motion",
        "expression",
        "pose",
        "driver",
        "talking head",
        "animation",
        "facial animation",
        "blendshapes",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT")
    RETURN_NAMES = ("motion", "frames")
    OUTPUT_TOOLTIPS = ("Body parameters per frame.", "Number of frames.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": (
                    BODY_SUBJECTS,
                    {"tooltip": "Whose shape and rest pose the motion starts from: an avatar, a fit, or a body."},
                ),
                "motion": (list(MOTIONS), {"default": "stress clip", "tooltip": "Which motion."}),
                "frames": (
                    "INT",
                    {"default": 90, "min": 1, "max": 10000, "tooltip": "Number of frames of the motion `rest`."},
                ),
                "fps": ("FLOAT", {"default": 25.0, "min": 1.0, "max": 120.0, "tooltip": "Frames per second."}),
            }
        }

    @host.plain_torch
    def execute(
        self, avatar: RiggedAvatar | BodyFit | BodyModel, motion: str, frames: int, fps: float
    ) -> dict[str, Any]:
        from animportrait3d_core.animation import rest_motion, stress_clip

        body, parameters = body_at_rest(avatar)
        if motion == "rest":
            clip = rest_motion(parameters, frames, fps)
        else:
            clip = stress_clip(body, parameters, fps=fps)
        return host.node_result(clip, len(clip))


class AnimateAvatar:
    """The avatar in motion: frames and an mp4 film."""

    CATEGORY = "AnimPortrait3D/animation"
    DESCRIPTION = (
        "Poses the avatar in each frame of the motion, renders it, and saves an mp4 film in the output folder."
    )
    SEARCH_ALIASES = [
        "video",
        "turntable",
        "render motion",
        "mp4",
        "talking head",
        "avatar video",
        "film",
        "render avatar",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE", "STRING", "IMAGE")
    RETURN_NAMES = ("frames", "path", "highlights")
    OUTPUT_TOOLTIPS = ("The frames.", "Where the film lies.", "The frame at the height of each move.")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to animate."}),
                "motion": ("AP3D_MOTION", {"tooltip": "What it does."}),
                "camera": (
                    ["front", "turntable"],
                    {"default": "front", "tooltip": "front: the camera stands still. turntable: it goes around once."},
                ),
                "size": ("INT", {"default": 384, "min": 64, "max": 2048, "step": 8, "tooltip": "Pixels per side."}),
                "background": (list(BACKGROUNDS), {"default": "white", "tooltip": "What shows behind the avatar."}),
                "filename": ("STRING", {"default": "motion", "tooltip": "Name in the output folder, without suffix."}),
            }
        }

    @host.plain_torch
    def execute(
        self, avatar: RiggedAvatar, motion: Motion, camera: str, size: int, background: str, filename: str
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core.animation import front_cameras, render_motion, turntable_cameras, write_mp4

        cameras = turntable_cameras(len(motion), size) if camera == "turntable" else front_cameras(len(motion), size)
        bar = host.ProgressBar(len(motion), told="frames")

        def progress(step: int, total: int, _: torch.Tensor | None) -> None:
            bar(step, total)  # without the picture: ComfyUI would take it for the film of an earlier run

        frames = torch.stack(
            list(render_motion(avatar, motion, cameras, background=background_color(background), progress=progress))
        )
        target = host.save_path("AP3D_AnimateAvatar", filename, ".mp4")
        write_mp4(frames, target.path, fps=motion.fps)
        highlights = frames[motion.highlights()]
        return host.node_result(frames, str(target.path), highlights, ui=host.film(target))


NODE_CLASS_MAPPINGS = {"AP3D_LoadMotion": LoadMotion, "AP3D_AnimateAvatar": AnimateAvatar}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_LoadMotion": "Load Motion", "AP3D_AnimateAvatar": "Animate Avatar"}

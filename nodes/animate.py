"""AP3D_LoadMotion, AP3D_AnimateAvatar: what the avatar does, and the film of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .body import BODY_SUBJECTS, body_at_rest
from .views import BACKGROUNDS, background_color

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from animportrait3d_core.animation import Motion, Sound
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.model import BodyModel

    Audio = Mapping[str, torch.Tensor | int]

MOTIONS = ("stress clip", "rest")
FILM, CUT_OUT_FILM, CUT_OUT_FRAMES = "mp4", "webm", "png"
FORMATS = (FILM, CUT_OUT_FILM, CUT_OUT_FRAMES)
NOTHING_BESIDE = "nothing"
FRONT, TURNTABLE, FOUR_VIEWS = "front", "turntable", "four views"


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
    """The avatar in motion: frames, and a film or a folder of pictures."""

    CATEGORY = "AnimPortrait3D/animation"
    DESCRIPTION = (
        "Poses the avatar in each frame of the motion, renders it, and saves a film in the output folder: mp4, with a "
        "sound track if a sound is connected, webm with alpha, or one PNG with alpha for each frame."
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
        "webm",
        "transparent video",
        "alpha",
        "png sequence",
        "lip sync",
        "side by side",
        "compare with mesh",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE", "STRING", "IMAGE")
    RETURN_NAMES = ("frames", "path", "highlights")
    OUTPUT_TOOLTIPS = (
        "The frames.",
        "Where the film, or the folder of pictures, lies.",
        "The frame at the height of each move.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.animation.beside import BESIDE

        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to animate."}),
                "motion": ("AP3D_MOTION", {"tooltip": "What it does."}),
                "camera": (
                    [FRONT, TURNTABLE, FOUR_VIEWS],
                    {
                        "default": FRONT,
                        "tooltip": "front: the camera stands still. turntable: it goes around once. four views: front, "
                        "three-quarter, side and back at once, next to each other.",
                    },
                ),
                "size": ("INT", {"default": 384, "min": 64, "max": 2048, "step": 8, "tooltip": "Pixels per side."}),
                "background": (list(BACKGROUNDS), {"default": "white", "tooltip": "What shows behind the avatar."}),
                "filename": ("STRING", {"default": "motion", "tooltip": "Name in the output folder, without suffix."}),
            },
            "optional": {
                "format": (
                    list(FORMATS),
                    {
                        "default": FILM,
                        "tooltip": "mp4: a film that plays everywhere. webm: a film with alpha, for web pages and "
                        "editors. png: a folder with a picture of every frame, with alpha.",
                    },
                ),
                "sound": (
                    "AUDIO",
                    {"tooltip": "The film's sound. What is longer than the film is cut, the rest is silence."},
                ),
                "beside": (
                    list(BESIDE),
                    {
                        "default": NOTHING_BESIDE,
                        "tooltip": "What stands on the right of the avatar, or below four views of it, and moves as it "
                        "does. body: the mesh that "
                        "drives it, in clay. normals: that mesh by its normals.",
                    },
                ),
            },
        }

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        motion: Motion,
        camera: str,
        size: int,
        background: str,
        filename: str,
        format: str = FILM,
        sound: Audio | None = None,
        beside: str = NOTHING_BESIDE,
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core import animation
        from animportrait3d_core.animation import over_background, render_motion

        track = film_sound(sound, format)
        ways: dict[str, Any] = {TURNTABLE: animation.turntable_cameras, FOUR_VIEWS: animation.four_view_cameras}
        cameras = ways.get(camera, animation.front_cameras)(len(motion), size)
        bar = host.ProgressBar(len(motion), told="frames")

        def progress(step: int, total: int, _: torch.Tensor | None) -> None:
            bar(step, total)  # without the picture: ComfyUI would take it for the film of an earlier run

        color, cut_out = background_color(background), format != FILM
        pictures = torch.stack(list(render_motion(avatar, motion, cameras, color, progress, cut_out, beside)))
        path, ui = save_film(pictures, motion, filename, format, track)
        frames = over_background(pictures, color) if cut_out else pictures
        return host.node_result(frames, path, frames[motion.highlights()], ui=ui)


def film_sound(sound: Audio | None, format: str) -> Sound | None:
    """The sound track; refused where the format has none, before any work."""
    from animportrait3d_core.animation import sound_of_audio
    from animportrait3d_core.errors import InvalidInput

    if sound is not None and format == CUT_OUT_FRAMES:
        raise InvalidInput(
            f"AP3D_AnimateAvatar: pictures of the format '{format}' hold no sound; choose '{FILM}' or "
            f"'{CUT_OUT_FILM}', or take the sound off."
        )
    return None if sound is None else sound_of_audio(sound)


def save_film(
    pictures: torch.Tensor, motion: Motion, filename: str, format: str, sound: Sound | None
) -> tuple[str, dict[str, Any]]:
    """Save the pictures [T, H, W, C]; returns the path, and what the node shows."""
    from animportrait3d_core.animation import write_film, write_png_frames
    from animportrait3d_core.animation.sound import length_words

    where = "AP3D_AnimateAvatar"
    if format == CUT_OUT_FRAMES:
        target = host.save_path(where, f"{filename}_frames", "")
        # The host counts up; the headless runner's output folder belongs to one workflow.
        paths = write_png_frames(pictures, target.path, overwrite=True)
        return str(target.path), host.pictures_in(target, [paths[index].name for index in motion.highlights()])
    target = host.save_path(where, filename, f".{format}")
    write_film(pictures, target.path, motion.fps, sound)
    told = host.warn(where, length_words(sound, len(motion) / motion.fps)) if sound is not None else []
    return str(target.path), host.film(target) | ({"text": told} if told else {})


NODE_CLASS_MAPPINGS = {"AP3D_LoadMotion": LoadMotion, "AP3D_AnimateAvatar": AnimateAvatar}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_LoadMotion": "Load Motion", "AP3D_AnimateAvatar": "Animate Avatar"}

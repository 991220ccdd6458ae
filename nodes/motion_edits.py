"""AP3D_EditMotion, AP3D_JoinMotions: what is done to motions before an avatar is posed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .body import BODY_SUBJECTS, body_at_rest
from .motion import CATEGORY, MOTION_OUTPUT, number, strengths

if TYPE_CHECKING:
    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.model import BodyModel

    Subject = RiggedAvatar | BodyFit | BodyModel


class EditMotion:
    """A motion made calmer, stronger or weaker."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Takes the recorded face's own rest out of a motion, smooths it, sets the strength of each region, holds the "
        "neck, adds blinks, and changes the frame rate or the speed."
    )
    SEARCH_ALIASES = ["smooth motion", "retime", "blink", "neutral", "frame rate", "speed"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT")
    RETURN_NAMES = ("motion", "frames")
    OUTPUT_TOOLTIPS = (MOTION_OUTPUT, "Number of frames.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit.track import BASELINES

        return {
            "required": {
                "avatar": (BODY_SUBJECTS, {"tooltip": "For whom the motion was made; edits start from its rest pose."}),
                "motion": ("AP3D_MOTION", {"tooltip": "The motion to edit."}),
                "neutral": (
                    list(BASELINES),
                    {
                        "default": "none",
                        "tooltip": "The recorded face at rest, which becomes the avatar's: nothing, the first frame, "
                        "or the median of all frames.",
                    },
                ),
                "smoothing": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 99,
                        "step": 2,
                        "tooltip": "Frames that are smoothed over; 1 is off.",
                    },
                ),
                "dead_zone": number(0.0, 0.0, 1.0, "Movements smaller than this do nothing."),
                **strengths(
                    {
                        "mouth": (1.0, "Strength of mouth, jaw, cheeks and nose."),
                        "eyes": (1.0, "Strength of lids and gaze."),
                        "brows": (1.0, "Strength of the brows."),
                        "head": (1.0, "Strength of the turns of neck and head."),
                    }
                ),
                "lock_neck": ("BOOLEAN", {"default": False, "tooltip": "Neck and head stay as they are at rest."}),
                "blinks_per_minute": number(0.0, 0.0, 60.0, "Blinks that are added; people blink 10 to 20 times.", 1.0),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**53 - 1, "tooltip": "When the blinks come."}),
                "fps": number(0.0, 0.0, 120.0, "New frames per second; 0 keeps them.", 1.0),
                "speed": number(1.0, 0.1, 10.0, "2 is twice as fast.", 0.05),
            }
        }

    @host.plain_torch
    def execute(self, avatar: Subject, motion: Motion, fps: float, speed: float, **settings: Any) -> dict[str, Any]:
        from animportrait3d_core.animation.editing import EditSettings, edited
        from animportrait3d_core.animation.timing import retimed

        body, rest = body_at_rest(avatar)
        # Blinks come last: a faster film is not to blink faster.
        retimed_motion = retimed(motion, fps or motion.fps, speed)
        done = edited(retimed_motion, body, rest, EditSettings(**settings))
        return host.node_result(done, len(done))


class JoinMotions:
    """Motions one after the other, faded into each other; loops."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Plays motions one after the other at the frame rate of the first, each faded into the next. A loop leads the "
        "end back into the beginning."
    )
    SEARCH_ALIASES = ["concatenate motions", "loop motion", "cross-fade", "repeat"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT")
    RETURN_NAMES = ("motion", "frames")
    OUTPUT_TOOLTIPS = (MOTION_OUTPUT, "Number of frames.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "motion": ("AP3D_MOTION", {"tooltip": "The first motion; its frame rate is the result's."}),
                "crossfade": (
                    "INT",
                    {"default": 8, "min": 0, "max": 1000, "tooltip": "Frames of each two that lie over each other."},
                ),
                "loop": ("BOOLEAN", {"default": False, "tooltip": "Lead the end back into the beginning."}),
                "repeat": ("INT", {"default": 1, "min": 1, "max": 100, "tooltip": "How often all of it is played."}),
            },
            "optional": {
                f"motion_{place}": ("AP3D_MOTION", {"tooltip": f"Motion {place}, if there are so many."})
                for place in (2, 3, 4)
            },
        }

    @host.plain_torch
    def execute(
        self,
        motion: Motion,
        crossfade: int,
        loop: bool,
        repeat: int,
        motion_2: Motion | None = None,
        motion_3: Motion | None = None,
        motion_4: Motion | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.timing import joined, looped, repeated

        parts = [part for part in (motion, motion_2, motion_3, motion_4) if part is not None]
        result = joined(parts, crossfade)
        if loop:
            result = looped(result, max(1, crossfade))
        result = repeated(result, repeat) if loop or repeat == 1 else joined([result] * repeat, crossfade)
        return host.node_result(result, len(result))


NODE_CLASS_MAPPINGS = {"AP3D_EditMotion": EditMotion, "AP3D_JoinMotions": JoinMotions}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_EditMotion": "Edit Motion", "AP3D_JoinMotions": "Join Motions"}

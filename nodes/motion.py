"""AP3D_PoseSliders, AP3D_LoadMotionFile, AP3D_SaveMotion, AP3D_MotionFromFaceLandmarks: what drives an avatar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .body import BODY_SUBJECTS, body_at_rest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.model import BodyModel

    Subject = RiggedAvatar | BodyFit | BodyModel
    FaceLandmarks = Mapping[str, Sequence[Any]]

CATEGORY = "AnimPortrait3D/animation"
SUBJECT = (BODY_SUBJECTS, {"tooltip": "Whose shape and rest pose the motion starts from: an avatar, a fit, or a body."})
MOTION_OUTPUT = "Body parameters per frame."


def number(default: float, low: float, high: float, tooltip: str, step: float = 0.01) -> tuple[str, dict[str, Any]]:
    options = {"default": default, "min": low, "max": high, "step": step, "round": False, "tooltip": tooltip}
    return "FLOAT", options


def strengths(words: dict[str, tuple[float, str]]) -> dict[str, Any]:
    return {name: number(default, 0.0, 5.0, tooltip, 0.05) for name, (default, tooltip) in words.items()}


class PoseSliders:
    """A face by name and by sliders, as a motion."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A motion from a named face with sliders on top of it, held or reached and left again. Works on any body: the "
        "sliders are ARKit shapes."
    )
    SEARCH_ALIASES = ["expression", "emotion", "blendshapes", "sliders", "preset", "facial expression"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT")
    RETURN_NAMES = ("motion", "frames")
    OUTPUT_TOOLTIPS = (MOTION_OUTPUT, "Number of frames.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.animation.presets import MOVES, PRESETS

        return {
            "required": {
                "avatar": SUBJECT,
                "preset": (list(PRESETS), {"default": "smile", "tooltip": "The face to begin with."}),
                "strength": number(1.0, 0.0, 2.0, "Of the preset.", 0.05),
                "mouth_open": number(0.0, 0.0, 1.5, "Jaw down."),
                "smile": number(0.0, -1.5, 1.5, "Mouth corners up; below 0 down."),
                "pucker": number(0.0, 0.0, 1.5, "Lips pushed out, as for a kiss."),
                "mouth_left": number(0.0, -1.5, 1.5, "Mouth to the subject's left; below 0 to the right."),
                "brows": number(0.0, -1.5, 1.5, "Brows raised; below 0 drawn together."),
                "sneer": number(0.0, 0.0, 1.5, "Nose wrinkled."),
                "cheek_puff": number(0.0, 0.0, 1.5, "Cheeks blown up."),
                "blink_left": number(0.0, -1.0, 1.0, "Subject's left lids closed; below 0 wide open."),
                "blink_right": number(0.0, -1.0, 1.0, "Subject's right lids closed; below 0 wide open."),
                "look_left": number(0.0, -1.0, 1.0, "Both eyes to the subject's left; below 0 to the right."),
                "look_up": number(0.0, -1.0, 1.0, "Both eyes up; below 0 down."),
                "turn_degrees": number(0.0, -90.0, 90.0, "Head turned to the subject's left.", 1.0),
                "nod_degrees": number(0.0, -60.0, 60.0, "Head raised; below 0 lowered.", 1.0),
                "tilt_degrees": number(0.0, -60.0, 60.0, "Head tilted to the subject's left shoulder.", 1.0),
                "move": (
                    list(MOVES),
                    {"default": "hold", "tooltip": "hold: in every frame. there and back: from rest, and back to it."},
                ),
                "frames": ("INT", {"default": 25, "min": 1, "max": 10000, "tooltip": "Number of frames."}),
                "fps": number(25.0, 1.0, 120.0, "Frames per second.", 1.0),
            },
            "optional": {
                "shapes": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "More ARKit shapes, added to the sliders: jawLeft 0.4, mouthFunnel 1",
                    },
                )
            },
        }

    @host.plain_torch
    def execute(
        self,
        avatar: Subject,
        preset: str,
        strength: float,
        move: str,
        frames: int,
        fps: float,
        shapes: str = "",
        **sliders: float,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.presets import (
            FaceMotion,
            FaceSliders,
            face_motion,
            parse_strengths,
            slider_strengths,
        )

        body, rest = body_at_rest(avatar)
        face = FaceSliders(**sliders)
        wanted = slider_strengths(preset, strength, face)
        for name, value in parse_strengths(shapes).items():
            wanted[name] = wanted.get(name, 0.0) + value
        motion = face_motion(body, rest, wanted, face, FaceMotion(frames, fps, move))
        return host.node_result(motion, len(motion))


class LoadMotionFile:
    """A motion that was recorded elsewhere."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Reads a motion from the input folder: this project's (safetensors), the authors' exp.npy with pose.npy, FLAME "
        "of VHAP and GaussianAvatars (npz; a folder with one per frame too), ARKit shapes (CSV of Live "
        "Link Face, JSON)."
    )
    SEARCH_ALIASES = ["VHAP", "GaussianAvatars", "NeRSemble", "Live Link Face", "ARKit", "FLAME", "exp.npy", "driver"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT", "STRING")
    RETURN_NAMES = ("motion", "frames", "notes")
    OUTPUT_TOOLTIPS = (MOTION_OUTPUT, "Number of frames.", "What was mended or left out.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.animation.files import MOTION_SUFFIXES

        files = host.input_files(MOTION_SUFFIXES)
        return {
            "required": {
                "avatar": SUBJECT,
                "file": (
                    files or ["(no motion files)"],
                    {
                        "tooltip": "A file of the input folder. Of exp.npy and pose.npy choose either; both are read.",
                        **host.input_file_option(MOTION_SUFFIXES),
                    },
                ),
                "fps": number(0.0, 0.0, 240.0, "Frames per second of the recording; 0: the file's own, or 25.", 1.0),
                "expressions": (
                    ["matching", "always", "never"],
                    {
                        "default": "matching",
                        "tooltip": "Coefficients of expression. matching: if they are of the body's own basis (FLAME's "
                        "are not). always: as they are. never: jaw, eyes, neck and head alone.",
                    },
                ),
                "whole_folder": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "The folder of the file holds one npz per frame: read them all."},
                ),
                "head": ("BOOLEAN", {"default": True, "tooltip": "Neck and head turn as recorded."}),
                "follow": ("BOOLEAN", {"default": False, "tooltip": "The head also moves through space as recorded."}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, file: str, whole_folder: bool = False, **inputs: Any) -> str:
        from animportrait3d_core.animation.files import files_of_motion

        return host.stamp_of(lambda: files_of_motion(host.input_file("AP3D_LoadMotionFile", file), whole_folder))

    @host.plain_torch
    def execute(
        self,
        avatar: Subject,
        file: str,
        fps: float,
        expressions: str,
        whole_folder: bool,
        head: bool,
        follow: bool,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.files import ReadSettings, read_motion

        body, rest = body_at_rest(avatar)
        settings = ReadSettings(fps, expressions, whole_folder, follow, head)
        loaded = read_motion(host.input_file("AP3D_LoadMotionFile", file), body, rest, settings)
        notes = "\n".join(loaded.notes)
        return host.node_result(loaded.motion, len(loaded.motion), notes, ui={"text": [notes]} if notes else {})


class SaveMotion:
    """A motion as a file."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Saves a motion as safetensors in the output folder, for Load Motion File."
    SEARCH_ALIASES = ["export motion", "write motion", "keep animation", "safetensors"]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("Where the file lies.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": (BODY_SUBJECTS, {"tooltip": "For whom the motion was made: the file names its body."}),
                "motion": ("AP3D_MOTION", {"tooltip": "The motion to save."}),
                "filename": ("STRING", {"default": "motion", "tooltip": "Name in the output folder, without suffix."}),
            }
        }

    @host.plain_torch
    def execute(self, avatar: Subject, motion: Motion, filename: str) -> dict[str, Any]:
        from animportrait3d_core.animation.files import save_motion

        target = host.save_path("AP3D_SaveMotion", filename, ".safetensors")
        save_motion(motion, body_at_rest(avatar)[0], target.path)
        return host.node_result(str(target.path), ui={"text": [str(target.path)]})


class MotionFromFaceLandmarks:
    """A video in the graph drives the avatar."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Turns the faces that the host's MediaPipe Face Landmarker finds in the frames of a video into a motion: "
        "expressions, gaze, lids, and the head's turns."
    )
    SEARCH_ALIASES = ["drive from video", "MediaPipe", "ARKit", "blendshapes", "face capture", "reenactment"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MOTION", "INT", "STRING")
    RETURN_NAMES = ("motion", "frames", "notes")
    OUTPUT_TOOLTIPS = (MOTION_OUTPUT, "Number of frames.", "What was mended or left out.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit.track import BASELINES

        return {
            "required": {
                "avatar": SUBJECT,
                "face_landmarks": ("FACE_LANDMARKS", {"tooltip": "Faces of each frame, of MediaPipe Face Landmarker."}),
                "fps": number(25.0, 1.0, 240.0, "Frames per second of the video.", 1.0),
                "face": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 15,
                        "tooltip": "Which face of the first frame; it is then followed.",
                    },
                ),
                "baseline": (
                    list(BASELINES),
                    {
                        "default": "none",
                        "tooltip": "The face at rest, which is subtracted: nothing, the first frame, or the median of "
                        "all frames (for a second or more).",
                    },
                ),
                "dead_zone": number(0.02, 0.0, 0.5, "Strengths below this are nothing."),
                "smoothing": (
                    "INT",
                    {
                        "default": 7,
                        "min": 1,
                        "max": 99,
                        "step": 2,
                        "tooltip": "Frames that are smoothed over; 1 is off.",
                    },
                ),
                **strengths(
                    {
                        "mouth": (1.0, "Strength of mouth, jaw, cheeks and nose."),
                        "eyes": (1.0, "Strength of lids and gaze."),
                        "brows": (2.0, "Strength of the brows, which trackers see too weak."),
                        "head": (1.0, "Strength of the head's turns; 0: the head stays."),
                    }
                ),
                "mirrored": ("BOOLEAN", {"default": False, "tooltip": "The video is a mirror image, as of a webcam."}),
            }
        }

    @host.plain_torch
    def execute(
        self, avatar: Subject, face_landmarks: FaceLandmarks, fps: float, face: int, **settings: Any
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit import TrackSettings, arkit_map, arkit_motion, processed_track
        from animportrait3d_core.animation.arkit.face_landmarks import track_of_face_landmarks

        body, rest = body_at_rest(avatar)
        track = track_of_face_landmarks(face_landmarks, fps, face)
        motion = arkit_motion(processed_track(track, TrackSettings(**settings)), rest, arkit_map(body))
        notes = "\n".join(track.notes)
        return host.node_result(motion, len(motion), notes, ui={"text": [notes]} if notes else {})


NODE_CLASS_MAPPINGS = {
    "AP3D_PoseSliders": PoseSliders,
    "AP3D_LoadMotionFile": LoadMotionFile,
    "AP3D_SaveMotion": SaveMotion,
    "AP3D_MotionFromFaceLandmarks": MotionFromFaceLandmarks,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_PoseSliders": "Pose Sliders",
    "AP3D_LoadMotionFile": "Load Motion File",
    "AP3D_SaveMotion": "Save Motion",
    "AP3D_MotionFromFaceLandmarks": "Motion from Face Landmarks",
}

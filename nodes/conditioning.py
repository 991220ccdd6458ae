"""AP3D_ConditionMaps, AP3D_Prompts: what a diffusion model is shown and told about a view of the person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .body import BODY_SUBJECTS, body_at_rest

if TYPE_CHECKING:
    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.body.parameters import BodyParameters


class ConditionMaps:
    """The condition map of a posed body."""

    CATEGORY = "AnimPortrait3D/guidance"
    DESCRIPTION = (
        "Draws what the ControlNet sees of the body in a region of the picture: normals of the face, and labels of "
        "eyes and teeth; apart, and packed into the 4 channels that the ControlNet takes."
    )
    SEARCH_ALIASES = [
        "normal map",
        "segmentation map",
        "ControlNet image",
        "label map",
        "smplx",
        "conditioning",
        "normal ControlNet",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("normals", "labels", "packed")
    OUTPUT_TOOLTIPS = (
        "Camera-space normals of the face, coded as colours; white elsewhere.",
        "Sclera white, teeth and iris grey, everything else black.",
        "Both in 4 channels, for Sample Guidance and for ComfyUI's Apply ControlNet.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.conditioning.crops import CROP_REGIONS

        angle = {"default": 0.0, "step": 1.0, "round": False}
        return {
            "required": {
                "subject": (BODY_SUBJECTS, {"tooltip": "An avatar, a fitted body, or a body by itself."}),
                "region": (
                    list(CROP_REGIONS),
                    {
                        "default": "face",
                        "tooltip": "What the picture shows. Left and right are the picture's: the left eye is the "
                        "subject's right one.",
                    },
                ),
                "yaw": (
                    "FLOAT",
                    {**angle, "min": -180.0, "max": 180.0, "tooltip": "Degrees: 0 in front, 90 the subject's left."},
                ),
                "elevation": (
                    "FLOAT",
                    {**angle, "min": -85.0, "max": 85.0, "tooltip": "Degrees; above 0 the camera looks down."},
                ),
                "size": (
                    "INT",
                    {
                        "default": 512, "min": 32, "max": 2048, "step": 8,
                        "tooltip": "Pixels per side: those of the model, 128 of the embedded prior, 512 of Stable "
                        "Diffusion 1.5.",
                    },
                ),
                "frame": (
                    "INT",
                    {"default": 0, "min": 0, "max": 99999, "tooltip": "Which frame of the motion, counted from 0."},
                ),
            },
            "optional": {"motion": ("AP3D_MOTION", {"tooltip": "Poses; without it the body rests."})},
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        subject: RiggedAvatar | BodyFit | BodyModel,
        region: str,
        yaw: float,
        elevation: float,
        size: int,
        frame: int,
        motion: Motion | None = None,
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core.cameras import orbit_cameras
        from animportrait3d_core.conditioning import (
            CROP_REGIONS,
            FRAME_SIZE,
            condition_assets,
            crop_cameras,
            posed_condition_map,
        )

        body, parameters = body_at_rest(subject)
        parameters = parameters if motion is None else frame_of_motion(motion, frame)
        part = CROP_REGIONS[region]
        with torch.no_grad():
            posed = body(parameters)
            seen = orbit_cameras([yaw], [elevation], FRAME_SIZE)
            cameras = crop_cameras(part, seen, posed.landmarks[0], size)
            packed = posed_condition_map(condition_assets(body.assets), posed, cameras)
        normals, labels = packed[..., :3].contiguous(), packed[..., 3:].repeat(1, 1, 1, 3)
        lines = [] if motion is None or not motion.names else [f"frame {frame}: {motion.names[frame]}"]
        if not part.seen_from(yaw):
            lines.append(f"The method looks at this region from {part.yaws[0]:g} to {part.yaws[1]:g} degrees only.")
        ui = host.preview_images(torch.cat([normals, labels]), "condition") | ({"text": lines} if lines else {})
        return host.node_result(normals, labels, packed, ui=ui)


def frame_of_motion(motion: Motion, frame: int) -> BodyParameters:
    """One pose of a motion."""
    from animportrait3d_core.errors import InvalidInput

    if frame >= len(motion):
        raise InvalidInput(
            f"AP3D_ConditionMaps: frame {frame}, but the motion has {len(motion)} frames; choose one of 0 to "
            f"{len(motion) - 1}."
        )
    return motion.parameters[frame]


class PromptTexts:
    """The texts of a person."""

    CATEGORY = "AnimPortrait3D/guidance"
    DESCRIPTION = (
        "What the diffusion model is told: the whole description for bust and face, the region and an abstract prompt "
        "(age and sex) for eyes and mouth, each under the word of its view."
    )
    SEARCH_ALIASES = [
        "text",
        "negative prompt",
        "CLIP text",
        "abstract prompt",
        "view words",
        "prompt",
        "CLIPTextEncode",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PROMPTS", "STRING")
    RETURN_NAMES = ("prompts", "texts")
    OUTPUT_TOOLTIPS = ("All texts of the person.", "The same to read, one a line.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        words = {"default": "", "multiline": True}
        return {
            "required": {
                "prompt": (
                    "STRING",
                    {**words, "tooltip": "The whole description; connect the prompt of a portrait, or write it."},
                ),
                "abstract_prompt": (
                    "STRING",
                    {
                        **words,
                        "tooltip": "For eyes and mouth: age and sex, 'a young man'. Empty: taken from the prompt.",
                    },
                ),
                "negative_prompt": (
                    "STRING",
                    {
                        **words,
                        "tooltip": "What to lead away from. Stable Diffusion 1.5: 'tattoo, blur, lowres, bad anatomy, "
                        "cropped, worst quality'. Leave it empty for the embedded prior, which knows none of these.",
                    },
                ),
                "view_words": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Begin texts with 'front view', 'side view' or 'back view'."},
                ),
            }
        }

    @host.plain_torch
    def execute(self, prompt: str, abstract_prompt: str, negative_prompt: str, view_words: bool) -> dict[str, Any]:
        from animportrait3d_core.conditioning import Prompts

        prompts = Prompts.of(prompt, abstract_prompt, negative_prompt, view_words)
        text = prompts.summary()
        return host.node_result(prompts, text, ui={"text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_ConditionMaps": ConditionMaps, "AP3D_Prompts": PromptTexts}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_ConditionMaps": "Condition Maps", "AP3D_Prompts": "Prompts"}

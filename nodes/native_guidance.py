"""AP3D_GuidanceFromModel: the diffusion model that the user has loaded and changed with ComfyUI's own nodes."""

from __future__ import annotations

from typing import Any

from animportrait3d_core.errors import InvalidInput

from . import host

WHERE = "AP3D_GuidanceFromModel"


class GuidanceFromModel:
    """A guidance of the host's objects."""

    CATEGORY = "AnimPortrait3D/guidance"
    DESCRIPTION = (
        "Takes MODEL, CLIP and VAE of ComfyUI's own loaders as the guidance, with all LoRAs, model patches and CFG "
        "patches that stand before it, and a ControlNet of 4 channels (normals and labels). For models of the shape "
        "of Stable Diffusion 1.5; others are refused by name. Only inside ComfyUI: elsewhere use Load Guidance."
    )
    SEARCH_ALIASES = ["checkpoint", "ControlNet", "LoRA", "stable diffusion", "MODEL to guidance", "CFG", "APG"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_GUIDANCE", "STRING")
    RETURN_NAMES = ("guidance", "description")
    OUTPUT_TOOLTIPS = (
        "The model, ready to predict. Nodes that use it load it, and leave it to ComfyUI's memory management.",
        "Its family, type of prediction, latent channels, ControlNet and device.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "Of Load Checkpoint, with LoRAs and patches as you like."}),
                "clip": ("CLIP", {"tooltip": "The text encoder that belongs to the model."}),
                "vae": ("VAE", {"tooltip": "Gradients go through a copy of it in float32."}),
                "control_strength": (
                    "FLOAT",
                    {
                        "default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, "round": False,
                        "tooltip": "How much the ControlNet is heard.",
                    },
                ),
                "image_size": (
                    "INT",
                    {
                        "default": 512, "min": 64, "max": 2048, "step": 64,
                        "tooltip": "Side of the pictures that it is asked about: what it was trained for, 512 for "
                        "Stable Diffusion 1.5, 768 for 2.1. Smaller ones need less memory.",
                    },
                ),
                "guidance_scale": (
                    "FLOAT",
                    {
                        "default": 7.5, "min": 1.0, "max": 100.0, "step": 0.5, "round": False,
                        "tooltip": "With which its pictures are best; stages take it where theirs is 0.",
                    },
                ),
            },
            "optional": {
                "control_net": (
                    "CONTROL_NET",
                    {"tooltip": "Of Load ControlNet Model: one of 4 channels (normals and label); ordinary ones have "
                                "3 and are refused."},
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        model: object,
        clip: object,
        vae: object,
        control_strength: float,
        image_size: int,
        guidance_scale: float,
        control_net: object = None,
    ) -> dict[str, Any]:
        if not host.in_comfyui():
            raise InvalidInput(f"{WHERE}: this node needs ComfyUI, which makes its inputs; use Load Guidance instead.")
        from animportrait3d_core.diffusion.hosted import HostedGuidance

        found = host.native_model(WHERE, model, clip, vae, control_net, control_strength, image_size)
        text = found.summary()
        return host.node_result(HostedGuidance(found, guidance_scale), text, ui={"text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_GuidanceFromModel": GuidanceFromModel}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_GuidanceFromModel": "Guidance from Model"}

"""What the builder of graphs needs to know of nodes of ComfyUI's own: their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from .definitions import Registry


def _core_node(inputs: Mapping[str, tuple], returns: tuple[str, ...] = ()) -> type:
    declared = {"required": dict(inputs)}
    methods = {"INPUT_TYPES": classmethod(lambda cls: declared), "RETURN_TYPES": returns, "OUTPUT_NODE": not returns}
    return type("CoreNode", (), methods)


_SAMPLERS = ["euler", "dpmpp_2m", "ddim"]
_SCHEDULERS = ["normal", "karras", "ddim_uniform"]
_CONDITIONING: dict[str, tuple] = {"positive": ("CONDITIONING", {}), "negative": ("CONDITIONING", {})}

CORE_NODES: Registry = {
    "CheckpointLoaderSimple": _core_node(
        {"ckpt_name": (["Realistic_Vision_V5.1_fp16-no-ema.safetensors"], {})}, ("MODEL", "CLIP", "VAE")
    ),
    "CLIPTextEncode": _core_node({"text": ("STRING", {"multiline": True}), "clip": ("CLIP", {})}, ("CONDITIONING",)),
    "ControlNetApplyAdvanced": _core_node(
        {
            **_CONDITIONING,
            "control_net": ("CONTROL_NET", {}),
            "image": ("IMAGE", {}),
            "strength": ("FLOAT", {"default": 1.0}),
            "start_percent": ("FLOAT", {"default": 0.0}),
            "end_percent": ("FLOAT", {"default": 1.0}),
        },
        ("CONDITIONING", "CONDITIONING"),
    ),
    "ControlNetLoader": _core_node(
        {
            "control_net_name": (
                ["AnimPortrait3D_controlnet.safetensors", "control_v11f1e_sd15_tile_fp16.safetensors"],
                {},
            ),
        },
        ("CONTROL_NET",),
    ),
    "ImageScale": _core_node(
        {
            "image": ("IMAGE", {}),
            "upscale_method": (["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], {"default": "area"}),
            "width": ("INT", {"default": 512}),
            "height": ("INT", {"default": 512}),
            "crop": (["disabled", "center"], {"default": "disabled"}),
        },
        ("IMAGE",),
    ),
    "ImageUpscaleWithModel": _core_node({"upscale_model": ("UPSCALE_MODEL", {}), "image": ("IMAGE", {})}, ("IMAGE",)),
    "KSampler": _core_node(
        {
            "model": ("MODEL", {}),
            "seed": ("INT", {"default": 0, "control_after_generate": True}),
            "steps": ("INT", {"default": 20}),
            "cfg": ("FLOAT", {"default": 8.0}),
            "sampler_name": (_SAMPLERS, {}),
            "scheduler": (_SCHEDULERS, {}),
            **_CONDITIONING,
            "latent_image": ("LATENT", {}),
            "denoise": ("FLOAT", {"default": 1.0}),
        },
        ("LATENT",),
    ),
    "LoadImage": _core_node({"image": ([], {"image_upload": True})}, ("IMAGE", "MASK")),
    "LoraLoader": _core_node(
        {
            "model": ("MODEL", {}),
            "clip": ("CLIP", {}),
            "lora_name": (["style.safetensors"], {}),
            "strength_model": ("FLOAT", {"default": 1.0}),
            "strength_clip": ("FLOAT", {"default": 1.0}),
        },
        ("MODEL", "CLIP"),
    ),
    "PreviewAny": _core_node({"source": ("*", {})}),
    "PreviewImage": _core_node({"images": ("IMAGE", {})}),
    "Preview3D": _core_node({"model_file": ("STRING", {"default": ""})}),
    "UpscaleModelLoader": _core_node({"model_name": (["RealESRGAN_x2plus.pth"], {})}, ("UPSCALE_MODEL",)),
    "VAEDecode": _core_node({"samples": ("LATENT", {}), "vae": ("VAE", {})}, ("IMAGE",)),
    "VAEEncode": _core_node({"pixels": ("IMAGE", {}), "vae": ("VAE", {})}, ("LATENT",)),
    "VAELoader": _core_node({"vae_name": (["sd-vae-ft-ema.safetensors"], {})}, ("VAE",)),
    "SaveImage": _core_node({"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}),
}

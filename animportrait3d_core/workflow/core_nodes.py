"""What the builder of graphs needs to know of nodes of ComfyUI's own: their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from .definitions import Registry


def _core_node(inputs: Mapping[str, tuple], returns: tuple[str, ...] = ()) -> type:
    declared = {"required": dict(inputs)}
    methods = {"INPUT_TYPES": classmethod(lambda cls: declared), "RETURN_TYPES": returns, "OUTPUT_NODE": not returns}
    return type("CoreNode", (), methods)


CORE_NODES: Registry = {
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
    "LoadImage": _core_node({"image": ([], {"image_upload": True})}, ("IMAGE", "MASK")),
    "PreviewAny": _core_node({"source": ("*", {})}),
    "PreviewImage": _core_node({"images": ("IMAGE", {})}),
    "Preview3D": _core_node({"model_file": ("STRING", {"default": ""})}),
    "UpscaleModelLoader": _core_node({"model_name": (["RealESRGAN_x2plus.pth"], {})}, ("UPSCALE_MODEL",)),
    "SaveImage": _core_node({"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}),
}

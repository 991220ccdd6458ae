"""Pictures on a node: PNG files in the host's temporary folder, announced through `ui`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from .environment import context, in_comfyui
from .folders import SavePath, temp_folder

if TYPE_CHECKING:
    import torch


def preview_images(images: torch.Tensor, name: str = "preview") -> dict[str, Any]:
    """Save images [B,H,W,C] or [H,W,C] (C = 1, 3, 4; values 0..1) and return the `ui` dictionary that shows them."""
    batch = images if images.ndim == 4 else images[None]
    folder = temp_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # ComfyUI's frontend caches pictures by name, so each run needs a new one; a kept preview is better named plainly.
    stem = f"ap3d_{name}_{uuid.uuid4().hex[:8]}" if in_comfyui() else f"{context().node_id}_{name}"
    entries = []
    for index, image in enumerate(batch):
        filename = f"{stem}_{index:03}.png"
        to_pil(image).save(folder / filename, compress_level=4)
        entries.append({"filename": filename, "subfolder": "", "type": "temp"})
    return {"images": entries}


def film(path: SavePath) -> dict[str, Any]:
    """The `ui` dictionary that plays an mp4 or webm on its node, as ComfyUI's own Save Video does."""
    return {"images": [path.ui_entry()], "animated": [True]}


def pictures_in(folder: SavePath, names: list[str]) -> dict[str, Any]:
    """The `ui` dictionary that shows pictures of a folder that was saved."""
    subfolder = f"{folder.subfolder}/{folder.filename}" if folder.subfolder else folder.filename
    return {"images": [SavePath(folder.path / name, subfolder, name).ui_entry() for name in names]}


def to_pil(image: Any) -> Any:
    """An image [H,W,C] or [H,W] (tensor or array, values 0..1) as a PIL image; PIL images pass through."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    import torch

    pixels = torch.as_tensor(image).detach().float().cpu()
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    pixels = torch.nan_to_num(pixels).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())

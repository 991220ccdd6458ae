"""A pack for the server tests: a node that optimizes with this project's host layer, inside the real ComfyUI."""

from __future__ import annotations

import sys
import time


def host():
    """The host layer that ComfyUI loaded with the pack under test, whatever name it gave it."""
    return next(module for name, module in sys.modules.items() if name.endswith("AnimPortrait3D.nodes.host"))


class Optimize:
    """Learns the colour of an image by gradient descent, slowly if asked."""

    CATEGORY = "test"
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("IMAGE",),
                "steps": ("INT", {"default": 30, "min": 1, "max": 10000}),
                "pause": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0}),
            }
        }

    def execute(self, image, steps, pause):
        return host().plain_torch(Optimize._optimize)(self, image, steps, pause, image.is_inference())

    def _optimize(self, image, steps, pause, was_inference):
        import torch

        bar = host().ProgressBar(steps)
        color = torch.zeros(3, requires_grad=True)
        for step in range(steps):
            loss = (color * image - image).square().mean()
            (gradient,) = torch.autograd.grad(loss, color)
            with torch.no_grad():
                color -= gradient
            time.sleep(pause)
            bar(step + 1, steps, (color * image)[0])
        result = (color * image).detach()
        error = float((result - image).abs().max())
        host().report_metrics("probe", {"error": error})
        tensors = f"image was an inference tensor: {was_inference}, result is one: {result.is_inference()}"
        text = f"error {error:.4f}, {tensors}"
        return host().node_result(result, ui={**host().preview_images(result), "text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_ProbeOptimize": Optimize}

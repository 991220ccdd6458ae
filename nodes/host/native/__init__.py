"""ComfyUI's own MODEL, CLIP, VAE and CONTROL_NET as a guidance: the only code that knows what is inside of them.

`model` checks them and is what core's `HostedGuidance` asks for; `session` does what core's `CFGGuider.sample` does
around a sampler; `autoencoder` makes a copy of the VAE that gradients go through; `contents` hashes them. Modules of
ComfyUI are looked up, as everywhere in `nodes/host`, never imported. Works with ComfyUI 0.3.64 to 0.33.0.
"""

from __future__ import annotations

from .model import NativeParts, native_model

__all__ = ["NativeParts", "native_model"]

"""Names of the styles that the embedded prior can take on. Without torch, for choices of nodes and commands."""

from __future__ import annotations

STYLES = ("painted",)
"""Each is a LoRA of the prior, made by `animportrait3d embedded train-style`."""

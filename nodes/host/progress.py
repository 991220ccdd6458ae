"""Progress with a picture; a bar is also the `progress(step, total, preview)` callback that core functions take."""

from __future__ import annotations

import time
from typing import Any

from animportrait3d_core.progress import TimeLeft

from .environment import check_interrupt, comfy_module, context
from .images import to_pil

# A picture costs tens of kilobytes on the websocket and an encoding here: show a few per second.
SECONDS_BETWEEN_IMAGES = 0.3
SECONDS_BETWEEN_TEXTS = 1.0
PREVIEW_SIZE = 512


class ProgressBar:
    """Progress of the node that runs. Every update is a chance for the user to stop.

    `ProgressBar(total)` is called as `bar(step)`, `bar(step, total)` or `bar(step, total, image)`; `image` is [H,W,C]
    in 0..1. Hand it to core as the `progress` argument.
    """

    def __init__(self, total: int = 1, node_id: str | None = None, told: str = "") -> None:
        """told: in the host, the node says this while it works, and how much time is left."""
        self.total = max(int(total), 1)
        self._told, self._left = told, TimeLeft()
        self._last_image = self._last_text = float("-inf")
        utilities = comfy_module("comfy.utils")
        self._bar = utilities.ProgressBar(self.total, node_id=node_id) if utilities is not None else None

    def __call__(self, step: int, total: int | None = None, preview: Any | None = None) -> None:
        self.total = max(int(total), 1) if total is not None else self.total
        if preview is not None and not self._image_is_due(step):
            preview = None
        if self._bar is None:
            context().progress(step, self.total, preview)
            return
        check_interrupt()
        image = ("JPEG", to_pil(preview).convert("RGB"), PREVIEW_SIZE) if preview is not None else None
        self._bar.update_absolute(step, self.total, image)
        if self._told:
            self._tell(step)

    def _tell(self, step: int) -> None:
        """The words under the node; hosts from 0.3.40 on can show them."""
        left, now = self._left.text(step, self.total), time.monotonic()
        server: Any = getattr(getattr(comfy_module("server"), "PromptServer", None), "instance", None)
        if not hasattr(server, "send_progress_text") or now - self._last_text < SECONDS_BETWEEN_TEXTS:
            return
        self._last_text = now
        parts = [self._told, f"{step} of {self.total}", left]
        server.send_progress_text("\n".join(part for part in parts if part), server.last_node_id)

    def _image_is_due(self, step: int) -> bool:
        now = time.monotonic()
        if step < self.total and now - self._last_image < SECONDS_BETWEEN_IMAGES:
            return False
        self._last_image = now
        return True

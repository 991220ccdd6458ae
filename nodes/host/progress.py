"""Progress with a picture; a bar is also the `progress(step, total, preview)` callback that core functions take."""

from __future__ import annotations

import time
from collections.abc import Mapping
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

    def __init__(self, total: int = 1, node_id: str | None = None, told: str = "", evaluations: int = 0) -> None:
        """In the host, the node says while it works: `told`, how far it is, how much time is left, the terms of the
        loss, and how many of its `evaluations` of a model are left."""
        self.total = max(int(total), 1)
        self._told, self._evaluations, self._left = told, evaluations, TimeLeft()
        self._values: Mapping[str, float] = {}
        self._last_image, self._last_text = float("-inf"), time.monotonic()
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
        self._tell(step)

    def values(self, values: Mapping[str, float]) -> None:
        """The terms of the step's loss; core calls it before the step (`progress.tell_values`)."""
        self._values = values

    def _tell(self, step: int) -> None:
        """The words under the node; hosts from 0.3.40 on can show them."""
        left, now = self._left.text(step, self.total), time.monotonic()
        server: Any = getattr(getattr(comfy_module("server"), "PromptServer", None), "instance", None)
        if not hasattr(server, "send_progress_text") or now - self._last_text < SECONDS_BETWEEN_TEXTS:
            return
        self._last_text = now
        numbers = [f"{name} {value:.3g}" for name, value in self._values.items()]
        if self._evaluations:
            numbers.append(f"about {self._evaluations * (self.total - step) // self.total:,} evaluations left")
        where = [f"{step} of {self.total}", left]
        lines = [self._told, *(", ".join(part for part in parts if part) for parts in (where, numbers))]
        server.send_progress_text("\n".join(line for line in lines if line), server.last_node_id)

    def _image_is_due(self, step: int) -> bool:
        now = time.monotonic()
        if step < self.total and now - self._last_image < SECONDS_BETWEEN_IMAGES:
            return False
        self._last_image = now
        return True

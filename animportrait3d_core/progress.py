"""Callbacks of long work: who waits sees how far it is, and may stop it by raising from within them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int, "Tensor | None"], None]
"""progress(step, total, preview): `step` of `total` steps are done; preview: [H, W, 3] in 0..1, or None."""

Report = Callable[[int, int, Mapping[str, float]], None]
"""report(step, total, values) of work that is followed by numbers: values by name, empty where a step has none."""

Stages = Callable[[str], Progress]
"""stages(name): the progress of one named stage of work that has several; each stage counts from its own first step."""


def stage_of(stages: Stages | None, name: str) -> Progress | None:
    """Progress of the stage `name`; None if nobody watches."""
    return None if stages is None else stages(name)

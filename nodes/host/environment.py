"""Where we run: ComfyUI, the headless runner, or neither."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType

from animportrait3d_core.workflow.context import RunContext, active_context, plain_context

LOGGER = logging.getLogger("animportrait3d")


def comfy_module(name: str) -> ModuleType | None:
    """A module of the ComfyUI around us, or None. It is looked up, never imported: another `nodes` or `server` on the
    path is not ComfyUI's, and inside ComfyUI these modules are loaded long before any pack."""
    if active_context() is not None or "folder_paths" not in sys.modules:
        return None
    return sys.modules.get(name)


def in_comfyui() -> bool:
    """Whether ComfyUI executes us."""
    return comfy_module("folder_paths") is not None


def context() -> RunContext:
    """The run's context, or the plain one."""
    return active_context() or plain_context()


def check_interrupt() -> None:
    """Stop here if the user pressed stop. For inner loops that do not move a progress bar."""
    management = comfy_module("comfy.model_management")
    if management is not None:
        management.throw_exception_if_processing_interrupted()
    else:
        context().check_interrupt()


def device() -> str:
    """The torch device that the host wants work on: "cpu", "cuda:0", ..."""
    management = comfy_module("comfy.model_management")
    if management is not None:
        return str(management.get_torch_device())
    name = context().device
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def say(where: str, text: str) -> None:
    """Tell what is about to be done, in the log."""
    LOGGER.info("%s: %s", where, text)


def warn(where: str, warnings: Iterable[str]) -> list[str]:
    """Tell the user although work goes on: in the log, which the headless runner prints and keeps in `report.json`.

    Returns the lines for the text of the node, which ComfyUI shows.
    """
    told = list(warnings)
    for warning in told:
        LOGGER.warning("%s: %s", where, warning)
    return [f"warning: {warning}" for warning in told]


def report_metrics(stage: str, metrics: Mapping[str, float]) -> None:
    """Report numbers of a stage (`fit`, `initial`, `pretrained`, `full`, `refined`).

    The headless runner writes them into `report.json` under `metrics`; ComfyUI's log shows them in one line.
    """
    if in_comfyui():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        LOGGER.info("AnimPortrait3D %s: %s", stage, shown)
    else:
        context().add_metrics(stage, metrics)

"""The nodes: one file per step of the method. A node parses its inputs, calls core and wraps the result; no maths.

Every module here that defines `NODE_CLASS_MAPPINGS` is registered. A module that cannot be imported costs its own nodes
and one line in the log, never the rest of the pack. Modules import each other relatively (`from . import host`);
nothing says `import nodes`, which is ComfyUI's own module.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from pathlib import Path

LOGGER = logging.getLogger("animportrait3d")

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}


def _register(module_name: str) -> None:
    """Add one module's nodes to the mappings of this package."""
    module = importlib.import_module(f".{module_name}", __package__)
    classes = getattr(module, "NODE_CLASS_MAPPINGS", {})
    repeated = sorted(set(classes) & set(NODE_CLASS_MAPPINGS))
    if repeated:
        raise ImportError(f"node ids {repeated} are registered by another module already")
    NODE_CLASS_MAPPINGS.update(classes)
    NODE_DISPLAY_NAME_MAPPINGS.update(getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", {}))


def _register_model_folders() -> None:
    """Model folders must be known before the host lists files for the first time."""
    from . import host

    host.register_model_folders()


def _guarded(what: str, step: Callable[[], None]) -> None:
    """Run one step of the registration; whatever breaks in it, the rest of the pack must still load."""
    try:
        step()
    except Exception as error:
        LOGGER.error("AnimPortrait3D: %s was not loaded: %s: %s", what, type(error).__name__, error)


def _register_all() -> None:
    """Register every module of this folder; log the ones that fail."""
    _guarded("nodes/host", _register_model_folders)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            _guarded(f"nodes/{file.name}", functools.partial(_register, file.stem))


_register_all()

"""Memory of the GPU: room is made before our own networks and loops take some, given back when a node is done, and its
end is told with the knobs to turn."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .environment import check_interrupt, comfy_module, device

# Widgets that memory depends on, the strongest first, and what to do with each.
KNOBS = {
    "size": "lower `size`",
    "count": "lower `count`",
    "precision": "choose float16 for `precision`",
    "preset": "choose a smaller `preset`",
    "sampling": "choose a smaller `sampling`",
    "face_budget": "lower `face_budget`",
}
OF_OTHERS = "give it fewer or smaller views"


def device_with_room(files: Iterable[Path] = ()) -> str:
    """The device to work on. In ComfyUI, models of its own that lie idle on the GPU make room for what is to come: the
    weights in `files` (folders: all in them), and as much again as any work needs at least."""
    check_interrupt()
    management = comfy_module("comfy.model_management")
    name = device()
    if management is not None and not name.startswith("cpu"):
        needed = sum(_size(path) for path in files) + management.minimum_inference_memory()
        management.free_memory(needed, management.get_torch_device())
    return name


def _size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def told_memory(node: Any, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Around a node's work: what it no longer uses goes back to the host, and if there was too little it says how to
    take less. The error stays one of the kind that the host answers by unloading its models."""
    import torch

    try:
        yield
    except Exception as error:
        if not _out_of_memory(error):
            raise
        advice = [KNOBS[name] for name in KNOBS if name in inputs] or [OF_OTHERS]
        raise torch.cuda.OutOfMemoryError(
            f"{_node_id(type(node))}: out of memory on {device()} ({str(error).splitlines()[0]}). To take less, "
            f"{' or '.join(advice)}. Optimisations that were stopped by this go on where they were."
        ) from error
    finally:
        management = comfy_module("comfy.model_management")
        if management is not None and not device().startswith("cpu"):
            management.soft_empty_cache()


def _out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    # Newer ones of torch tell it so if it comes to light later.
    late = getattr(torch, "AcceleratorError", ())
    return isinstance(error, late) and "out of memory" in str(error)


def _node_id(node_class: type) -> str:
    """The id under which a class is registered in its file."""
    registered = getattr(sys.modules[node_class.__module__], "NODE_CLASS_MAPPINGS", {})
    return next((name for name, known in registered.items() if known is node_class), node_class.__name__)

"""Finds the pack on disk and loads its registration, exactly as ComfyUI does, so that one door leads to the nodes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ..errors import InvalidInput
from .definitions import Registry

# The name under which a wheel installs the pack's own folder (root __init__.py, nodes/, web/, workflows/).
INSTALLED_PACK = "animportrait3d_pack"
LOADED_NAME = "animportrait3d_loaded_pack"


def default_pack_folder() -> Path:
    """The clone around this package, else the installed `animportrait3d_pack`."""
    clone = Path(__file__).resolve().parents[2]
    if (clone / "__init__.py").is_file() and (clone / "nodes" / "__init__.py").is_file():
        return clone
    found = importlib.util.find_spec(INSTALLED_PACK)
    if found is None or not found.submodule_search_locations:
        raise InvalidInput(f"load_registry: no pack at '{clone}' and no package {INSTALLED_PACK}; use --pack FOLDER.")
    return Path(next(iter(found.submodule_search_locations)))


def load_registry(pack_folder: str | Path | None = None) -> Registry:
    """NODE_CLASS_MAPPINGS of a pack folder. A module that fails costs its nodes and a log line, as in ComfyUI."""
    return load_pack(pack_folder).NODE_CLASS_MAPPINGS


def load_pack(pack_folder: str | Path | None = None) -> ModuleType:
    """Import a pack's root `__init__.py` as a package of its own; once per folder and process."""
    folder = Path(pack_folder).resolve() if pack_folder is not None else default_pack_folder()
    entry = folder / "__init__.py"
    if not entry.is_file():
        raise InvalidInput(f"load_registry: '{folder}' has no __init__.py, so it is no node pack; use --pack FOLDER.")
    loaded = sys.modules.get(LOADED_NAME)
    if loaded is not None and Path(str(loaded.__file__)) == entry:
        return loaded
    spec = importlib.util.spec_from_file_location(LOADED_NAME, entry, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise InvalidInput(f"load_registry: '{entry}' cannot be imported.")
    for name in [name for name in sys.modules if name == LOADED_NAME or name.startswith(f"{LOADED_NAME}.")]:
        del sys.modules[name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[LOADED_NAME] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "NODE_CLASS_MAPPINGS"):
        raise InvalidInput(f"load_registry: '{entry}' defines no NODE_CLASS_MAPPINGS.")
    return module

"""What all tests share: the embedded body, and how the clone is collected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from animportrait3d_core.body.model import BodyModel

ROOT = Path(__file__).parents[1]


class PlainRoot:
    """The clone's root is a node pack, not a package of tests: pytest would import its `__init__.py` by itself, under
    the folder's name, which is no module name where the folder is called ComfyUI-AnimPortrait3D."""

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    # A plugin of its own: hooks of a conftest are not asked about the folders above it.
    config.pluginmanager.register(PlainRoot())


@pytest.fixture(scope="session")
def mannequin_body() -> BodyModel:
    """The embedded mannequin as a posable body; its files are built once per machine and cached."""
    from animportrait3d_core.body.model import load_body_model
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    return load_body_model(*mannequin_body_files())

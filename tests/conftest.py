"""What all tests share: how the clone is collected, the pack and its nodes, the embedded body, avatars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.body.parameters import BodyParameters
    from animportrait3d_core.workflow.context import RunContext

ROOT = Path(__file__).parents[1]
SmallDisk = Callable[[int], AbstractContextManager[None]]


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


@pytest.fixture(autouse=True)
def one_loaded_pack() -> Iterator[None]:
    """A test that loads another copy of the pack, which takes the place of the first, leaves no trace."""
    from animportrait3d_core.workflow.registry import LOADED_NAME

    def loaded() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.startswith(LOADED_NAME)}

    before = loaded()
    yield
    if before and loaded() != before:
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)


@pytest.fixture()
def small_disk() -> SmallDisk:
    """`with small_disk(4096): ...`: no file may grow beyond so many bytes, as if the disk were full.

    A block and not the whole test: pytest's own output may be a longer file than that."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The node pack, loaded as ComfyUI and the command line load it."""
    from animportrait3d_core.workflow.registry import load_pack

    return load_pack(ROOT)


@pytest.fixture(scope="session")
def node_classes(pack: ModuleType) -> Mapping[str, Any]:
    """Every node class by its id."""
    return pack.NODE_CLASS_MAPPINGS


@pytest.fixture()
def run_context(tmp_path: Path) -> Iterator[RunContext]:
    """A run in progress whose folders input, models, output and temp lie in `tmp_path`; nothing is in them."""
    from animportrait3d_core.workflow.context import RunContext, activate

    folders: dict[str, Any] = {f"{name}_directory": tmp_path / name for name in ("input", "models", "output", "temp")}
    with activate(RunContext(**folders, node_id="7")) as context:
        yield context


class NodeRunner:
    """Runs nodes as a host does: under inference mode, values that are not given at the defaults of their widgets."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self.classes = classes

    def __call__(self, node_id: str, /, **inputs: Any) -> Any:
        """Outputs by name, and `ui`."""
        import torch

        from animportrait3d_core.workflow.definitions import define_node

        node_class = self.classes[node_id]
        definition = define_node(node_id, node_class)
        defaults = {entry.name: entry.default for entry in definition.widgets if entry.required}
        with torch.inference_mode():
            done = getattr(node_class(), node_class.FUNCTION)(**{**defaults, **inputs})
        return SimpleNamespace(**dict(zip(definition.return_names, done["result"])), ui=done["ui"])

    def module(self, node_id: str) -> ModuleType:
        """The file in which a node is written, for tests that replace something in it."""
        return sys.modules[self.classes[node_id].__module__]


@pytest.fixture()
def run_node(node_classes: Mapping[str, Any], run_context: RunContext) -> NodeRunner:
    """run_node("AP3D_RenderViews", subject=portrait, size=64).views: the one way in which tests run a node."""
    return NodeRunner(node_classes)


@pytest.fixture(scope="session")
def mannequin_body() -> BodyModel:
    """The embedded mannequin as a posable body; its files are built once per machine and cached."""
    from animportrait3d_core.body.model import load_body_model
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    return load_body_model(*mannequin_body_files())


@pytest.fixture(scope="session")
def rest(mannequin_body: BodyModel) -> BodyParameters:
    """A fit as the real one: placed in the world, with some shape and a slightly bent neck."""
    from tests.avatar_samples import fitted_parameters

    return fitted_parameters(mannequin_body)


@pytest.fixture(scope="session")
def make_avatar(mannequin_body: BodyModel, rest: BodyParameters) -> Any:
    """make_avatar(count, sh_degree=0, seed=0): a small avatar on the mannequin."""
    from tests.avatar_samples import random_avatar

    return lambda count, sh_degree=0, seed=0: random_avatar(mannequin_body, rest, count, sh_degree, seed)


@pytest.fixture(scope="session")
def avatar(make_avatar: Any) -> RiggedAvatar:
    """A small avatar, as it comes."""
    return make_avatar(4000)

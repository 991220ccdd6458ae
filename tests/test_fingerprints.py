"""Hashes of values: equal ones agree, in any process and place; different ones differ. Hashes of source: all of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core import fingerprints
from animportrait3d_core.fingerprints import fingerprint, imported_files, source_fingerprint


@dataclasses.dataclass(frozen=True)
class Setting:
    rate: float = 0.1
    names: tuple[str, ...] = ("a", "b")
    seen: frozenset[str] = frozenset(("left", "right", "both", "none"))


def test_equal_values_agree_wherever_they_lie() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    strided = torch.arange(12.0).view(3, 4).t().contiguous().t()
    assert fingerprint([tensor, tensor]) == fingerprint([tensor, strided])  # shared or not: the same values
    assert fingerprint(np.arange(4)) == fingerprint(np.arange(8)[::2] // 2)
    assert fingerprint(Setting()) == fingerprint(Setting(names=tuple("ab")))
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_hash_is_the_same_in_another_process() -> None:
    code = "from animportrait3d_core.fingerprints import fingerprint; print(fingerprint({'a': {'x', 'y', 'z', 'w'}}))"
    root = Path(__file__).parents[1]
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert told == {fingerprint({"a": {"x", "y", "z", "w"}})}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (1, 1.0),
        (1, True),
        ("1", 1),
        ((1, 2), [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"1": 1}, {1: 1}),
        (Setting(), Setting(rate=0.2)),
        (0.1, 0.1 + 1e-17 + 2e-17),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    ],
)
def test_different_values_differ(first: object, second: object) -> None:
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)


def test_each_of_many_modules_counts() -> None:
    """Tensors of a state dictionary live for a moment only: another one may take their place in memory."""
    layers = [torch.nn.Linear(3, 3) for _ in range(6)]
    before = fingerprint(layers)
    for layer in layers:
        with torch.no_grad():
            layer.bias.add_(1)
        after = fingerprint(layers)
        assert after != before
        before = after


def test_a_value_inside_of_itself_ends() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    assert fingerprint(loop) != fingerprint([1])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of this one: `fit` imports `near`, this imports `far.deep` inside of a function."""
    root = tmp_path / "pack"
    (root / "far").mkdir(parents=True)
    (root / "render").mkdir()
    files = {
        "__init__.py": "",
        "fit.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom .near import thing\n"
        "if TYPE_CHECKING:\n    from .types import Type\n",
        "near.py": "def thing():\n    from .far import deep\n    from .render import draw\n",
        "far/__init__.py": "",
        "far/deep.py": "from pack.absolute import x\n",
        "absolute.py": "import json\n",
        "types.py": "",
        "stranger.py": "",
        "render/__init__.py": "from .door import draw\n",
        "render/door.py": "from importlib import import_module\n",
        "render/numba_part.py": "",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    monkeypatch.setattr(fingerprints, "ROOT", root)
    source_fingerprint.cache_clear()
    yield root
    source_fingerprint.cache_clear()


def test_source_counts_with_all_that_it_imports(package) -> None:
    found = {path.relative_to(package).as_posix() for path in imported_files("fit")}
    everything = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert everything - found == {"stranger.py", "types.py"}
    before = source_fingerprint("fit")
    for name in sorted(everything):
        path = package / name
        text = path.read_text()
        path.write_text(text + "# changed\n")
        source_fingerprint.cache_clear()
        assert (source_fingerprint("fit") == before) == (name in {"stranger.py", "types.py"}), name
        path.write_text(text)


def test_a_module_that_is_not_there_is_named(package) -> None:
    with pytest.raises(ValueError, match="no module 'fits'"):
        source_fingerprint("fits")

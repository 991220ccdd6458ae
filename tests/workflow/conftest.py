"""A registry of toy nodes, and graphs made of them."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.context import active_context


class Source:
    """Makes a tensor from every kind of widget."""

    RETURN_TYPES = ("TOY", "IMAGE")
    RETURN_NAMES = ("toy", "image")
    FUNCTION = "make"
    calls: list[dict[str, Any]] = []

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "size": ("INT", {"default": 4, "min": 1, "max": 64}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "mode": (["plain", "striped"], {"default": "plain"}),
                "scale": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 8.0}),
                "label": ("STRING", {"default": "", "multiline": True}),
                "flag": ("BOOLEAN", {"default": False}),
            }
        }

    def make(self, **inputs):
        Source.calls.append(inputs)
        generator = torch.Generator().manual_seed(inputs["seed"])
        toy = torch.rand(inputs["size"], generator=generator) * inputs["scale"]
        active_context().add_metrics("toys", {f"mean_{inputs['seed']}": float(toy.mean())})
        return toy, toy.expand(1, 2, 2, -1)[..., :1]


class Add:
    """Adds up to two toys."""

    RETURN_TYPES = ("TOY",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"first": ("TOY",), "amount": ("FLOAT", {"default": 0.0})},
            "optional": {"second": ("TOY",)},
        }

    def add(self, first, amount, second=None):
        return (first + amount + (0 if second is None else second),)


class Save:
    """An output node that shows text."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"toy": ("TOY",), "prefix": ("STRING", {"default": "toy"})}}

    def save(self, toy, prefix):
        return {"ui": {"text": [f"{prefix} {toy.sum().item():.6f}"]}}


class Mutate(Add):
    """Breaks the rule that inputs are shared."""

    def add(self, first, amount, second=None):
        first += 1
        return (first,)


class Slow:
    """Works until it is cancelled."""

    RETURN_TYPES = ()
    FUNCTION = "work"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 20.0})}}

    def work(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            active_context().progress(1, 2)
            time.sleep(0.01)
        return {}


class Choosy(Add):
    """Checks its own amount and is never cached."""

    @classmethod
    def VALIDATE_INPUTS(cls, amount):
        return True if amount != 13 else "13 brings bad luck"

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")


@pytest.fixture()
def registry():
    Source.calls.clear()
    return {
        "AP3D_Source": Source,
        "AP3D_Add": Add,
        "AP3D_Save": Save,
        "AP3D_Mutate": Mutate,
        "AP3D_Slow": Slow,
        "AP3D_Choosy": Choosy,
    }


@pytest.fixture()
def chain(registry):
    """UI graph: Source (#1) -> Add (#2) -> Save (#3), Source's image -> PreviewImage (#4)."""
    graph = WorkflowBuilder("chain", registry)
    source = graph.add("AP3D_Source", size=8, seed=5, label="two\nlines", title="The Source")
    added = graph.add("AP3D_Add", first=source["toy"], amount=0.5)
    graph.add("AP3D_Save", toy=added[0])
    graph.add("PreviewImage", images=source["image"])
    return copy.deepcopy(graph.to_json())


@pytest.fixture()
def source_calls():
    return Source.calls

"""Stops that are heard while a network computes: without a GPU a call of a large one takes seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..progress import may_stop


@contextlib.contextmanager
def stops_between_blocks(device: torch.device, *networks: nn.Module | None) -> Iterator[None]:
    """Within the block, calls of the networks look around each of their blocks whether they may stop, back as well.

    Blocks are what stands in the networks' lists of modules, as in U-Nets, ControlNets and autoencoders of diffusers
    and of ComfyUI. On other devices than the CPU nothing is done: a call ends there once its work is in the queue.
    """
    handles: list[RemovableHandle] = []
    if device.type == "cpu":
        blocks = {block for network in networks if network is not None for block in _blocks(network)}
        handles = [handle for block in blocks for handle in _hooks(block)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            yield from module


def _hooks(block: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
    return block.register_forward_pre_hook(_before), block.register_forward_hook(_after)


def _before(block: nn.Module, inputs: Any) -> None:
    if not torch.compiler.is_compiling():
        may_stop()


def _after(block: nn.Module, inputs: Any, output: Any) -> None:
    _before(block, inputs)
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(lambda gradient: may_stop())

"""Stops that are heard while a network computes: without a GPU a call of a large one takes seconds."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..progress import may_stop

STRIP_OPERATIONS = 2e10
"""Multiplications and additions between two looks within a convolution: some tenths of a second on two cores."""


@contextlib.contextmanager
def stops_between_blocks(device: torch.device, *networks: nn.Module | None) -> Iterator[None]:
    """Within the block, calls of the networks look around each of their blocks whether they may stop, back as well.

    Blocks are what stands in the networks' lists of modules, as in U-Nets, ControlNets and autoencoders of diffusers
    and of ComfyUI, and convolutions, of which the largest are computed in strips (the same up to rounding). On other
    devices than the CPU nothing is done: a call ends there once its work is in the queue.
    """
    with contextlib.ExitStack() as stack:
        known = [network for network in networks if network is not None] if device.type == "cpu" else []
        for block in {block for network in known for block in _blocks(network)}:
            for handle in _hooks(block):
                stack.callback(handle.remove)
            if isinstance(block, nn.Conv2d):
                stack.enter_context(_in_strips(block))
        yield


def _blocks(network: nn.Module) -> set[nn.Module]:
    listed = {
        block for group in network.modules() if isinstance(group, nn.ModuleList | nn.Sequential) for block in group
    }
    return listed | {module for module in network.modules() if isinstance(module, nn.Conv2d)}


def _hooks(block: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
    return block.register_forward_pre_hook(_before), block.register_forward_hook(_after)


def _before(block: nn.Module, inputs: Any) -> None:
    if not torch.compiler.is_compiling():
        may_stop()


def _after(block: nn.Module, inputs: Any, output: Any) -> None:
    _before(block, inputs)
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(lambda gradient: may_stop())


@contextlib.contextmanager
def _in_strips(convolution: nn.Conv2d) -> Iterator[None]:
    """`_conv_forward` is where hosts that cast weights come by as well. A session within another finds it done."""
    if "_conv_forward" in vars(convolution):
        yield
        return
    whole = convolution._conv_forward
    convolution._conv_forward = functools.partial(_convolved, convolution, whole)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del convolution._conv_forward


def _convolved(layer: nn.Conv2d, whole: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`whole(values, weight, bias)`, in strips of rows [B, C, h, W] where it would take long."""
    padding = layer.padding
    if torch.compiler.is_compiling() or isinstance(padding, str) or layer.padding_mode != "zeros" or values.ndim != 4:
        return whole(values, weight, bias)
    stride, reach = layer.stride[0], layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    rows = (values.shape[2] + 2 * padding[0] - reach) // stride + 1
    height = max(1, int(STRIP_OPERATIONS / (2 * len(values) * values.shape[3] / layer.stride[1] * weight.numel())))
    if rows <= height:
        return whole(values, weight, bias)
    padded = functional.pad(values, (padding[1], padding[1], padding[0], padding[0]))
    strips = []
    for first in range(0, rows, height):
        last = min(first + height, rows) - 1
        seen = padded[:, :, first * stride : last * stride + reach]
        strips.append(functional.conv2d(seen, weight, bias, layer.stride, 0, layer.dilation, layer.groups))
        _after(layer, values, strips[-1])
    return torch.cat(strips, 2)

"""Pose, shape and placement of a body as one immutable value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import InvalidInput, ShapeMismatch, all_hold, check_finite, finite_sign

SCHEMA_VERSION = 1

# Width of each parameter; None is a free width (the number of shape or expression coefficients).
PARAMETER_WIDTHS: dict[str, int | None] = {
    "betas": None,
    "expression": None,
    "global_orient": 3,
    "neck_pose": 3,
    "head_pose": 3,
    "jaw_pose": 3,
    "left_eye_pose": 3,
    "right_eye_pose": 3,
    "eyelids": 2,
    "translation": 3,
    "scale": 1,
}


@dataclasses.dataclass(frozen=True)
class BodyParameters:
    """B states of a SMPL-X body, float32 (float64 in gradient checks).

    betas: [B, nb] shape.  expression: [B, ne].  global_orient, neck_pose, head_pose, jaw_pose, left_eye_pose,
    right_eye_pose: [B, 3] axis-angle in radians, each relative to the parent joint.  eyelids: [B, 2] left and right,
    0 open to 1 closed.  translation: [B, 3] and scale: [B, 1] place the posed body in the world: x scale + translation.

    All fields share the batch size B; a field of batch 1 is repeated (`expand`, no copy).
    """

    betas: Tensor
    expression: Tensor
    global_orient: Tensor
    neck_pose: Tensor
    head_pose: Tensor
    jaw_pose: Tensor
    left_eye_pose: Tensor
    right_eye_pose: Tensor
    eyelids: Tensor
    translation: Tensor
    scale: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        sizes = set()
        for name, width in PARAMETER_WIDTHS.items():
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.ndim != 2 or (width is not None and value.shape[1] != width):
                found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ShapeMismatch(f"BodyParameters: `{name}` has shape {found}, expected [B, {width or 'count'}].")
            if not value.is_floating_point():
                raise InvalidInput(f"BodyParameters: `{name}` has type {value.dtype}, expected floating-point.")
            sizes.add(value.shape[0])
        batch = max(sizes)
        if not sizes <= {1, batch} or batch == 0:
            raise ShapeMismatch(f"BodyParameters: batch sizes {sorted(sizes)} differ; expected one size, or it and 1.")
        self._check_values()
        for name in PARAMETER_WIDTHS:
            value = getattr(self, name)
            if value.shape[0] != batch:
                object.__setattr__(self, name, value.expand(batch, -1))

    def _check_values(self) -> None:
        positive = (self.scale.detach() > 0).all()
        if not all_hold([*(finite_sign(value) for _, value in self.items()), positive]):
            for name, value in self.items():
                check_finite("BodyParameters", name, value)
            if not bool(positive):
                raise InvalidInput(f"BodyParameters: `scale` is {float(self.scale.min()):.3g}, expected more than 0.")

    @classmethod
    def neutral(cls, batch: int = 1, num_betas: int = 10, num_expression: int = 10) -> BodyParameters:
        """The template: nothing bent, eyes open, scale 1 at the origin.

        >>> BodyParameters.neutral(2).jaw_pose.shape
        torch.Size([2, 3])
        """
        if batch < 1 or num_betas < 0 or num_expression < 0:
            raise InvalidInput(
                f"BodyParameters.neutral: batch {batch}, {num_betas} betas, {num_expression} expression coefficients; "
                "expected at least 1, 0 and 0."
            )
        free = {"betas": num_betas, "expression": num_expression}
        widths = {name: free[name] if width is None else width for name, width in PARAMETER_WIDTHS.items()}
        values: dict[str, Any] = {name: torch.zeros(batch, width) for name, width in widths.items()}
        values["scale"] = torch.ones(batch, 1)
        return cls(**values)

    def __len__(self) -> int:
        return self.betas.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> BodyParameters:
        """The chosen states; an integer gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise InvalidInput(f"BodyParameters: state {index} of {len(self)}; count from 0 to {len(self) - 1}.")
            index = [index]
        return self._map(lambda value: value[index])

    def replace(self, **changes: Any) -> BodyParameters:
        """The same states with some fields changed; a changed field of batch B repeats the others if they have batch 1.

        >>> BodyParameters.neutral().replace(eyelids=torch.ones(4, 2)).betas.shape
        torch.Size([4, 10])
        """
        unknown = sorted(set(changes) - set(PARAMETER_WIDTHS))
        if unknown:
            raise InvalidInput(f"BodyParameters.replace: no parameter '{unknown[0]}', only {list(PARAMETER_WIDTHS)}.")
        return dataclasses.replace(self, **changes)

    def expand(self, batch: int) -> BodyParameters:
        """A batch of one, repeated `batch` times without a copy."""
        if len(self) not in (1, batch):
            raise ShapeMismatch(f"BodyParameters.expand: a batch of {len(self)} cannot become {batch}.")
        return self._map(lambda value: value.expand(batch, -1))

    def awake(self) -> BodyParameters:
        """The same states with open lids where they are closed: what faces and motions start from.

        A portrait whose eyes are closed is seen so at rest alone.
        """
        return self.replace(eyelids=torch.where(self.eyelids > 0.5, 0.0, self.eyelids))

    def _map(self, function: Callable[[Tensor], Tensor]) -> BodyParameters:
        changed: dict[str, Any] = {name: function(value) for name, value in self.items()}
        return dataclasses.replace(self, **changed)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of all parameters."""
        return ((name, getattr(self, name)) for name in PARAMETER_WIDTHS)

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> BodyParameters:
        """The same states on another device or in another floating-point type."""
        return moved(self, device, dtype)

    def detach(self) -> BodyParameters:
        """The same states without a gradient history."""
        return self._map(Tensor.detach)

    def to_tensors(self) -> dict[str, Tensor]:
        """Contiguous tensors by name, as a safetensors file wants them."""
        return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in self.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> BodyParameters:
        """Inverse of `to_tensors`; other names are refused, missing ones named."""
        missing, unknown = set(PARAMETER_WIDTHS) - set(tensors), set(tensors) - set(PARAMETER_WIDTHS)
        if missing or unknown:
            raise InvalidInput(
                f"BodyParameters.from_tensors: missing {sorted(missing)}, unknown {sorted(unknown)}; "
                f"expected exactly {list(PARAMETER_WIDTHS)}."
            )
        return cls(**tensors)


def stack_parameters(parts: Sequence[BodyParameters]) -> BodyParameters:
    """One batch of all states, in order; all must have the same numbers of coefficients."""
    if not parts:
        raise InvalidInput("stack_parameters: no states given, expected at least one.")
    counts = {(part.betas.shape[1], part.expression.shape[1]) for part in parts}
    if len(counts) != 1:
        raise ShapeMismatch(f"stack_parameters: (betas, expression) counts {sorted(counts)} differ; expected one pair.")
    joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in PARAMETER_WIDTHS}
    return BodyParameters(**joined)

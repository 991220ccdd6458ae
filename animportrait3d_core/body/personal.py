"""Personal offsets: how the body of one person at rest differs from all that shape coefficients can say.

VHAP and FLAME trackers call them a static offset. A body with offsets is a `BodyModel` as any other
(`BodyModel.personalized`); they are kept apart so that the avatar of a licensed body can be stored without that body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import InvalidInput, check_finite, check_shape
from .reader import NUM_JOINTS

OFFSET_TENSORS = ("vertices", "joints", "eyelids")


@dataclasses.dataclass(frozen=True)
class PersonalOffsets:
    """What is added to a body, float32, metres in template space.

    vertices: [V', 3] to the template's kept vertices.  joints: [55, 3] to its joints: eyes turn about their own
    centres.  eyelids: [2, V', 3] to the offsets that close its lids.  body: fingerprint of the body they belong to.
    """

    vertices: Tensor
    joints: Tensor
    eyelids: Tensor
    body: str

    def __post_init__(self) -> None:
        check_shape("PersonalOffsets", "vertices", self.vertices, ["V", 3])
        check_shape("PersonalOffsets", "joints", self.joints, [NUM_JOINTS, 3])
        check_shape("PersonalOffsets", "eyelids", self.eyelids, [2, len(self.vertices), 3])
        for name in OFFSET_TENSORS:
            if not getattr(self, name).is_floating_point():
                raise InvalidInput(f"PersonalOffsets: `{name}` has type {getattr(self, name).dtype}, expected floats.")
            check_finite("PersonalOffsets", name, getattr(self, name))

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> PersonalOffsets:
        """The same offsets on another device or in another floating-point type."""
        return moved(self, device, dtype)

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors by name, as a safetensors file wants them."""
        return {name: getattr(self, name) for name in OFFSET_TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], body: str) -> PersonalOffsets:
        """Inverse of `to_tensors`, for the body of that fingerprint."""
        missing = [name for name in OFFSET_TENSORS if name not in tensors]
        if missing:
            raise InvalidInput(f"PersonalOffsets.from_tensors: missing {missing}.")
        return cls(**{name: tensors[name] for name in OFFSET_TENSORS}, body=body)

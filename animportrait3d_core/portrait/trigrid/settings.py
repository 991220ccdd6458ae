"""Constants of the field, and how finely it is rendered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from ...errors import InvalidInput

Backend = Literal["fast", "dense"]
Settings = TypeVar("Settings", "FieldSettings", "TrigridRenderSettings")


@dataclasses.dataclass(frozen=True)
class FieldSettings:
    """Where the field lies in the world. The defaults are those of AnimPortrait3D's driver for `model_512.pkl`.

    box_warp: side of the cube in native units.  global_scale: world units per native unit.  crop: share of the side by
    which the density is cut at both ends of x and z (y is never cropped).
    near_offset, far_offset: a ray runs from r - near_offset to r + far_offset, where r is the camera's distance to the
    world origin: 1.60 to 3.85 at the usual 2.65.
    """

    box_warp: float = 0.7
    global_scale: float = 3.0
    crop: float = 0.1
    near_offset: float = 1.05
    far_offset: float = 1.20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < 1e3:
                raise InvalidInput(f"FieldSettings: {field.name} is {value}, expected more than 0 and less than 1000.")
        if self.crop >= 0.5:
            raise InvalidInput(f"FieldSettings: crop is {self.crop}, expected less than 0.5, which leaves nothing.")

    @property
    def crop_limit(self) -> float:
        """Largest |x| and |z| that is kept, in native units (0.28)."""
        return (0.5 - self.crop) * self.box_warp

    @property
    def half_cube(self) -> float:
        """Half the cube's side in world units (1.05)."""
        return 0.5 * self.box_warp * self.global_scale


@dataclasses.dataclass(frozen=True)
class TrigridRenderSettings:
    """How a view is sampled.

    depth_samples, importance_samples: coarse and fine samples per ray.  backend: 'fast' (Numba) or 'dense' (torch,
    every sample evaluated; the reference).  chunk_rays: rays per step of the dense path, None to go by free memory.
    """

    depth_samples: int = 96
    importance_samples: int = 96
    backend: Backend = "fast"
    chunk_rays: int | None = None

    def __post_init__(self) -> None:
        for name in ("depth_samples", "importance_samples"):
            if not 4 <= getattr(self, name) <= 1024:
                raise InvalidInput(f"TrigridRenderSettings: {name} is {getattr(self, name)}, expected 4 to 1024.")
        if self.backend not in get_args(Backend):
            known = ", ".join(get_args(Backend))
            raise InvalidInput(f"TrigridRenderSettings: backend '{self.backend}', expected one of {known}.")
        if self.chunk_rays is not None and self.chunk_rays < 1:
            raise InvalidInput(f"TrigridRenderSettings: chunk_rays is {self.chunk_rays}, expected at least 1, or None.")


SAMPLING_PRESETS: dict[str, TrigridRenderSettings] = {
    "draft": TrigridRenderSettings(depth_samples=32, importance_samples=24),
    "standard": TrigridRenderSettings(depth_samples=64, importance_samples=48),
    "paper": TrigridRenderSettings(depth_samples=96, importance_samples=96),
}


def settings_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Settings stored in a file; `InvalidInput` for unknown names or values that are not of the fields' types."""
    known = {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}
    for name, value in values.items():
        default = known.get(name, kind)
        numeric = isinstance(default, (int, float)) and isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (numeric or type(value) is type(default) or (name == "chunk_rays" and isinstance(value, int))):
            raise InvalidInput(f"{kind.__name__}: {name} = {value!r} in the file is unknown or of a wrong type.")
    return kind(**values)

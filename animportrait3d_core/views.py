"""Views: pictures of one subject with their mattes and cameras, the currency between portrait and avatar."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from .cameras import Cameras, view_word, yaw_of
from .errors import check_shape

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Views:
    """B pictures of one subject.

    images: [B, H, W, 3] float32 in 0..1, composited over `background` [3].  masks: [B, H, W] float32 coverage in 0..1.
    cameras: B cameras of size W x H.
    """

    images: Tensor
    masks: Tensor
    cameras: Cameras
    background: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        batch, height, width = len(self.cameras), self.cameras.height, self.cameras.width
        check_shape("Views", "images", self.images, [batch, height, width, 3])
        check_shape("Views", "masks", self.masks, [batch, height, width])
        check_shape("Views", "background", self.background, [3])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> Views:
        """Views of the chosen cameras; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        return dataclasses.replace(
            self, images=self.images[index], masks=self.masks[index], cameras=self.cameras[index]
        )

    @property
    def view_words(self) -> tuple[str, ...]:
        """'front view', 'side view' or 'back view' per picture."""
        return tuple(view_word(float(yaw)) for yaw in yaw_of(self.cameras))

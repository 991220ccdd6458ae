"""A motion: one pose of the body per frame."""

from __future__ import annotations

import dataclasses

from ..body.parameters import BodyParameters
from ..errors import InvalidInput
from ..socket_values import SocketValue

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Motion(SocketValue):
    """T poses at a frame rate.

    parameters: a batch of T; shape and placement included, so that a frame can be posed as it is.  fps: frames per
    second.  names: T labels of what each frame shows, or none.
    """

    parameters: BodyParameters
    fps: float
    names: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise InvalidInput(f"Motion: {self.fps} frames per second, expected more than 0 and at most 1000.")
        if self.names and len(self.names) != len(self.parameters):
            raise InvalidInput(
                f"Motion: {len(self.names)} names for {len(self.parameters)} frames, expected as many or none."
            )

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, index: slice) -> Motion:
        """A part of the motion."""
        return dataclasses.replace(self, parameters=self.parameters[index], names=self.names[index])

    def highlights(self) -> list[int]:
        """Index of the middle frame of each run of equally named frames: the height of each move of a clip."""
        names = self.names or ("",) * len(self)
        starts = [index for index in range(len(names)) if index == 0 or names[index] != names[index - 1]]
        ends = [*starts[1:], len(names)]
        return [(start + end - 1) // 2 for start, end in zip(starts, ends)]

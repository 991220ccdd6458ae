"""Scenes of the second stage: the avatar in random poses, and the regions that a camera on it sees (A1.6)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..avatar.model import RiggedAvatar
from ..avatar.rig import AvatarRig
from ..body.model import JOINTS
from ..body.parameters import BodyParameters, stack_parameters
from ..cameras import Cameras, concatenate_cameras, upstream_orbit_cameras
from ..conditioning import (
    FRAME_SIZE,
    CropRegion,
    StateRanges,
    condition_assets,
    crop_boxes,
    crop_cameras,
    inside_condition,
    posed_condition_map,
    sample_eyes,
    sample_state,
    state_parameters,
)
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..randomness import seed_at
from .scenes import Scene

if TYPE_CHECKING:
    from ..body.model import BodyOutput

_MOST_TRIES = 100


@dataclasses.dataclass(frozen=True)
class RegionUse:
    """What a stage asks about a region.

    controlled: with the ControlNet.  excluded: a region inside this one about which nothing is asked here as long as
    it is seen: it has a crop of its own.  within_condition: nothing is asked about pixels outside of what the condition
    shows, neck and ears for instance, of which a model without busts knows little.
    """

    region: CropRegion
    controlled: bool = True
    excluded: CropRegion | None = None
    within_condition: bool = False


@dataclasses.dataclass(frozen=True)
class CameraRanges:
    """Where the cameras of a stage stand.

    yaws: (share, from, to) of each range, degrees, 0 the front; shares add up to 1.  pitches: of the authors, 90 is
    level (`cameras.upstream_orbit_cameras`). Both uniform within a range.
    """

    yaws: tuple[tuple[float, float, float], ...] = ((1.0, -75.0, 75.0),)
    pitches: tuple[float, float] = (70.0, 110.0)

    def mean_seen(self, regions: Sequence[CropRegion]) -> float:
        """How many regions of a head that is not turned a camera sees, on average over those that see any.

        >>> from animportrait3d_core.conditioning import CROP_REGIONS
        >>> around = CameraRanges(((0.7, -90.0, 90.0), (0.3, 90.0, 270.0)))
        >>> eyes = [CROP_REGIONS["left eye"], CROP_REGIONS["right eye"]]
        >>> round(around.mean_seen([*eyes, CROP_REGIONS["bust"]]), 3)  # 1 + 0.7 (2/3 + 2/3)
        1.933
        >>> round(around.mean_seen(eyes), 3)  # from behind none is seen, and another camera drawn
        1.333
        """
        seen = some = 0.0
        for share, low, high in self.yaws:
            # A range may go around the back: a region is met again a turn further on.
            ends = [end + turn for region in regions for end in region.yaws for turn in (-360, 0, 360)]
            edges = sorted({low, high, *(end for end in ends if low < end < high)})
            for begin, end in itertools.pairwise(edges):
                yaw = (0.5 * (begin + end) + 180) % 360 - 180
                count = sum(region.seen_from(yaw) for region in regions)
                weight = share * (end - begin) / (high - low)
                seen, some = seen + weight * count, some + weight * (count > 0)
        return seen / some if some else 0.0

    def draw(self, generator: np.random.Generator) -> Cameras:
        """One camera with a frame of FRAME_SIZE pixels."""
        shares = [share for share, _, _ in self.yaws]
        _, low, high = self.yaws[int(generator.choice(len(shares), p=shares))]
        yaw, pitch = generator.uniform(low, high), generator.uniform(*self.pitches)
        return upstream_orbit_cameras([90.0 + yaw], [pitch], FRAME_SIZE)


class States(Protocol):
    """Where the poses of a stage come from."""

    fingerprint: str
    """Changes with everything that is drawn from."""

    def draw(self, count: int, generator: np.random.Generator) -> BodyParameters:
        """Some poses."""


class DrawnStates:
    """Random expressions, jaws, gazes and lids of `conditioning.sample_state`, on the portrait's own pose."""

    def __init__(self, portrait: BodyParameters, kind: str, ranges: StateRanges | None = None) -> None:
        """kind: of `regions.IMAGE_REGIONS`, what the poses are for."""
        self._portrait, self._kind, self._ranges = portrait, kind, ranges or StateRanges()
        self.fingerprint = fingerprint(("drawn", portrait, kind, self._ranges))

    def draw(self, count: int, generator: np.random.Generator) -> BodyParameters:
        """Some poses."""
        states = [sample_state(self._kind, generator, self._ranges) for _ in range(count)]
        return stack_parameters([state_parameters(self._portrait, state) for state in states])


class RecordedStates:
    """Frames of a motion, with gaze and lids drawn anew: records hold hardly any of either."""

    def __init__(self, frames: BodyParameters, ranges: StateRanges | None = None) -> None:
        self._frames, self._ranges = frames, ranges or StateRanges()
        self.fingerprint = fingerprint(("recorded", frames, self._ranges))

    def draw(self, count: int, generator: np.random.Generator) -> BodyParameters:
        """Some poses."""
        rows = generator.integers(len(self._frames), size=count)
        return sample_eyes(self._frames[rows.tolist()], generator, self._ranges)


def yaw_from_head(posed: BodyOutput, cameras: Cameras) -> float:
    """Degrees by which the first camera stands beside the face of the first body: 0 in front of it, +90 on its left.

    Not the yaw in the world: a turned head hides an eye that a camera in front of the body would see.
    """
    head = posed.joint_transforms[0, JOINTS["head"]].double()
    way = (cameras.camera_centers[0].to(head) - head[:3, 3]) @ head[:3, :3]
    return float(torch.rad2deg(torch.atan2(way[0], way[2])))


class RegionScenes:
    """Poses of an avatar, a camera on each, and a crop of each region that it sees, all of one size."""

    def __init__(
        self,
        avatar: RiggedAvatar,
        states: States,
        uses: tuple[RegionUse, ...],
        size: int,
        cameras: CameraRanges = CameraRanges(),
        poses: int = 1,
        background: Tensor | None = None,
    ) -> None:
        """size: pixels of the crops.  poses: of each step.  background: a colour [3], white if None; or a square
        picture [S, S, 3] that stands behind the whole picture of every camera, as in the authors' code."""
        if not uses or poses < 1:
            raise InvalidInput(f"RegionScenes: {len(uses)} regions, {poses} poses; expected at least one of each.")
        self._rig, self._states, self._uses, self._size = AvatarRig(avatar), states, uses, size
        self._ranges, self._poses = cameras, poses
        self._background = torch.ones(3) if background is None else background
        self._assets = condition_assets(avatar.body.assets)
        chosen = (uses, size, cameras, poses, self._background)
        self.fingerprint = fingerprint(("regions", states.fingerprint, chosen))

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step; `rows` are positions in the uses, `ignored` what they do not ask about."""
        generator = np.random.default_rng(seed_at(seed, "scene", step))
        parameters = self._states.draw(self._poses, generator)
        with torch.no_grad():
            posed = self._rig.body(parameters)
            parts = [self._look_at(_of_pose(posed, pose), generator) for pose in range(self._poses)]
        frames, cameras, rows, conditions, ignored = zip(*parts)
        poses = torch.cat([torch.full((len(found),), pose) for pose, found in enumerate(rows)])
        background = self._background
        if background.ndim == 3:
            background = torch.cat([behind(background, *seen) for seen in zip(frames, cameras, strict=True)])
        return Scene(
            concatenate_cameras(list(cameras)), background, parameters, poses, posed.vertices,
            torch.cat(rows), torch.cat(conditions), torch.cat(ignored),
        )  # fmt: skip

    def _look_at(
        self, posed: BodyOutput, generator: np.random.Generator
    ) -> tuple[Cameras, Cameras, Tensor, Tensor, Tensor]:
        """(camera, its crops, positions of their uses, condition maps, ignored pixels) of a random camera."""
        for _ in range(_MOST_TRIES):
            frame = self._ranges.draw(generator)
            yaw = yaw_from_head(posed, frame)
            rows = [row for row, use in enumerate(self._uses) if use.region.seen_from(yaw)]
            if rows:
                break
        else:
            names = ", ".join(use.region.name for use in self._uses)
            raise InvalidInput(f"RegionScenes: cameras at {self._ranges.yaws} see none of {names}; choose other yaws.")
        landmarks = posed.landmarks[0]
        crops = [crop_cameras(self._uses[row].region, frame, landmarks, self._size) for row in rows]
        cameras = concatenate_cameras(crops)
        conditions = posed_condition_map(self._assets, posed, cameras)
        ignored = torch.stack([
            self._excluded(self._uses[row], frame, landmarks, yaw) | self._unknown(self._uses[row], condition)
            for row, condition in zip(rows, conditions, strict=True)
        ])  # fmt: skip
        return frame, cameras, torch.tensor(rows), conditions, ignored

    def _unknown(self, use: RegionUse, condition: Tensor) -> Tensor:
        """Pixels [S, S] bool of a use's crop that it does not ask about for lack of a condition [S, S, 4] there."""
        return ~inside_condition(condition) if use.within_condition else torch.zeros(condition.shape[:2]).bool()

    def _excluded(self, use: RegionUse, frame: Cameras, landmarks: Tensor, yaw: float) -> Tensor:
        """Pixels [S, S] bool of a use's crop that another region covers."""
        mask = torch.zeros(self._size, self._size, dtype=torch.bool)
        if use.excluded is None or not use.excluded.seen_from(yaw):
            return mask
        (outer,), side = crop_boxes(use.region, frame, landmarks)
        (inner,), inner_side = crop_boxes(use.excluded, frame, landmarks)
        corner = (inner - inner_side / 2 - (outer - side / 2)) * self._size / side
        x0, y0 = (max(0, int(value)) for value in corner.tolist())
        x1, y1 = (max(0, int(value)) for value in (corner + inner_side * self._size / side).tolist())
        mask[y0:y1, x0:x1] = True
        return mask


def behind(picture: Tensor, frame: Cameras, crops: Cameras) -> Tensor:
    """What crops [C] of a frame's picture show of a picture [S, S, 3] that fills the frame: [C, H, W, 3]. Beyond its
    border stands what stands there."""
    pixels = (torch.arange(size, dtype=torch.float64) + 0.5 for size in (crops.width, crops.height))
    u, v = torch.meshgrid(*pixels, indexing="xy")
    places = []
    for axis, (values, size) in enumerate(((u, frame.width), (v, frame.height))):
        focal, center = (crops.K[:, axis, column].double()[:, None, None] for column in (axis, 2))
        there = (values - center) / focal * frame.K[0, axis, axis].double() + frame.K[0, axis, 2].double()
        places.append(2 * there / size - 1)
    grid = torch.stack(places, dim=-1).to(picture)
    source = picture.permute(2, 0, 1).expand(len(crops), -1, -1, -1)
    found = functional.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 1)


def _of_pose(posed: BodyOutput, pose: int) -> BodyOutput:
    rows = slice(pose, pose + 1)
    return dataclasses.replace(
        posed, **{field.name: getattr(posed, field.name)[rows] for field in dataclasses.fields(posed)}
    )

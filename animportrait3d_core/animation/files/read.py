"""`read_motion`: the motion of any known file, for one avatar."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...body.model import BodyModel
from ...body.parameters import BodyParameters
from ...errors import InvalidInput, MissingModelFile
from ..arkit import ArkitTrack, TrackSettings, arkit_map, arkit_motion, processed_track
from ..clips import DEFAULT_FPS
from ..motion import Motion
from .arkit_json import read_json
from .authors import npy_files, read_authors
from .flame import frame_files, read_flame, read_frames
from .live_link import read_csv
from .own import load_motion
from .pose_track import EXPRESSIONS, POSES, PoseTrack, motion_of_poses

MOTION_SUFFIXES = (".safetensors", ".npy", ".npz", ".csv", ".json")
AS_RECORDED = TrackSettings(dead_zone=0.0, smoothing=1)
MOST_VALUE = 1e6
"""No angle, coefficient or place of a head is beyond it; a damaged file's is, and would throw the head out of all
numbers."""


@dataclasses.dataclass(frozen=True)
class ReadSettings:
    """How a motion file is taken."""

    fps: float = 0.0
    """Frames per second of the recording; 0: the file's own, or the usual of its format (25; Live Link Face 60)."""
    expressions: str = "matching"
    """Coefficients of expression: taken if the file's basis is the body's (matching), always, or never."""
    whole_folder: bool = False
    """The file is one of many: all of its folder are read, one frame each."""
    follow: bool = False
    """The head also moves through space as recorded, where a file says so."""
    head: bool = True
    """Neck and head turn as recorded."""

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 1000 or self.expressions not in EXPRESSIONS:
            raise InvalidInput(
                f"ReadSettings: {self.fps} frames per second, expressions '{self.expressions}'; expected 0 to 1000 and "
                f"one of {', '.join(EXPRESSIONS)}."
            )


@dataclasses.dataclass(frozen=True)
class LoadedMotion:
    """A motion and what the user should know of how it was read."""

    motion: Motion
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.motion.parameters.to_tensors().items():
            if values.numel() and float(values.abs().max()) > MOST_VALUE:
                raise InvalidInput(
                    f"read_motion: `{name}` goes up to {float(values.abs().max()):.1e}, expected at most "
                    f"{MOST_VALUE:.0e}; the file is damaged."
                )


def files_of_motion(path: Path, whole_folder: bool = False) -> list[Path]:
    """Every file that `read_motion` of this path reads."""
    if whole_folder or path.is_dir():
        return frame_files(path if path.is_dir() else path.parent)
    if path.suffix.lower() == ".npy":
        return [file for file in npy_files(path) if file is not None]
    return [path]


def read_motion(
    path: str | Path, body: BodyModel, rest: BodyParameters, settings: ReadSettings = ReadSettings()
) -> LoadedMotion:
    """The motion of a file, or of a folder of frames, for the avatar of a body and a rest pose (a batch of one).

    What a format does not say stays as in the rest pose: shape and placement always, the lids of tracked poses unless
    they are closed in it.
    Raises `MissingModelFile`, `InvalidInput` (damaged, wrong length, not finite), `ShapeMismatch` (wrong widths) and
    `IncompatibleCheckpoint` (a safetensors file that is no motion).
    """
    path, rest = Path(path), rest[0]
    if settings.whole_folder or path.is_dir():
        return _posed(read_frames(path if path.is_dir() else path.parent), body, rest, settings)
    suffix, fps = path.suffix.lower(), settings.fps or None
    if suffix == ".safetensors":
        return _own(path, body, rest, settings)
    if suffix == ".npy":
        return _posed(read_authors(path), body, rest, settings)
    if suffix == ".npz":
        return _posed(read_flame(path), body, rest, settings)
    if suffix in (".csv", ".json"):
        return _tracked(read_csv(path, fps) if suffix == ".csv" else read_json(path, fps), body, rest, settings)
    if not path.exists():
        raise MissingModelFile(f"read_motion: '{path}' does not exist.")
    raise InvalidInput(f"read_motion: '{path}' has the suffix '{path.suffix}', expected {', '.join(MOTION_SUFFIXES)}.")


def _posed(track: PoseTrack, body: BodyModel, rest: BodyParameters, settings: ReadSettings) -> LoadedMotion:
    if not settings.head:
        kept = {name: value for name, value in track.poses.items() if name not in ("neck_pose", "head_pose")}
        track = dataclasses.replace(track, poses=kept)
    fps = settings.fps or track.fps or DEFAULT_FPS
    return LoadedMotion(*motion_of_poses(track, body, rest, fps, settings.expressions, settings.follow))


def _tracked(track: ArkitTrack, body: BodyModel, rest: BodyParameters, settings: ReadSettings) -> LoadedMotion:
    track = processed_track(track, dataclasses.replace(AS_RECORDED, head=float(settings.head)))
    return LoadedMotion(arkit_motion(track, rest, arkit_map(body)), track.notes)


def _own(path: Path, body: BodyModel, rest: BodyParameters, settings: ReadSettings) -> LoadedMotion:
    """A motion of this project; of the very avatar it is given back as it was saved, to the last bit."""
    motion, basis = load_motion(path)
    poses = {name: getattr(motion.parameters, name) for name in POSES}
    track = PoseTrack(basis, poses, motion.parameters.expression, fps=motion.fps)
    taken = _posed(track, body, rest, settings)
    kept, notes = {"eyelids": motion.parameters.eyelids}, taken.notes
    if _same_head(motion.parameters, rest):
        kept |= {name: getattr(motion.parameters, name) for name in ("global_orient", "translation")}
    else:
        notes += ("It was made for another avatar: shape and placement are this one's.",)
    return LoadedMotion(Motion(taken.motion.parameters.replace(**kept), taken.motion.fps, motion.names), notes)


def _same_head(recorded: BodyParameters, rest: BodyParameters) -> bool:
    """Whether a motion has the shape and size of an avatar."""
    pairs = [(getattr(recorded, name), getattr(rest, name)) for name in ("betas", "scale")]
    return all(one.shape[1] == other.shape[1] and bool((one == other).all()) for one, other in pairs)

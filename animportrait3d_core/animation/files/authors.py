"""The authors' motions: exp.npy [T, up to 100] and pose.npy [T, 15] beside it, tracked in FLAME, meant for SMPL-X."""

from __future__ import annotations

from pathlib import Path

from ...errors import InvalidInput, ShapeMismatch
from .arrays import read_array
from .pose_track import POSES, PoseTrack, check_radians

POSE_WIDTH = 15
MOST_EXPRESSIONS = 100
LAYOUT = (
    f"Expected exp.npy [T, up to {MOST_EXPRESSIONS}] of expression coefficients, and pose.npy [T, {POSE_WIDTH}]: "
    "rotation, neck, jaw, left eye, right eye."
)


POSE_COLUMNS = {name: slice(3 * index, 3 * index + 3) for index, name in enumerate(POSES)}
"""As the authors' code reads them: the head's rotation drives the neck, the neck the head, so that shoulders stay."""


def partner(path: Path, word: str, other: str) -> Path | None:
    """The file beside it whose name has `other` for the last `word`, if there is one."""
    before, found, after = path.name.rpartition(word)
    beside = path.with_name(before + other + after)
    return beside if found and beside.is_file() else None


def npy_files(path: Path) -> tuple[Path | None, Path | None]:
    """Files of expressions and of poses that belong together, by their names; the given one is one of them."""
    if "pose" in path.name.lower():
        return partner(path, "pose", "exp"), path
    return path, partner(path, "exp", "pose")


def read_authors(path: Path) -> PoseTrack:
    """The track of one of the two files and its partner; poses alone, or expressions alone, are a motion too."""
    where = "read_motion"
    exp_path, pose_path = npy_files(path)
    expression = poses = None
    if exp_path is not None:
        expression = read_array(where, exp_path)
        if expression.ndim != 2 or not 1 <= expression.shape[1] <= MOST_EXPRESSIONS:
            raise ShapeMismatch(f"{where}: '{exp_path}' has shape {list(expression.shape)}. {LAYOUT}")
    if pose_path is not None:
        poses = read_array(where, pose_path)
        if poses.ndim != 2 or poses.shape[1] != POSE_WIDTH:
            raise ShapeMismatch(f"{where}: '{pose_path}' has shape {list(poses.shape)}. {LAYOUT}")
        check_radians(f"read_motion: '{pose_path}'", "pose", poses)
    if expression is not None and poses is not None and len(expression) != len(poses):
        raise InvalidInput(
            f"{where}: '{exp_path}' has {len(expression)} frames, '{pose_path}' {len(poses)}; expected as many. "
            f"{LAYOUT}"
        )
    lacking = "poses: head, jaw and eyes stay as at rest" if poses is None else "expressions: the face rests"
    notes = () if expression is not None and poses is not None else (f"No file beside '{path.name}' has {lacking}.",)
    parts = {} if poses is None else {name: poses[:, columns] for name, columns in POSE_COLUMNS.items()}
    return PoseTrack("smplx", parts, expression, notes=notes)

"""Strengths of ARKit shapes by name, as programs write them, to a track's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...errors import InvalidInput
from .names import ARKIT_INDEX, ARKIT_NAMES

_BY_LOWER = {name.lower(): name for name in ARKIT_NAMES}
_IGNORED = {"_neutral"}
MOST_STRENGTH = 10.0


def shape_name(text: object) -> str | None:
    """The ARKit name that a program means: EyeBlinkLeft, eye_blink_left and eyeBlink_L are eyeBlinkLeft.

    >>> shape_name("EyeBlink_L"), shape_name("Timecode")
    ('eyeBlinkLeft', None)
    """
    plain = str(text)
    if plain.endswith(("_L", "_R")):
        plain = plain[:-2] + ("Left" if plain.endswith("L") else "Right")
    return _BY_LOWER.get(plain.replace("_", "").lower())


def track_weights(where: str, frames: Sequence[Mapping[str, object] | None]) -> tuple[Tensor, tuple[str, ...]]:
    """Strengths [T, 52] of frames {name: value}, and notes; frames without a face (None or empty) are filled between
    their neighbours. Shapes that no frame names are 0. Raises `InvalidInput` where there is nothing to read."""
    present = [index for index, frame in enumerate(frames) if frame]
    if not present:
        raise InvalidInput(f"{where}: none of the {len(frames)} frames holds a face with blendshapes.")
    weights = torch.zeros(len(frames), len(ARKIT_NAMES))
    seen: set[str] = set()
    for index in present:
        values = {shape_name(name): value for name, value in (frames[index] or {}).items()}
        values.pop(None, None)
        seen |= {name for name in values if name is not None}
        for name, value in values.items():
            weights[index, ARKIT_INDEX[str(name)]] = _strength(where, index, str(name), value)
    if not seen:
        names = ", ".join(repr(str(name)[:40]) for name in list(frames[present[0]] or {})[:6])
        raise InvalidInput(
            f"{where}: none of the names is a shape of ARKit (found {names}); expected names as 'jawOpen'."
        )
    lost = len(frames) - len(present)
    notes = [f"{lost} of {len(frames)} frames have no face: filled between their neighbours."] if lost else []
    absent = [name for name in ARKIT_NAMES if name not in seen]
    if absent and absent != ["tongueOut"]:
        notes.append(f"{len(absent)} of 52 shapes are not in the recording and rest: {', '.join(absent[:6])}" + (
            ", ..." if len(absent) > 6 else "."))  # fmt: skip
    return filled(weights, present), tuple(notes)


def _strength(where: str, frame: int, name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{where}: frame {frame}: '{name}' is {str(value)[:40]!r}, expected a number; cut the frame "
            "out, or empty all of it."
        ) from error
    if not abs(number) <= MOST_STRENGTH:
        raise InvalidInput(
            f"{where}: frame {frame}: '{name}' is {number}, expected a finite strength of about 0..1; divide "
            "percent by 100, or cut the frame out."
        )
    return number


def filled(values: Tensor, present: Sequence[int]) -> Tensor:
    """Values [T, n] with the frames that are not `present` (sorted) on straight lines between those that are."""
    known = torch.tensor(present)
    if len(known) == len(values):
        return values
    places = torch.arange(len(values))
    after = torch.searchsorted(known, places).clamp_max(len(known) - 1)
    before = torch.where(known[after] > places, after - 1, after).clamp_min(0)
    first, last = known[before], known[after]
    share = ((places - first) / (last - first).clamp_min(1)).clamp(0, 1).to(values)[:, None]
    return values[first] + share * (values[last] - values[first])

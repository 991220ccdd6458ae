"""What the networks of each role answer: their classes and the channels of their output."""

from __future__ import annotations

from ..errors import IncompatibleCheckpoint, InvalidInput

ROLES = ("parts", "normals", "landmarks")

PART_CLASSES = ("background", "face", "hair", "clothes", "eyes", "lips", "mouth")
"""Classes of every parts network, in order. `face` is all skin with ears and neck, `mouth` its inside with teeth."""

REQUIRED_CLASSES = ("background", "face", "hair", "clothes")
"""What a parts network must tell apart; the others are zero when a user's network does not know them."""

LANDMARKS = 68
"""iBUG points, as in `evaluation.metrics` and `body.landmarks`."""

MIRRORED_LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
"""For each of the points, the one that it is called in the mirrored picture."""


def check_role(where: str, role: str) -> None:
    """Raise `InvalidInput` unless `role` is one of `ROLES`."""
    if role not in ROLES:
        raise InvalidInput(f"{where}: role '{role}' is unknown, expected one of {', '.join(ROLES)}.")


def check_classes(where: str, classes: tuple[str, ...]) -> None:
    """Raise `IncompatibleCheckpoint` unless the names of a parts network's channels are known and none is lacking."""
    unknown = sorted(set(classes) - set(PART_CLASSES))
    missing = [name for name in REQUIRED_CLASSES if name not in classes]
    if not unknown and not missing:
        return
    fault = f"lacks the class{'es' if len(missing) > 1 else ''} {', '.join(missing)}" if missing else ""
    if unknown:
        fault = f"{fault}{' and ' if fault else ''}names unknown classes {', '.join(unknown)}"
    raise IncompatibleCheckpoint(
        f"{where}: the list `classes` {fault}; found {', '.join(classes) or 'none'}; known are "
        f"{', '.join(PART_CLASSES)}, and the first {len(REQUIRED_CLASSES)} are needed. A name may stand for several "
        "channels (skin, nose and ears are all 'face')."
    )

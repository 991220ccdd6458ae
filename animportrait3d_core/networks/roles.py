"""What the networks of each role answer: their classes and the channels of their output."""

from __future__ import annotations

from ..errors import IncompatibleCheckpoint, InvalidInput
from ..parts import PART_CLASSES

ROLES = ("parts", "normals", "landmarks")

REQUIRED_CLASSES = ("background", "face", "hair", "clothes")
"""What a parts network must tell apart; the others are zero when a user's network does not know them."""


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

"""Our classes (`PART_CLASSES`), and the class lists of label sets that a user's networks and files may speak in.

Maps go by name: a list of class names says for each label number which of our classes it is. What a face voted for
becomes hair, clothes or skin. What is worn on the head is hair, as `parts.CLASS_OF_FIGURE_PART` says why; everything
else of a person that is neither hair nor face is clothes, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidInput
from ..parts import PART_CLASSES

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "animportrait3d": PART_CLASSES,
    "sapiens goliath (28)": (
        "Background", "Apparel", "Face_Neck", "Hair", "Left_Foot", "Left_Hand", "Left_Lower_Arm", "Left_Lower_Leg",
        "Left_Shoe", "Left_Sock", "Left_Upper_Arm", "Left_Upper_Leg", "Lower_Clothing", "Right_Foot", "Right_Hand",
        "Right_Lower_Arm", "Right_Lower_Leg", "Right_Shoe", "Right_Sock", "Right_Upper_Arm", "Right_Upper_Leg",
        "Torso", "Upper_Clothing", "Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue",
    ),
    "CelebAMask-HQ (19)": (
        "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
        "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
    ),
    "face-parsing.PyTorch (19)": (
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose",
        "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
    ),
    "LIP (20)": (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    ),
    "ATR (18)": (
        "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
        "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
    ),
}  # fmt: skip
"""Class names by label number. CelebAMask-HQ's own order, and the other order of the networks trained with
face-parsing.PyTorch; LIP and ATR as Self-Correction Human Parsing numbers them."""

_NAMES_OF_CLASS = {
    "background": ("background",),
    "face": (
        "face", "face neck", "skin", "nose", "neck", "l brow", "r brow", "brow", "l ear", "r ear", "ear", "ears",
    ),
    # Clothes stay on the shoulders when the head turns, and faces are replaced by the body's own skin.
    "hair": ("hair", "hat", "eye g", "eyeglass", "sunglasses", "ear r"),
    "eyes": ("eyes", "l eye", "r eye", "eye", "sclera", "iris"),
    "lips": ("lips", "u lip", "l lip", "upper lip", "lower lip"),
    "mouth": ("mouth", "mouth interior", "lower teeth", "upper teeth", "teeth", "tongue"),
    "clothes": (
        "clothes", "cloth", "clothing", "upper clothing", "lower clothing", "apparel", "upper clothes", "dress",
        "coat", "socks", "pants", "jumpsuits", "scarf", "skirt", "belt", "bag", "glove", "neck l", "torso",
        *(f"{side} {limb}" for side in ("left", "right") for limb in (
            "foot", "hand", "lower arm", "lower leg", "shoe", "sock", "upper arm", "upper leg", "arm", "leg",
        )),
    ),
}  # fmt: skip
_CLASS_OF_NAME = {name: ours for ours, names in _NAMES_OF_CLASS.items() for name in names}


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def class_of_name(name: str) -> str | None:
    """Our class for a class name of any known label set, however it is spelt; None for an unknown name.

    >>> class_of_name("Face_Neck"), class_of_name("u_lip"), class_of_name("Upper-clothes"), class_of_name("tree")
    ('face', 'lips', 'clothes', None)
    """
    return _CLASS_OF_NAME.get(_plain(name))


def our_classes(where: str, names: Sequence[str]) -> tuple[str, ...]:
    """Our class for each of the class names, in their order.

    Raises `InvalidInput` that lists the unknown names and every name that is understood, or says that none of the
    names means the background.
    """
    found = [class_of_name(name) for name in names]
    unknown = [name for name, ours in zip(names, found) if ours is None]
    if unknown or not names:
        raise InvalidInput(
            f"{where}: class names {unknown} of {list(names)} are unknown, expected names out of "
            f"{sorted(_CLASS_OF_NAME)}; rename them, or choose the label set of the network."
        )
    if "background" not in found:
        raise InvalidInput(
            f"{where}: none of the class names {list(names)} is the background, expected one 'background'; "
            "without it every pixel would count as the person."
        )
    return tuple(ours for ours in found if ours is not None)

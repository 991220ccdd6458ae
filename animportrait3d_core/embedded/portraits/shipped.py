"""The portraits of the pack: people as different as the vocabulary allows, whose seeds no data set holds."""

from __future__ import annotations

from pathlib import Path

from ...errors import InvalidInput
from ...files import require_file
from ..identities import Identity, exported_identity, identity_from_prompt
from .quality import PortraitReport, read_report

SHIPPED_PORTRAITS: tuple[str, ...] = ("amara", "viktor", "rosa")
ROSA = ("an old woman, white bob, grey eyes, olive skin, thin grey eyebrows, red lipstick, red turtleneck", 910003)
_FILES = Path(__file__).parent / "files"


def portrait_identity(name: str) -> Identity:
    """The person behind a shipped portrait: ground truth for tests and evaluation, never for the method."""
    _check_name("portrait_identity", name)
    return identity_from_prompt(*ROSA)[0] if name == "rosa" else exported_identity(name)


def shipped_portrait_file(name: str) -> Path:
    """The trigrid file (safetensors) of a name in `SHIPPED_PORTRAITS`."""
    _check_name("shipped_portrait_file", name)
    hint = "It is part of the pack; reinstall the pack, or fit it again with scripts/make_portraits.py."
    return require_file("shipped_portrait_file", _FILES / f"{name}.safetensors", hint)


def shipped_portrait_report(name: str) -> PortraitReport:
    """How the shipped portrait was fitted and what it measured then."""
    return read_report(shipped_portrait_file(name).with_suffix(".json"))


def _check_name(where: str, name: str) -> None:
    if name not in SHIPPED_PORTRAITS:
        raise InvalidInput(f"{where}: no portrait {name!r}, expected one of {', '.join(SHIPPED_PORTRAITS)}.")

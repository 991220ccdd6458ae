"""A portrait from words: the identity that fits them, fitted once and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...errors import InvalidInput
from ...files import cache_directory, made_files
from ...fingerprints import fingerprint, source_fingerprint
from ...progress import Stages
from ..identities import identity_from_prompt
from .fitting import PortraitSettings, fit_portrait
from .quality import PortraitReport, read_report


@dataclasses.dataclass(frozen=True)
class PromptPortrait:
    """What became of a prompt.

    path: the trigrid file.  prompt: the full prompt of the identity, with what the text left open.  unknown: words of
    the text that were not understood.  report: of the fit.
    """

    path: Path
    prompt: str
    unknown: tuple[str, ...]
    report: PortraitReport


def portrait_from_prompt(
    text: str, seed: int, settings: PortraitSettings | None = None, stages: Stages | None = None
) -> PromptPortrait:
    """The portrait of an identity that fits an attribute prompt: fitted on first use, then read from the cache.

    seed: decides what the text leaves open, and the face.  stages: as for `fit_portrait`. An interrupted fit goes on
    where it was.  Raises `InvalidInput` for an empty text and for one of which nothing is understood.
    """
    if not text.strip():
        raise InvalidInput(
            "portrait_from_prompt: the prompt is empty; describe a person, e.g. 'an old man, short white hair'."
        )
    if seed < 0:
        raise InvalidInput(f"portrait_from_prompt: the seed is {seed}, expected 0 or more.")
    settings = settings or PortraitSettings()
    identity, unknown = identity_from_prompt(text, seed)
    folder = cache_directory() / "portraits" / _key(identity.prompt, seed, settings)
    path, report = made_files(
        folder, ("portrait.safetensors", "portrait.json"),
        lambda: fit_portrait(identity, folder / "portrait.safetensors", settings, stages),
    )  # fmt: skip
    return PromptPortrait(path, identity.prompt, unknown, read_report(report))


def _key(prompt: str, seed: int, settings: PortraitSettings) -> str:
    """Short hash of all that a portrait depends on: the person, the settings, and every module that makes the two."""
    code = source_fingerprint("embedded.portraits.prompted")
    return fingerprint((code, prompt, seed, settings))[:16]

"""Inputs that name a file: a choice of the host's folders, or, on the command line, any path.

An input declares itself in its options: `"file_input": {"folders": ["input"], "suffixes": [".glb", ...]}`. `folders`
are where its names lie: "input", "output" (these names end in " [output]"), or "models/KEY" for a model key. With
`"inner": "network.json"` a folder may be given for the file of that name in it. ComfyUI's frontend offers the choices
alone; of `"upload"` the pack's own script makes a button.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InvalidInput, MissingModelFile
from .context import active_context, plain_context
from .definitions import InputDefinition

ADDRESS = re.compile(r"[A-Za-z][A-Za-z+]+://")


def file_of_command_line(label: str, entry: InputDefinition, text: str) -> str:
    """What was typed for a file input: a name that its folder offers stays, anything else becomes an absolute path.

    A relative path starts at the working directory. Raises as `check_file`.
    """
    if ADDRESS.match(text):
        raise InvalidInput(f"{label}: '{entry.name}' is {text!r}, an address; download the file, and give its path.")
    path = os.path.expanduser(text)
    is_path = os.path.exists(path) or text.startswith((".", "~")) or os.path.basename(path) != path
    if not _is_offered(entry, text) and is_path:
        path = os.path.abspath(path)
        inner = entry.file_input.get("inner")
        text = os.path.join(path, inner) if inner and os.path.isdir(path) else path
    check_file(label, entry, text)
    return text


def check_file(label: str, entry: InputDefinition, value: object) -> None:
    """Refuse what is neither offered nor an absolute path of a file with one of the suffixes.

    Raises `InvalidInput` for an unknown name or a wrong suffix, `MissingModelFile` where nothing lies at the path.
    """
    if isinstance(value, str) and _is_offered(entry, value):
        return
    found = f"{label}: '{entry.name}' is {value!r}"
    formats = _listed(entry.file_input["suffixes"], "or")
    if not isinstance(value, str) or not os.path.isabs(value):
        offered = f"its choices are {_shown(entry)}; " if entry.choices is not None else ""
        places = _listed([f"'{folder}'" for folder in (*_folders(entry), Path.cwd())], "or")
        raise InvalidInput(
            f"{found}, an unknown name: {offered}no such file lies in {places}. A path to a {formats} file works too."
        )
    if os.path.isdir(value):
        raise InvalidInput(f"{found}, which is a folder; expected a {formats} file.")
    suffix = os.path.splitext(value)[1]
    if suffix.lower() not in entry.file_input["suffixes"]:
        raise InvalidInput(f"{found}, which has the suffix '{suffix}'; expected a {formats} file.")
    if not os.path.isfile(value):
        raise MissingModelFile(f"{found}, where no file lies; give the path of a {formats} file.")


def _is_offered(entry: InputDefinition, name: str) -> bool:
    """Whether a name is a choice, or, where any text may stand, the empty default or a file of the input's folder."""
    if entry.choices is not None:
        return name in entry.choices
    inside = not os.path.isabs(name) and any(os.path.isfile(folder / name) for folder in _folders(entry))
    return inside or name == entry.default == ""


def _folders(entry: InputDefinition) -> list[Path]:
    """Where the names of a file input lie in this run."""
    context = active_context() or plain_context()
    roots = {
        "models": context.models_directory,
        "input": context.input_directory,
        "output": context.output_directory,
    }
    places = [place.partition("/") for place in entry.file_input["folders"]]
    return [roots[kind] / key for kind, _, key in places]


def _shown(entry: InputDefinition) -> str:
    choices = [repr(choice) for choice in entry.choices or ()]
    return ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "") or "none"


def _listed(words: list[str], last: str) -> str:
    """["a", "b", "c"] as "a, b or c"."""
    return ", ".join(words[:-1]) + f" {last} " + words[-1] if len(words) > 1 else words[0]

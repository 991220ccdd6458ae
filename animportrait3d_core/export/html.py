"""The avatar as one web page that opens from disk: its data, its renderer, its controls."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ..animation.motion import Motion
from ..avatar import RiggedAvatar
from ..errors import InvalidInput
from ..files import atomic_write, parse_json, require_file
from .budget import within_budget
from .licences import refusal_of_page
from .page_data import page_content
from .quantized import Quantized, pack, unpack

PAGE_FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("rig.js", "renderer.js", "drivers.js", "recordings.js", "view.js", "page.js")
"""In the order in which they need each other."""
WIDGET_SCRIPTS = (*SCRIPTS, "bridge.js")
"""Of the page within a node."""

NO_MOTIONS: Mapping[str, Motion] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class PageReport:
    """What was written: the file's size in bytes, the Gaussians in it and how many a budget left out."""

    path: Path
    size: int
    splats: int
    left_out: int

    def words(self) -> str:
        """For people."""
        left_out = f", {self.left_out} left out by the budget" if self.left_out else ""
        return f"{self.splats} Gaussians{left_out}, {self.size / 1e6:.1f} MB"


def write_avatar_page(
    avatar: RiggedAvatar,
    path: str | Path,
    motions: Mapping[str, Motion] = NO_MOTIONS,
    budget: int | None = None,
    arkit: Tensor | None = None,
    include_licensed_body: bool = False,
    overwrite: bool = False,
    scripts: Sequence[str] = SCRIPTS,
) -> PageReport:
    """Write the avatar as one self-contained HTML file, in one piece.

    motions: clips by the name that the page shows.  budget: Gaussians at most (see `budget`), None keeps all.  arkit:
    [52, E + 8], see `page_content`; without it the page follows no recordings of faces.  include_licensed_body: the
    page moves by the body's template and directions; those of a licensed body leave only by this switch.  scripts:
    `SCRIPTS` or `WIDGET_SCRIPTS`.

    Raises `InvalidInput` for a licensed body without the switch, an existing file without `overwrite`, and motions of
    another body.
    """
    path = Path(path)
    _check_target(path, overwrite)
    _check_licence(avatar, include_licensed_body)
    kept = avatar if budget is None else within_budget(avatar, budget)
    header, arrays = page_content(kept, motions, arkit)
    layout, data = pack(arrays)
    text = _filled(avatar.prompt or "Avatar", header | {"arrays": layout}, data, scripts)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return PageReport(path, path.stat().st_size, len(kept), len(avatar) - len(kept))


def _check_target(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidInput(f"write_avatar_page: '{path}' ends in '{path.suffix}', expected .html.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise InvalidInput(f"write_avatar_page: '{path}' exists; choose another name or pass overwrite.")


def _check_licence(avatar: RiggedAvatar, include_licensed_body: bool) -> None:
    refusal = refusal_of_page(avatar.body, include_licensed_body)
    if refusal:
        raise InvalidInput(f"write_avatar_page: {refusal}")


def _filled(title: str, header: Mapping[str, Any], data: str, scripts: Sequence[str]) -> str:
    """The template with its four places filled, in one pass: what is put in is not looked at again."""
    code = "\n".join(
        f"<script>\n{(PAGE_FOLDER / name).read_text(encoding='utf-8').strip()}\n</script>" for name in scripts
    )
    # In a script element only "</script" and "<!--" mean anything; JSON may say < in other words.
    plain = json.dumps(header, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    places = {"TITLE": html.escape(title), "HEADER": plain, "DATA": data, "SCRIPTS": code}
    template = (PAGE_FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub("%([A-Z]+)%", lambda match: places[match[1]], template)


def read_avatar_page(path: str | Path) -> tuple[dict[str, Any], dict[str, Quantized]]:
    """Header and arrays of a page, as it reads them itself. Raises `InvalidInput` for any other file."""
    text = require_file("read_avatar_page", path).read_text(encoding="utf-8", errors="replace")
    blocks = [re.search(f'<script type="[a-z/]+" id="{name}">([^<]*)</script>', text) for name in ("header", "data")]
    if blocks[0] is None or blocks[1] is None:
        raise InvalidInput(f"read_avatar_page: '{path}' is no page of an avatar.")
    try:
        header = parse_json(blocks[0][1])
        return header, unpack(header["arrays"], blocks[1][1])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"read_avatar_page: '{path}' is damaged ({error}).") from error

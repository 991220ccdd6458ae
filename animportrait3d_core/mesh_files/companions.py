"""Files that a mesh file names (materials, pictures, buffers): found as other systems wrote their names, and read.

Names come with backslashes, in another case, with a folder of the machine they were written on, or relative to the
material file instead of the mesh.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import struct
import unicodedata
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import git_lfs_reason, parse_json
from .colors import decodable

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MAX_REASON = 200
"""Letters of why a picture cannot be decoded that are told."""

NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL)
"""Errors of a system that can have no file of such a name."""

MAP_OPTIONS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2} | dict.fromkeys(
    ("-blendu", "-blendv", "-cc", "-clamp", "-texres", "-bm", "-boost", "-imfchan", "-type", "-colorspace"), 1
)
"""Options of texture maps in MTL files with the most values they take."""

TEXTURE_FOLDERS = ("textures", "texture", "maps", "images")
"""Folders, beside a mesh or beside its own folder, in which archives keep pictures that are named without one."""


def text_of(data: bytes) -> str:
    """Text of any editor: UTF-8 or marked UTF-16, else Latin-1; continued lines joined."""
    data = plain_lines(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return re.sub(r"\\[ \t]*\n", " ", text)


def plain_lines(data: bytes) -> bytes:
    """The bytes of a text file without a byte-order mark, not in UTF-16, whose lines end in a line feed alone."""
    if data.startswith(UTF_16_MARKS):
        data = data.decode("utf-16", errors="replace").encode()
    data = data.removeprefix(BYTE_ORDER_MARK)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def find_companion(folders: Sequence[Path], name: str) -> Path | None:
    """The file that `name` means, in the first of the folders that has it: as it is written, with slashes for
    backslashes, in any case, as an address, without a remark; then without the first of its folders, without the
    second, ..., by its own name alone, and by that in a folder of textures."""
    plain = name.strip().strip("\"'").replace("\\", "/")
    whole = (name.strip(), plain, urllib.parse.unquote(plain.partition("?")[0]), plain.partition(" #")[0].rstrip())
    ends = [path.split("/", cut)[-1] for path in whole for cut in range(1, path.count("/") + 1)]
    own = [path.rsplit("/", 1)[-1] for path in whole]
    kept = [f"{up}{place}/{file}" for up in ("", "../") for place in TEXTURE_FOLDERS for file in own if file]
    for candidate in dict.fromkeys((*whole, *ends, *kept)):
        for folder in folders:
            try:
                found = _in_any_case(folder, candidate)
            except OSError as error:
                if error.errno not in NO_NAME:
                    raise
                continue
            if found is not None:
                return found
    return None


def _in_any_case(folder: Path, name: str) -> Path | None:
    path = folder / name
    if not name or "\0" in name or path.is_file():
        return path if name and "\0" not in name else None
    for part in name.split("/"):
        if not folder.is_dir():
            return None
        if part == "..":
            folder = folder / part
            continue
        matches = sorted(entry for entry in folder.iterdir() if _folded(entry.name) == _folded(part))
        if part not in ("", ".") and not matches:
            return None
        folder = matches[0] if matches else folder
    return folder if folder.is_file() else None


def _folded(name: str) -> str:
    """A name in one case and with composed letters, which some systems take apart."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclasses.dataclass(frozen=True)
class TextureMap:
    """What a line `map_Kd -s 2 2 -o 0.5 0 -clamp on skin.png` names: uv times scale plus offset is its place."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


def parse_map(text: str) -> TextureMap:
    """The arguments of a `map_Kd` line; names may hold spaces.

    >>> parse_map("-clamp on -s 2 3 1 my skin.png")
    TextureMap(name='my skin.png', scale=(2.0, 3.0), offset=(0.0, 0.0), clamp=True)
    """
    values: dict[str, list[str]] = {}
    behind_name = re.search(rf"\s({'|'.join(MAP_OPTIONS)})\s.*", text, re.IGNORECASE)
    rest = text.strip()
    if behind_name is not None and not rest.startswith("-"):  # some write them there
        rest = f"{behind_name[0]} {text[: behind_name.start()]}".strip()
    while rest.split(maxsplit=1)[:1] and rest.split(maxsplit=1)[0].lower() in MAP_OPTIONS:
        option, _, rest = rest.partition(" ")
        option = option.lower()
        values[option] = []
        while len(values[option]) < MAP_OPTIONS[option]:
            word, _, behind = rest.lstrip().partition(" ")
            if values[option] and MAP_OPTIONS[option] > 1 and not is_number(word):
                break
            values[option].append(word)
            rest = behind
        rest = rest.strip()
    clamp = values.get("-clamp", ["off"])[0].lower() == "on"
    return TextureMap(rest, _pair(values.get("-s", []), 1.0), _pair(values.get("-o", []), 0.0), clamp)


def _pair(words: list[str], default: float) -> tuple[float, float]:
    """The first two of the numbers, `default` for those that are missing."""
    numbers = [float(word) for word in words if is_number(word)] + [default, default]
    return numbers[0], numbers[1]


def is_number(word: str) -> bool:
    """Whether a word of a material file is a decimal number."""
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) is not None


@dataclasses.dataclass(frozen=True)
class Library:
    """A material file: its path and the lines (keyword in lower case, arguments) that belong to each material."""

    path: Path
    materials: dict[str, list[tuple[str, str]]]


def read_library(path: Path) -> Library:
    """The materials of an MTL file by name."""
    materials: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for line in text_of(path.read_bytes()).splitlines():
        key, value = [*line.strip().split(maxsplit=1), "", ""][:2]
        if key.lower() == "newmtl":
            lines = materials.setdefault(value.strip(), [])
        elif key and not key.startswith("#"):
            lines.append((key.lower(), value.replace("\t", " ").strip()))
    return Library(path, materials)


def color_map(values: Mapping[str, str]) -> str:
    """The line that names a colour picture: map_Kd, or another map where Kd leaves everything to it; else ''."""
    if values.get("map_kd"):
        return values["map_kd"]
    is_black = not any(float(word) for word in values.get("kd", "").split() if is_number(word))
    return (values.get("map_ka") or values.get("map_ke") or "") if is_black else ""


def library_names(data: bytes) -> list[str]:
    """Names of the material files of an OBJ; a line may hold several, and a name may hold spaces."""
    return [text_of(name).strip() for name in re.findall(rb"^[ \t]*mtllib[ \t]+([^\r\n]+)", data, re.MULTILINE)]


def find_libraries(path: Path, data: bytes) -> tuple[list[Path], list[str]]:
    """Material files of an OBJ that exist, and the names of those that do not. Without a name: the one beside it."""
    found: list[Path] = []
    missing = []
    for name in library_names(data):
        whole = find_companion([path.parent], name)
        parts = [whole] if whole else [find_companion([path.parent], part) for part in name.split()]
        found += [file for file in parts if file is not None]
        missing += [] if all(parts) else [name]
    if not found and re.search(rb"^[ \t]*usemtl[ \t]", data, re.MULTILINE):
        beside = find_companion([path.parent], path.with_suffix(".mtl").name)
        found += [] if beside is None else [beside]
    return list(dict.fromkeys(found)), missing


def read_picture(folders: Sequence[Path], name: str) -> tuple[bytes | None, str, Path | None]:
    """Bytes of the picture that `name` means, or None with the reason as the end of a sentence; and its path."""
    path = find_companion(folders, name)
    if path is None:
        return None, "is not beside it", None
    data = path.read_bytes()
    reason = git_lfs_reason(data) or decodable(data)
    return (data, "", path) if reason is None else (None, f"cannot be decoded ({reason[:MAX_REASON]})", path)


def texture_names(data: bytes) -> list[str]:
    """Texture files that the header of a PLY names."""
    header = data[: max(0, data.find(b"end_header"))]
    return [text_of(name).strip() for name in re.findall(rb"^comment[ \t]+TextureFile[ \t]+([^\r\n]+)", header, re.M)]


def companion_files(path: Path) -> list[Path]:
    """The files beside a mesh file that its picture depends on, found without reading geometry; [] if none."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        libraries, _ = find_libraries(path, plain_lines(path.read_bytes()))
        maps = [
            (library.parent, parse_map(color_map(dict(lines))).name)
            for library in libraries
            for lines in read_library(library).materials.values()
        ]
        pictures = [find_companion([folder, path.parent], name) for folder, name in maps]
        return [*libraries, *_existing(pictures)]
    if suffix == ".ply":
        with open(path, "rb") as file:
            names = texture_names(file.read(1 << 16))
        return _existing(find_companion([path.parent], name) for name in names)
    if suffix in (".glb", ".gltf"):
        header = _gltf_header(path)
        lists = [header.get(name) for name in ("buffers", "images")]
        entries = [entry for found in lists if isinstance(found, list) for entry in found]
        uris = [str(entry.get("uri", "data:")) for entry in entries if isinstance(entry, dict)]
        return _existing(find_companion([path.parent], uri) for uri in uris if not is_data(uri))
    return []


def is_data(uri: str) -> bool:
    """Whether an address holds its data itself."""
    return uri[:5].lower() == "data:"


def _existing(paths: Iterable[Path | None]) -> list[Path]:
    return list(dict.fromkeys(path for path in paths if path is not None))


def _gltf_header(path: Path) -> dict[str, Any]:
    """The JSON of a glTF or GLB file; empty where it cannot be read, which loading it will say."""
    with open(path, "rb") as file:
        start = file.read(20)
        if start[:4] == b"glTF" and len(start) == 20:
            data = file.read(struct.unpack_from("<I", start, 12)[0])
        else:
            data = start + file.read()
    try:
        header = parse_json(data.removeprefix(BYTE_ORDER_MARK))
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}

"""OBJ files with their MTL materials, as plain arrays: geometry by material, corner colours, texture coordinates."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InvalidInput
from ..files import git_lfs_reason, require_file
from .companions import color_map, find_libraries, is_number, parse_map, read_library, read_picture, text_of
from .parts import Material, Notes, Part, PartReader

LEAST_DIFFUSE = 0.02
"""A material's Kd up to this beside a picture that was not read is what exporters leave there, no colour."""

PICTURES = (".png", ".jpg", ".jpeg", ".tga", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass
class _Lines:
    """vertices: [V, 3 or more].  uvs: [T, 2].  corners: [N, 2] vertex and texture index from 0, -1 for no texture.
    sizes: [P] corners of each polygon.  material: [P] index into names.  paint: ZBrush's remarks of colours."""

    vertices: np.ndarray
    uvs: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    material: np.ndarray
    names: list[str]
    paint: list[str]


def read_obj(path: Path, data: bytes, reader: PartReader, notes: Notes) -> list[Part]:
    """One part per material of an OBJ file that `check_obj` has passed; what could not be read goes to the notes."""
    lines = _parse(path, data)
    materials = _read_materials(path, data, notes)
    faces, polygon = _triangles(lines.sizes)
    corner_vertices, corner_uvs = lines.corners[faces, 0], lines.corners[faces, 1]
    if corner_uvs.max(initial=-1) >= len(lines.uvs):
        notes.warn("texture coordinates that faces point at are missing; those faces stay untextured")
        corner_uvs = np.where(corner_uvs < len(lines.uvs), corner_uvs, -1)
    colors = _vertex_colors(lines.vertices)
    if colors is None and lines.paint:
        colors = _painted_colors(lines.paint, len(lines.vertices), notes)
    mapped = (corner_uvs >= 0).all(axis=1)
    parts = []
    for index, name in enumerate(lines.names):
        material = _named_material(materials, name, notes)
        if material is not None and material.image is None and colors is not None:
            # Vertex colours are meant to be seen as they are: exporters leave Kd at 0.8 or even at 0 beside them.
            material = dataclasses.replace(material, factor=None)
        for is_mapped in (True, False):
            rows = (lines.material[polygon] == index) & (mapped == is_mapped)
            if rows.any():
                uvs = lines.uvs[corner_uvs[rows]] if is_mapped else None
                corners = None if colors is None else colors[corner_vertices[rows]]
                used, renumbered = np.unique(corner_vertices[rows], return_inverse=True)
                part = Part(lines.vertices[used, :3], renumbered.reshape(-1, 3), color_source="none")
                parts.append(reader.colored(part, material, uvs, corners))
    if mapped.any() and colors is None and not any(part and part.color_source != "none" for part in parts):
        _offer_picture(path, notes)
    return [part for part in parts if part is not None]


def _named_material(materials: dict[str, Material], name: str, notes: Notes) -> Material | None:
    """The material of faces behind `usemtl name`: of that name, in any case, without a remark; or the only one."""
    if name in materials or not materials:
        return materials.get(name)
    plain = name.partition(" #")[0].strip().casefold()
    for known, material in materials.items():
        if known.casefold() == plain:
            return material
    what = f"the material '{name[:80]}' is in none of the material files" if name else "faces name no material"
    if len(materials) > 1:
        notes.warn(f"{what}; those faces get none of the {len(materials)} that are there")
        return None
    (known, material), *_ = materials.items()
    notes.warn(f"{what}; the only one there, '{known[:80]}', is used")
    return material


def obj_vertices(path: Path) -> np.ndarray:
    """All vertices [V, 3] of an OBJ file in its own order, for those who know them by number.

    Raises `MissingModelFile` and `InvalidInput`.
    """
    vertices = _parse(require_file("obj_vertices", path), path.read_bytes()).vertices[:, :3]
    if not np.isfinite(vertices).all():
        raise InvalidInput(f"obj_vertices: '{path}' holds vertices that are not finite.")
    return vertices


def _parse(path: Path, data: bytes) -> _Lines:
    vertices: list[str] = []
    uvs: list[str] = []
    polygons: list[str] = []
    material: list[int] = []
    names: dict[str, int] = {}
    paint: list[str] = []
    current = ""
    for line in text_of(data).splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if key == "v":
            vertices.append(rest)
        elif key == "vt":
            uvs.append(rest)
        elif key == "f":
            polygons.append(rest.partition("#")[0])
            material.append(names.setdefault(current, len(names)))
        elif key == "usemtl":
            current = rest.strip()
        elif key == "#MRGB":
            paint.append(rest.strip())
    words = [polygon.split() for polygon in polygons]
    sizes = np.array([len(corners) for corners in words], dtype=np.int64)
    corners = _corner_indices([word for corners in words for word in corners], len(vertices), len(uvs))
    keep = sizes >= 3
    return _Lines(
        _table(path, vertices, 3),
        _table(path, uvs, 2)[:, :2] if uvs else np.zeros((0, 2)),
        corners[np.repeat(keep, sizes)],
        sizes[keep],
        np.array(material, dtype=np.int64)[keep],
        list(names),
        paint,
    )


def _table(path: Path, lines: Sequence[str], least: int) -> np.ndarray:
    """Numbers [N, C] of lines; columns that not every line has are left out, `least` must be there (v may lack: 0)."""
    rows = [line.partition("#")[0].split() for line in lines]
    width = min(len(row) for row in rows)
    if width < least and least == 2:
        rows, width = [(*row, "0")[:2] for row in rows], 2  # type: ignore[misc]
    if width < least:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has a line of {width} numbers, expected {least}; export it again."
        )
    return np.array([row[:width] for row in rows], dtype=np.float64)


def _corner_indices(words: list[str], vertices: int, uvs: int) -> np.ndarray:
    """[N, 2] from 0 of corners like '7', '7/3', '7//2' or '-1/-1/-1'; texture -1 where there is none."""
    slashes = {word.count("/") for word in words}
    if len(slashes) == 1 and not any("//" in word for word in words):
        flat = np.array(" ".join(words).replace("/", " ").split(), dtype=np.int64).reshape(len(words), -1)
        pairs = np.stack([flat[:, 0], flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(words), np.int64)], axis=1)
    else:
        split = [word.split("/") for word in words]
        pairs = np.array([(int(w[0]), int(w[1]) if len(w) > 1 and w[1] else 0) for w in split], dtype=np.int64)
    pairs = pairs.reshape(-1, 2)
    return np.where(pairs < 0, pairs + [vertices, uvs], pairs - 1)


def _triangles(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fans [F, 3] of positions in the list of corners, and the polygon [F] of each."""
    polygon = np.repeat(np.arange(len(sizes)), sizes - 2)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])[polygon]
    step = np.arange(len(polygon)) - np.concatenate([[0], np.cumsum(sizes - 2)[:-1]])[polygon]
    return np.stack([first, first + step + 1, first + step + 2], axis=1), polygon


def _vertex_colors(vertices: np.ndarray) -> np.ndarray | None:
    """Colours [V, 3] in 0..1 that follow the coordinates of every vertex, in 0..1 or 0..255; None without any."""
    if vertices.shape[1] < 6:
        return None
    colors = vertices[:, 3:6]
    return np.clip(colors / 255 if colors.max(initial=0) > 1.5 else colors, 0, 1)


def _painted_colors(paint: list[str], count: int, notes: Notes) -> np.ndarray | None:
    """Colours [V, 3] in 0..1 that ZBrush writes as remarks, `#MRGB MMRRGGBB...`: mask and colour of each vertex."""
    try:
        values = np.frombuffer(bytes.fromhex("".join(paint)), dtype=np.uint8)
    except ValueError:
        values = np.zeros(0, dtype=np.uint8)
    if len(values) != 4 * count:
        notes.warn(f"the colours that ZBrush keeps in remarks (#MRGB) are not those of {count} vertices; left out")
        return None
    return values.reshape(-1, 4)[:, 1:] / 255


def _read_materials(path: Path, data: bytes, notes: Notes) -> dict[str, Material]:
    libraries, missing = find_libraries(path, data)
    for name in missing:
        notes.warn(f"the file '{name[:80]}' named in the mesh is not beside it; its colours are missing")
    materials: dict[str, Material] = {}
    for file in libraries:
        reason = git_lfs_reason(file.read_bytes())
        if reason is not None:
            notes.warn(f"the file '{file.name}' cannot be read: {reason}")
            continue
        notes.read(file)
        for name, lines in read_library(file).materials.items():
            materials.setdefault(name, _material(path, file, lines, notes))
    return materials


def _material(path: Path, library: Path, lines: list[tuple[str, str]], notes: Notes) -> Material:
    """Colour, picture and opacity of one material; a picture that cannot be read is told."""
    import PIL.Image

    values = dict(lines)
    alpha = ([1.0] + _numbers(values.get("d", "")))[-1]
    map_line = color_map(values)
    if map_line:
        named = parse_map(map_line)
        picture, reason, file = read_picture([library.parent, path.parent], named.name)
        if picture is not None and file is not None:
            # By common practice the picture alone decides: exporters leave Kd at 0.8 or even at 0 beside a map.
            image = PIL.Image.open(io.BytesIO(picture))
            return Material(image, np.ones(3), alpha, "BLEND", uv_map=named, file=file)
        if file is None:
            notes.warn(f"the file '{named.name[:80]}' named in the mesh {reason}; its colours are missing")
        else:
            notes.warn(f"the texture '{named.name[:80]}' {reason}; its material stays untextured")
    diffuse = _numbers(values.get("kd", ""))[:3]
    color = np.clip(np.array(diffuse * 3 if len(diffuse) == 1 else diffuse), 0, 1)
    is_color = len(color) == 3 and (not map_line or color.max() > LEAST_DIFFUSE)
    return Material(None, color if is_color else None, alpha, "BLEND" if alpha < 1 else "OPAQUE")


def _numbers(text: str) -> list[float]:
    """The numbers of a line; some systems write a comma for the point."""
    return [float(word) for word in text.replace(",", ".").split() if is_number(word)]


def _offer_picture(path: Path, notes: Notes) -> None:
    """A picture of a similar name is probably the texture of a mesh that names none."""
    stem = path.stem.lower()
    beside = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in PICTURES]
    for file in [file for file in beside if file.stem.lower().startswith(stem)][:1]:
        notes.warn(
            f"the picture '{file.name}' beside it may be its texture, but the mesh does not name it: write the lines "
            f"'newmtl skin' and 'map_Kd {file.name}' into '{path.stem}.mtl', and 'mtllib {path.stem}.mtl' and "
            f"'usemtl skin' at the top of '{path.name}'"
        )

"""Checks of PLY, STL and OBJ files before parsing: truncation, point clouds, each told by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import InvalidInput
from .ply_faces import STRIPS
from .report import LoadSettings

PLY_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "int64", "uint64", "float64"), 8),
}
PLY_HEADER_LIMIT = 1 << 16


def check_ply(path: Path, data: bytes, settings: LoadSettings) -> None:
    """Refuse PLY files that are truncated, hold no faces, or hold Gaussian splats."""
    end = re.search(rb"^end_header[ \t]*\r?\n", data[:PLY_HEADER_LIMIT], flags=re.MULTILINE)
    if not data.startswith(b"ply") or end is None:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has no whole PLY header ('ply' to 'end_header'); export it again."
        )
    header = data[: end.start()].decode("ascii", errors="replace")
    counts, row_sizes = _ply_elements(path, header)
    if "f_dc_0" in header and "rot_0" in header:
        raise InvalidInput(
            f"load_mesh: '{path.name}' is a Gaussian splat file with {counts.get('vertex', 0)} splats, expected a "
            "mesh; give it to the node 'Portrait from Splats'."
        )
    if "packed_rotation" in header:
        raise InvalidInput(
            f"load_mesh: '{path.name}' holds {counts.get('vertex', 0)} compressed Gaussian splats, expected a mesh; "
            "write them as a plain splat PLY, and give that to the node 'Portrait from Splats'."
        )
    if counts.get(STRIPS, 0) and "format ascii" in header:
        raise InvalidInput(
            f"load_mesh: '{path.name}' holds strips of triangles as text, expected faces or a binary file; "
            "triangulate it before exporting, or export as GLB."
        )
    if counts.get("face", 0) == 0 and not counts.get(STRIPS, 0):
        raise InvalidInput(
            f"load_mesh: '{path.name}' is a point cloud of {counts.get('vertex', 0)} points with 0 faces, expected a "
            "triangle mesh; run a surface reconstruction on it first."
        )
    check_face_count(path, counts.get("face", 0), settings)
    body = data[end.end() :]
    if "format ascii" in header:
        lines, expected = body.count(b"\n") + (not body.endswith(b"\n")), sum(counts.values())
        if lines < expected:
            raise InvalidInput(f"load_mesh: '{path.name}' is truncated: {lines} rows, its header promises {expected}.")
    else:
        expected = sum(counts[name] * row_sizes[name] for name in counts)
        if len(body) < expected:
            raise InvalidInput(
                f"load_mesh: '{path.name}' is truncated: {len(body)} bytes of data, its header promises at least "
                f"{expected}. Copy or download it again."
            )


def _ply_elements(path: Path, header: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count and least row size in bytes of each element."""
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            name = words[1]
            counts[name], sizes[name] = int(words[2]), 0
        elif words[:1] == ["property"] and len(words) >= 3 and counts:
            last = next(reversed(counts))
            # An empty list is one count; triangles hold three entries.
            size = PLY_SIZES.get(words[2 if words[1] == "list" else 1], None)
            if size is None:
                raise InvalidInput(
                    f"load_mesh: '{path.name}' has an unknown PLY property '{line[:80]}'; export it again."
                )
            sizes[last] += size
    return counts, sizes


def check_stl(path: Path, data: bytes, settings: LoadSettings) -> None:
    """Refuse binary STL files whose size does not fit their face count."""
    if data[:5].lower() == b"solid" and b"facet" in data[:1024]:
        return
    if len(data) < 84:
        raise InvalidInput(f"load_mesh: '{path.name}' is truncated: {len(data)} bytes, a binary STL has at least 84.")
    faces = int(np.frombuffer(data, "<u4", count=1, offset=80)[0])
    check_face_count(path, faces, settings)
    if len(data) < 84 + 50 * faces:
        raise InvalidInput(
            f"load_mesh: '{path.name}' is truncated: {len(data)} bytes, {faces} faces need {84 + 50 * faces}."
        )


def check_obj(path: Path, data: bytes, settings: LoadSettings) -> None:
    """Refuse OBJ files without faces or with indices that would be read wrongly."""
    vertices = len(re.findall(rb"^[ \t]*v[ \t]", data, flags=re.MULTILINE))
    face_lines = re.findall(rb"^[ \t]*f[ \t]+([^\r\n#]*)", data, flags=re.MULTILINE)
    if not face_lines:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has {vertices} vertices and 0 faces, expected a triangle mesh; "
            "export the faces too."
        )
    check_face_count(path, len(face_lines), settings)
    indices = np.array(
        [int(i) for i in re.findall(rb"(?:^|[ \t])(-?\d+)", b"\n".join(face_lines), re.MULTILINE)] or [0]
    )
    if indices.max() > vertices or indices.min() < -vertices or (indices == 0).any():
        raise InvalidInput(
            f"load_mesh: '{path.name}' has faces that point at vertices {indices.min()} to {indices.max()}, but there "
            f"are {vertices} (OBJ counts from 1); export it again."
        )
    if (indices < 0).any():
        first_face = re.search(rb"^[ \t]*f[ \t]", data, flags=re.MULTILINE)
        if first_face and re.search(rb"^[ \t]*v[ \t]", data[first_face.start() :], flags=re.MULTILINE):
            raise InvalidInput(
                f"load_mesh: '{path.name}' mixes relative (negative) indices with later vertices, expected absolute "
                "indices; export it again with absolute indices or as GLB."
            )


def check_face_count(path: Path, faces: int, settings: LoadSettings) -> None:
    """Refuse meshes with more faces than the settings allow."""
    if faces > settings.max_faces:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has {faces} faces, expected at most {settings.max_faces}; decimate it, "
            "200000 faces are plenty for a head."
        )

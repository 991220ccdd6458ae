"""Reading a mesh file: check, parse with trimesh, merge the scene, clean, validate."""

from __future__ import annotations

import io
import logging
import re
import warnings as python_warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InvalidInput
from ..files import require_file
from ..meshes import Mesh
from .atlas import merge_textures
from .checks import check_face_count, check_obj, check_ply, check_stl
from .companions import plain_lines, read_picture, texture_names
from .gltf import prepare_gltf
from .obj import read_obj
from .parts import Notes, Part, PartReader
from .ply_faces import with_plain_triangles
from .report import LoadSettings, MeshReport, count_edges, reading

FORMATS = {".glb": "GLB", ".gltf": "glTF", ".obj": "OBJ", ".ply": "PLY", ".stl": "STL", ".off": "OFF"}
MIN_EXTENT, MAX_EXTENT = 1e-6, 1e6
MAX_FILE_BYTES = 2 << 30
# Faces below this share of the squared diagonal have no usable normal in float32.
DEGENERATE_AREA = 1e-12


def load_mesh(path: str | Path, settings: LoadSettings | None = None) -> Mesh:
    """The mesh of a GLB, glTF, OBJ, PLY, STL or OFF file; see `load_mesh_with_report`."""
    return load_mesh_with_report(path, settings)[0]


def load_mesh_with_report(path: str | Path, settings: LoadSettings | None = None) -> tuple[Mesh, MeshReport]:
    """One `Mesh` with all geometries of a file in the scene's frame and units, and what was found.

    All geometries are merged. One texture shared by all of them is kept as it is; several textures, or textured beside
    coloured geometries, are packed into an atlas; geometries that are all coloured become vertex colours (vertices are
    split where colours meet). A mesh without any colour is grey. Colours are display (sRGB) colours. Vertices at the
    same place with the same colour are merged, faces without area and wholly transparent faces are removed, vertices
    without faces are dropped. Non-manifold meshes are accepted and counted.

    Raises `MissingModelFile` if there is no such file and `InvalidInput` for everything that cannot be used: another
    extension, a damaged, truncated or empty file, point clouds, compressed geometry, indices out of range, non-finite
    vertices, no area, extents beyond 1e-6..1e6, more than `settings.max_faces` faces.
    """
    settings = settings or LoadSettings()
    path = require_file("load_mesh", path, "Expected a GLB, glTF, OBJ, PLY, STL or OFF file.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInput(
            f"load_mesh: '{path.name}' ends in '{suffix}', expected one of {', '.join(FORMATS)}; export it as GLB."
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has {path.stat().st_size / 2**30:.1f} GiB, expected at most 2; "
            "decimate the mesh."
        )
    notes = Notes()
    with reading("load_mesh", path.name, FORMATS[suffix]):
        parts = _read_parts(path, suffix, settings, notes)
        mesh, counts = _merge(path, parts, settings, notes)
    boundary, non_manifold = count_edges(mesh.faces.numpy())
    if non_manifold > 0.01 * len(mesh.faces):
        notes.warn(f"{non_manifold} edges join three or more faces; colours and views are right, fitting may suffer")
    extents = (mesh.vertices.max(0).values - mesh.vertices.min(0).values).tolist()
    return mesh, MeshReport(
        file_name=path.name,
        file_format=FORMATS[suffix],
        geometries=len(parts),
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        color_source=_color_source(parts),
        textures=len({id(part.texture) for part in parts if part.texture is not None}),
        extents=(extents[0], extents[1], extents[2]),
        transparent_faces_removed=notes.transparent_faces,
        boundary_edges=boundary,
        non_manifold_edges=non_manifold,
        warnings=tuple(notes.warnings),
        files=tuple(notes.files),
        **counts,
    )


def _read_parts(path: Path, suffix: str, settings: LoadSettings, notes: Notes) -> list[Part]:
    """Parse the file and collect its visible geometries, placed in the scene's frame."""
    reader, points = PartReader(settings, notes, path.name), 0
    if suffix == ".obj":
        data = plain_lines(path.read_bytes())
        check_obj(path, data, settings)
        parts = read_obj(path, data, reader, notes)
    else:
        parts, points = _scene_parts(path, _parse(path, suffix, settings, notes), reader)
    if not parts:
        hidden = f", {notes.transparent_faces} transparent" if notes.transparent_faces else ""
        told = "".join(f"; {warning}" for warning in notes.warnings)
        raise InvalidInput(
            f"load_mesh: '{path.name}' has 0 visible faces ({points} loose points{hidden}{told}), expected a triangle "
            "mesh; export the surface, not a point cloud."
        )
    check_face_count(path, sum(len(part.faces) for part in parts), settings)
    return parts


def _scene_parts(path: Path, scene: Any, reader: PartReader) -> tuple[list[Part], int]:
    """The visible geometries of a trimesh scene, and the number of its loose points."""
    parts, points = [], 0
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if not hasattr(geometry, "faces"):
            points += len(geometry.vertices)
            continue
        _check_geometry(path, geometry)
        part = reader.read(geometry, np.asarray(transform, dtype=np.float64)) if len(geometry.faces) else None
        if part is not None:
            parts.append(part)
    return parts, points


def _parse(path: Path, suffix: str, settings: LoadSettings, notes: Notes) -> Any:
    """The file as a trimesh scene."""
    import trimesh

    pictures: dict[str, bytes] = {}
    if suffix in (".glb", ".gltf"):
        data = prepare_gltf(path, settings, notes)
        suffix = ".glb"
    else:
        data = path.read_bytes()
        if suffix == ".ply":
            check_ply(path, data, settings)
            data, pictures = _ply_pictures(path, with_plain_triangles(data), notes)
        elif suffix == ".stl":
            check_stl(path, data, settings)
    logger, level = logging.getLogger("trimesh"), logging.getLogger("trimesh").level
    logger.setLevel(logging.CRITICAL)  # what matters of its log is in the report, in the user's words
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            return trimesh.load_scene(
                io.BytesIO(data),
                file_type=suffix[1:],
                resolver=pictures,
                process=False,
                maintain_order=False,  # True gives all corners of a vertex one median texture coordinate
            )
    finally:
        logger.setLevel(level)


def _ply_pictures(path: Path, data: bytes, notes: Notes) -> tuple[bytes, dict[str, bytes]]:
    """The PLY and its readable pictures by name; without any, its texture coordinates are renamed, so that they do not
    hide the vertex colours."""
    pictures: dict[str, bytes] = {}
    names = [name for name in texture_names(data) if name]
    for name in names[:1]:
        picture, reason, file = read_picture([path.parent], name)
        if picture is not None and file is not None:
            notes.read(file)
            return data, {name: picture}
        of_file = "the texture" if file is not None else "the file"
        end = "; the mesh stays untextured" if file is not None else "; its colours are missing"
        notes.warn(f"{of_file} '{name[:80]}' named in the mesh {reason}{end}")
    end_of_header = data.find(b"end_header")
    header = re.sub(
        rb"\b(texture_u|texture_v|texcoord|u|v|s|t)(?=\r?$)", rb"unused_\1", data[:end_of_header], flags=re.M
    )
    return header + data[end_of_header:], pictures


def _check_geometry(path: Path, geometry: Any) -> None:
    """Refuse faces that point nowhere, and binary PLY rows of mixed length, which trimesh reads as noise."""
    faces, vertices = np.asarray(geometry.faces), len(geometry.vertices)
    if len(faces) and not (0 <= faces.min() and faces.max() < vertices):
        raise InvalidInput(
            f"load_mesh: '{path.name}' has faces that point at vertices {faces.min()} to {faces.max()}, but there are "
            f"{vertices}; export it again."
        )
    rows = geometry.metadata.get("_ply_raw", {}).get("face", {}).get("data")
    if isinstance(rows, np.ndarray) and rows.dtype.names and rows.dtype[0].names:
        lengths = rows[rows.dtype.names[0]][rows.dtype[0].names[0]]
        if len(lengths) and lengths.min() != lengths.max():
            raise InvalidInput(
                f"load_mesh: '{path.name}' mixes faces of {lengths.min()} and {lengths.max()} corners in a binary PLY, "
                "expected one kind; triangulate it before exporting, or export as GLB."
            )


def _merge(path: Path, parts: list[Part], settings: LoadSettings, notes: Notes) -> tuple[Mesh, dict[str, int]]:
    """One clean mesh of all parts, and the counts of what cleaning removed."""
    offsets = np.cumsum([0, *[len(part.vertices) for part in parts]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets)])
    _check_vertices(path, vertices, faces)
    textured = any(part.texture is not None for part in parts)
    corner_uvs = texture = None
    corner_colors = np.zeros((len(faces), 3, 3), np.float32)
    if textured:
        texture, corner_uvs = merge_textures(parts, notes)
    else:
        corner_colors = np.concatenate([part.corner_colors for part in parts if part.corner_colors is not None])
    if _color_source(parts) == "none":
        notes.warn("the mesh has neither a texture nor colours and is shown grey")
    used = len(np.unique(faces))
    vertices, colors, faces = _join_equal_vertices(vertices, corner_colors, faces)
    keep = _faces_with_area(vertices, faces)
    if not keep.any():
        raise InvalidInput(f"load_mesh: '{path.name}' has {len(faces)} faces, all without area; export it again.")
    remaining, renumbered = np.unique(faces[keep], return_inverse=True)
    counts = {
        "degenerate_faces_removed": int((~keep).sum()),
        "unused_vertices_dropped": int(offsets[-1]) - used,
        "vertices_merged": max(0, used - len(vertices)),
    }
    return Mesh(
        vertices=torch.from_numpy(vertices[remaining].astype(np.float32)),
        faces=torch.from_numpy(renumbered.reshape(-1, 3).astype(np.int64)),
        vertex_colors=None if textured else torch.from_numpy(colors[remaining].astype(np.float32)),
        corner_uvs=None if corner_uvs is None else torch.from_numpy(corner_uvs[keep].astype(np.float32)),
        texture=None if texture is None else torch.from_numpy(np.ascontiguousarray(texture, dtype=np.float32)),
    ), counts


def _check_vertices(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    used = vertices[np.unique(faces)]
    bad = int((~np.isfinite(used).all(axis=1)).sum())
    if bad:
        raise InvalidInput(
            f"load_mesh: '{path.name}' has {bad} vertices of {len(used)} with NaN or infinite coordinates; repair it."
        )
    extent = float((used.max(0) - used.min(0)).max())
    if not MIN_EXTENT <= extent <= MAX_EXTENT or np.abs(used).max() > 1e3 * MAX_EXTENT:
        raise InvalidInput(
            f"load_mesh: '{path.name}' is {extent:.3g} units large around {np.abs(used).max():.3g}, expected between "
            f"{MIN_EXTENT:g} and {MAX_EXTENT:g}; scale it, a head is about 0.3 m, 30 cm or 300 mm."
        )


def _join_equal_vertices(
    vertices: np.ndarray, corner_colors: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [U, 3] with colours [U, 3], unique in both, and faces [F, 3] that point at them.

    Positions are compared as float32, the precision of the result; files split vertices at seams, a surface is whole.
    """
    corners = vertices.astype(np.float32)[faces].reshape(-1, 3) + np.float32(0)  # -0 and 0 are one place
    colors = np.rint(corner_colors.reshape(-1, 3) * 255).astype(np.float32)
    rows = np.ascontiguousarray(np.concatenate([corners, colors], axis=1))
    _, first, inverse = np.unique(rows.view([("", np.void, rows.itemsize * 6)]), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # keep the file's order of vertices
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = first[order]
    joined = corners[first].astype(np.float64), corner_colors.reshape(-1, 3)[first]
    return joined[0], joined[1], rank[inverse.reshape(-1)].reshape(-1, 3)


def _faces_with_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    diagonal = np.linalg.norm(vertices.max(0) - vertices.min(0))
    return area > DEGENERATE_AREA * diagonal**2


def _color_source(parts: list[Part]) -> str:
    found = {part.color_source for part in parts}
    for source in ("texture", "vertex colors", "material colors"):
        if source in found:
            return source
    return "none"

"""What a mesh file is read with (`LoadSettings`) and what was found in it (`MeshReport`)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

from ..errors import AnimPortraitError, InvalidInput

SCHEMA_VERSION = 1
VERTEX_COLOR_SPACES = ("auto", "linear", "srgb")


@dataclasses.dataclass(frozen=True)
class LoadSettings:
    """How a mesh file is read.

    max_faces: more triangles than this are refused.  max_texture_size: larger textures are shrunk to this many texels
    per side, which the report tells.  vertex_color_space: how the vertex colours of glTF files are stored; 'linear' is
    what the glTF specification says, 'srgb' what some writers do, 'auto' is linear except for files written by trimesh,
    which stores display colours.
    """

    max_faces: int = 2_000_000
    max_texture_size: int = 4096
    vertex_color_space: str = "auto"

    def __post_init__(self) -> None:
        if self.max_faces < 1 or self.max_texture_size < 1:
            raise InvalidInput(
                f"LoadSettings: max_faces {self.max_faces} and max_texture_size {self.max_texture_size} "
                "must both be at least 1."
            )
        if self.vertex_color_space not in VERTEX_COLOR_SPACES:
            raise InvalidInput(
                f"LoadSettings: vertex_color_space '{self.vertex_color_space}', expected one of {VERTEX_COLOR_SPACES}."
            )


@dataclasses.dataclass(frozen=True)
class MeshReport:
    """What was found in a mesh file and what was done to it.

    color_source: 'texture', 'vertex colors', 'material colors' or 'none' (then the mesh is grey).  extents: size of the
    bounding box in the file's units.  warnings: sentences for the user.  files: names of the companions that were read.
    """

    file_name: str
    file_format: str
    geometries: int
    vertices: int
    faces: int
    color_source: str
    textures: int
    extents: tuple[float, float, float]
    degenerate_faces_removed: int = 0
    transparent_faces_removed: int = 0
    unused_vertices_dropped: int = 0
    vertices_merged: int = 0
    boundary_edges: int = 0
    non_manifold_edges: int = 0
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def summary(self) -> str:
        """One line of numbers and one line per warning, for a log or a node's text."""
        size = " x ".join(f"{extent:.4g}" for extent in self.extents)
        read = f" ({', '.join(self.files)})" if self.files else ""
        counts = (
            f"{self.file_name}: {self.file_format}, {self.geometries} geometries, {self.vertices} vertices, "
            f"{self.faces} faces, size {size}, colour from {self.color_source}{read}; removed "
            f"{self.degenerate_faces_removed} degenerate and {self.transparent_faces_removed} transparent faces; "
            f"{self.boundary_edges} boundary and {self.non_manifold_edges} non-manifold edges."
        )
        return "\n".join([counts, *(f"warning: {warning}" for warning in self.warnings)])


def count_edges(faces: np.ndarray) -> tuple[int, int]:
    """Boundary edges (one face) and non-manifold edges (three faces or more) of faces [F, 3]."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    keys = edges[:, 0] * (int(faces.max(initial=0)) + 1) + edges[:, 1]
    _, count = np.unique(keys, return_counts=True)
    return int((count == 1).sum()), int((count > 2).sum())


@contextlib.contextmanager
def reading(where: str, name: str, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises on a damaged file into one `InvalidInput` that names the file."""
    try:
        yield
    except AnimPortraitError:
        raise
    # A foreign parser fed a damaged file fails in any way it likes; the cause stays attached.
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or "no detail"
        raise InvalidInput(
            f"{where}: '{name}' could not be read as {kind} ({type(error).__name__}: {detail}). "
            "The file is damaged or of another format: export it again, GLB is the safest choice."
        ) from error

"""A moving avatar as PLY: one plain splat file per frame, or one file of the animated layout.

The animated layout is that of CAP4D's viewer: elements `faces` (corners), `base_vertex` (the body at rest), `vertex`
(the Gaussians, relative to the triangles, with `binding`), and for each frame all vertices' offsets from the base, in
0..1 of their range (`delta_vertex_00000`), with the range's ends (`meta_delta_min_00000`, `meta_delta_max_00000`). A
viewer needs no body model for it.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..avatar.model import pose_gaussians
from ..avatar.rig import AvatarRig
from ..errors import InvalidInput
from ..files import atomic_folder
from ..gaussians import Gaussians
from ..progress import Progress
from ..rigging import triangle_frames
from .licences import LICENSED_BODY
from .ply import COLOR_AND_SHAPE, color_and_shape, gaussians_of_columns, write_splat_ply
from .ply_files import read_elements, write_elements

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar.model import RiggedAvatar

_XYZ = ("x", "y", "z")
_CORNERS = ("index_0", "index_1", "index_2")
_SPLAT_COLUMNS = (*_XYZ, *COLOR_AND_SHAPE, "binding")
LEVELS = 255
_FRAME_NAME = re.compile(r"\d{5,}\.ply")


def write_frame_plys(
    avatar: RiggedAvatar,
    motion: Motion,
    folder: str | Path,
    y_down: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write `00000.ply`, `00001.ply`, ... into a folder of their own, each as `write_splat_ply` does, all or none.

    overwrite: replace an older folder, if it holds nothing else; without it one that is there is refused. Returns the
    paths.
    """
    folder, rig = Path(folder), AvatarRig(avatar)
    with atomic_folder("write_frame_plys", folder, _FRAME_NAME, overwrite) as temporary:
        for index in range(len(motion)):
            with torch.no_grad():
                write_splat_ply(rig.pose(motion.parameters[index]), temporary / f"{index:05}.ply", y_down)
            if progress is not None:
                progress(index + 1, len(motion), None)
    return [folder / f"{index:05}.ply" for index in range(len(motion))]


def write_animated_ply(
    avatar: RiggedAvatar,
    motion: Motion,
    path: str | Path,
    quantize: bool = True,
    include_licensed_body: bool = False,
    progress: Progress | None = None,
) -> float:
    """Write one PLY of the animated layout, in one piece; returns the largest error of a stored vertex, world units.

    quantize: offsets of one byte, in 255 steps of their range in that frame, as CAP4D writes them; else float32.
    Raises InvalidInput for a licensed body, whose template the file would hold, without `include_licensed_body`.
    """
    body = avatar.body
    if not (body.redistributable or include_licensed_body):
        left_out = "faces and vertices, without which this layout is empty,"
        raise InvalidInput(f"write_animated_ply: {LICENSED_BODY.format(body=body.assets.name, left_out=left_out)}")
    avatar, rig = avatar.with_quaternion_order("corrected"), AvatarRig(avatar)
    with torch.no_grad():
        base = rig.body(avatar.parameters).vertices[0].numpy()
    columns = [avatar.gaussians.means, color_and_shape(avatar.gaussians), avatar.binding[:, None].float()]
    elements = {
        "faces": (_CORNERS, body.faces.numpy().astype("<u4")),
        "base_vertex": (_XYZ, base.astype("<f4")),
        "vertex": (_SPLAT_COLUMNS, torch.cat(columns, dim=1).detach().numpy().astype("<f4")),
    }
    error = 0.0
    for index in range(len(motion)):
        with torch.no_grad():
            offsets = rig.body(motion.parameters[index]).vertices[0].numpy() - base
        low, high = offsets.min(axis=0), offsets.max(axis=0)
        shares = (offsets - low) / np.maximum(high - low, 1e-10)
        stored = np.rint(shares * LEVELS).astype("u1") if quantize else shares.astype("<f4")
        error = max(error, float(np.linalg.norm(_offsets(stored, low, high) - offsets, axis=1).max()))
        elements[f"meta_delta_min_{index:05}"] = (_XYZ, low[None].astype("<f4"))
        elements[f"meta_delta_max_{index:05}"] = (_XYZ, high[None].astype("<f4"))
        elements[f"delta_vertex_{index:05}"] = (_XYZ, stored)
        if progress is not None:
            progress(index + 1, len(motion), None)
    write_elements(path, elements, [f"fps {motion.fps:g}"])
    return error


def _offsets(stored: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Offsets [V, 3] of shares of their range, float32 in 0..1 or uint8."""
    shares = stored / np.float32(LEVELS) if stored.dtype == np.uint8 else stored
    return low + shares * (high - low)


@dataclasses.dataclass(frozen=True)
class AnimatedSplats:
    """An animated PLY: faces [F, 3] and vertices [T, V, 3] of the body, Gaussians relative to its triangles, and the
    face [N] that carries each."""

    faces: Tensor
    base_vertices: Tensor
    vertices: Tensor
    gaussians: Gaussians
    binding: Tensor

    def frame(self, index: int) -> Gaussians:
        """The Gaussians in the world at a frame; colours that depend on the view turn with their triangles."""
        posed, rest = (triangle_frames(v, self.faces)[self.binding] for v in (self.vertices[index], self.base_vertices))
        return pose_gaussians(self.gaussians, posed, rest)


def read_animated_ply(path: str | Path) -> AnimatedSplats:
    """Read a PLY of the animated layout. Raises InvalidInput for another or a damaged one."""
    where = "read_animated_ply"
    elements = read_elements(path, where)
    missing = [name for name in ("faces", "base_vertex", "vertex") if name not in elements]
    if missing:
        raise InvalidInput(f"{where}: '{path}' lacks the elements {', '.join(missing)}; expected an animated PLY.")
    faces = torch.from_numpy(_columns(elements, "faces", _CORNERS, path).astype(np.int64))
    base = _columns(elements, "base_vertex", _XYZ, path)
    frames: list[np.ndarray] = []
    while f"delta_vertex_{len(frames):05}" in elements:
        number = f"{len(frames):05}"
        low, high = (_columns(elements, f"meta_delta_{end}_{number}", _XYZ, path) for end in ("min", "max"))
        stored = _columns(elements, f"delta_vertex_{number}", _XYZ, path)
        if stored.shape != base.shape or len(low) != 1 or len(high) != 1:
            raise InvalidInput(f"{where}: frame {number} of '{path}' has {len(stored)} vertices, expected {len(base)}.")
        frames.append(base + _offsets(stored, low[0], high[0]))
    table = _columns(elements, "vertex", _SPLAT_COLUMNS, path)
    columns = {name: np.ascontiguousarray(table[:, index]) for index, name in enumerate(_SPLAT_COLUMNS)}
    gaussians = gaussians_of_columns(columns)
    gaussians.check_finite(where)
    binding = torch.from_numpy(columns["binding"]).long()
    reaches = int(faces.max()) >= len(base) or int(binding.max()) >= len(faces)
    if reaches or min(int(faces.min()), int(binding.min())) < 0:
        raise InvalidInput(f"{where}: '{path}' points at vertices or faces that are not there; it is damaged.")
    vertices = torch.from_numpy(np.stack(frames) if frames else np.zeros((0, *base.shape), np.float32)).float()
    return AnimatedSplats(faces, torch.from_numpy(base.copy()), vertices, gaussians, binding)


def _columns(elements: dict[str, np.ndarray], name: str, columns: tuple[str, ...], path: str | Path) -> np.ndarray:
    """Columns [N, C] of an element, of their common type."""
    if name not in elements or any(column not in (elements[name].dtype.names or ()) for column in columns):
        raise InvalidInput(f"read_animated_ply: '{path}' has no whole element '{name}'; it is damaged.")
    return np.stack([elements[name][column] for column in columns], axis=1)

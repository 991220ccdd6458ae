"""Splats in a GLB: `KHR_gaussian_splatting` (Khronos, ratified), and how they hang on the mesh.

The extension's attributes hold the splats in the world at rest. No standard says how splats follow a skin, so that the
rig stands beside them in attributes of our own, which other readers pass over; docs/export.md describes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..avatar.rig import pose_avatar
from ..gaussians import Gaussians, sh0_to_rgb
from ..mesh_files.colors import srgb_to_linear
from ..mesh_files.glb import ARRAY_BUFFER, GlbWriter
from ..rotations import normalize_quaternion

if TYPE_CHECKING:
    from ..avatar.model import RiggedAvatar

EXTENSION = "KHR_gaussian_splatting"
POINTS = 0
RIG_ATTRIBUTES = ("_FACE", "_LOCAL_POSITION", "_LOCAL_ROTATION", "_LOCAL_SCALE", "_PART")
RIG_VERSION = 1


def add_splats(file: GlbWriter, avatar: RiggedAvatar, mesh_node: int | None, corner_order: list[int]) -> int:
    """Add the avatar's splats at rest as a mesh and node of their own; returns the node's index.

    mesh_node: node of the mesh whose faces carry them; None leaves the rig out. corner_order: corners of a stored face
    in the order that the triangle frames need.
    """
    with torch.no_grad():
        world = pose_avatar(avatar, avatar.parameters)
    attributes = _splat_attributes(file, world)
    properties = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    properties |= {"sortingMethod": "cameraDistance", "projection": "perspective"}
    mesh: dict[str, Any] = {"name": "splats"}
    if mesh_node is not None:
        attributes |= _rig_attributes(file, avatar.with_quaternion_order("corrected"))
        rig = {"version": RIG_VERSION, "node": mesh_node, "cornerOrder": corner_order}
        mesh["extras"] = {"animportrait3d_rig": {**rig, "attributes": list(RIG_ATTRIBUTES)}}
    mesh["primitives"] = [{"attributes": attributes, "mode": POINTS, "extensions": {EXTENSION: properties}}]
    file.tree["extensionsUsed"].append(EXTENSION)
    file.tree["meshes"].append(mesh)
    file.tree["nodes"].append({"name": "splats", "mesh": len(file.tree["meshes"]) - 1})
    return len(file.tree["nodes"]) - 1


def _splat_attributes(file: GlbWriter, world: Gaussians) -> dict[str, int]:
    """Accessors of the extension: quats xyzw, linear scales, opacities in 0..1; colours for viewers of points."""
    colors = srgb_to_linear(sh0_to_rgb(world.sh[:, 0]).clamp(0, 1).double().numpy())
    opacities = world.opacities.numpy()[:, None]
    attributes = {"POSITION": file.add_accessor(_floats(world.means), ARRAY_BUFFER, bounds=True)}
    arrays: dict[str, torch.Tensor | np.ndarray] = {
        "COLOR_0": np.concatenate([colors, opacities], axis=1),
        f"{EXTENSION}:ROTATION": normalize_quaternion(world.quats)[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": world.scales,
        f"{EXTENSION}:OPACITY": opacities,
    }
    arrays |= {name: world.sh[:, index] for index, name in enumerate(harmonics_names(world.sh.shape[1]))}
    return attributes | {name: file.add_accessor(_floats(values), ARRAY_BUFFER) for name, values in arrays.items()}


def harmonics_names(count: int) -> list[str]:
    """Attributes of `count` = 1, 4, 9 or 16 coefficients per channel, in the order of `Gaussians.sh`.

    >>> harmonics_names(4)[1:]
    ['KHR_gaussian_splatting:SH_DEGREE_1_COEF_0', 'KHR_gaussian_splatting:SH_DEGREE_1_COEF_1', \
'KHR_gaussian_splatting:SH_DEGREE_1_COEF_2']
    """
    degrees = [degree for degree in range(4) if degree**2 < count]
    return [f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{index}" for degree in degrees for index in range(2 * degree + 1)]


def _rig_attributes(file: GlbWriter, avatar: RiggedAvatar) -> dict[str, int]:
    """Accessors of the rig; whole numbers as floats, since glTF allows no 32-bit integers there."""
    local = avatar.gaussians
    values = (
        avatar.binding[:, None], local.means, normalize_quaternion(local.quats)[:, [1, 2, 3, 0]], local.scales,
        avatar.part_id[:, None],
    )  # fmt: skip
    return {name: file.add_accessor(_floats(value), ARRAY_BUFFER) for name, value in zip(RIG_ATTRIBUTES, values)}


def _floats(values: torch.Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values).astype("<f4")

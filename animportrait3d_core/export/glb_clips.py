"""Motions as animations of a GLB: turns of the joints, and one track of morph weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InvalidInput, ShapeMismatch
from ..mesh_files.glb import GlbWriter
from .glb_mesh import xyzw
from .glb_rig import HeadRig, local_transforms

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar.model import RiggedAvatar

STILL = 1e-6
"""World units, radians or shares: a track that never leaves the rest pose by more is not written."""
_FRAMES_AT_ONCE = 16


def check_motion(where: str, avatar: RiggedAvatar, motion: Motion, name: str) -> None:
    """Raise `InvalidInput` or `ShapeMismatch` unless the motion was made for this avatar's body and shape."""
    own, found = avatar.parameters, motion.parameters
    widths = [(p.betas.shape[1], p.expression.shape[1]) for p in (found, own)]
    if widths[0] != widths[1]:
        raise ShapeMismatch(
            f"{where}: the motion '{name}' has {widths[0]} shape and expression coefficients, the avatar {widths[1]}: "
            "load the motion for this avatar."
        )
    difference = float((found.betas - own.betas).abs().max()) if found.betas.numel() else 0.0
    if difference > 1e-4:
        raise InvalidInput(
            f"{where}: the motion '{name}' is of a body of another shape (betas differ by up to {difference:.3g}), and "
            "a file has one shape: load the motion for this avatar."
        )


def add_clip(
    file: GlbWriter, name: str, motion: Motion, avatar: RiggedAvatar, rig: HeadRig, nodes: tuple[list[int], int]
) -> float:
    """Add one animation; returns how far, in world units, its frames are at most from the body's own vertices.

    nodes: those of the joints, in the rig's order, and that of the mesh.
    """
    worlds, weights, deviation = _frames(motion, avatar, rig)
    times = file.add_accessor((np.arange(len(motion)) / motion.fps).astype("<f4"), bounds=True)
    clip: dict[str, Any] = {"name": name, "samplers": [], "channels": []}

    def add(node: int, path: str, values: np.ndarray) -> None:
        output = file.add_accessor(values.astype("<f4"))
        clip["samplers"].append({"input": times, "output": output, "interpolation": "LINEAR"})
        clip["channels"].append({"sampler": len(clip["samplers"]) - 1, "target": {"node": node, "path": path}})

    joints, mesh = nodes
    for index, node in enumerate(joints):
        for path, values in _tracks(rig, worlds, index).items():
            rest = np.asarray(file.tree["nodes"][node].get(path, [1, 1, 1]))
            if index == 0 and path == "rotation" or np.abs(values - rest).max() > STILL:
                add(node, path, values)
    if len(rig.morph_names) and np.abs(weights - rig.morph_weights(avatar.parameters)).max() > STILL:
        add(mesh, "weights", weights.reshape(-1))
    file.tree.setdefault("animations", []).append(clip)
    return deviation


def _frames(motion: Motion, avatar: RiggedAvatar, rig: HeadRig) -> tuple[np.ndarray, np.ndarray, float]:
    """Joint transforms [T, J, 4, 4], morph weights [T, K], and the largest distance from the body's own vertices."""
    body, parameters = avatar.body.to(dtype=torch.float64), motion.parameters.to(dtype=torch.float64)
    weights = rig.morph_weights(parameters)
    worlds, deviation = [], 0.0
    for start in range(0, len(motion), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        with torch.no_grad():
            posed = body(parameters[part])
        worlds.append(rig.joint_worlds(posed))
        shown = rig.vertices(worlds[-1], weights[part])
        deviation = max(deviation, float(np.linalg.norm(shown - posed.vertices.numpy(), axis=-1).max()))
    return np.concatenate(worlds), weights, deviation


def _tracks(rig: HeadRig, worlds: np.ndarray, index: int) -> dict[str, np.ndarray]:
    """Translation [T, 3], rotation [T, 4] xyzw on the short way from frame to frame, and scale [T, 3] of one joint."""
    translation, rotation, scale = local_transforms(rig, worlds)
    quats = xyzw(rotation[:, index])
    turned = np.cumprod(np.where((quats[1:] * quats[:-1]).sum(axis=1) < 0, -1.0, 1.0))
    quats[1:] *= turned[:, None]
    scales = np.repeat(scale[:, index, None], 3, axis=1)
    return {"translation": translation[:, index], "rotation": quats, "scale": scales}

"""Nodes of a glTF scene: where they stand, which are hidden, and meshes that joints move (glTF 2.0, 3.7.3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidInput
from .gltf_source import GltfSource, list_index

MAX_PLACE = 1e60
"""Of a node's transform, whose determinant must stay finite."""


def local_transform(node: dict[str, Any]) -> np.ndarray:
    """[4, 4] of a node relative to its parent."""
    if "matrix" in node:
        return np.asarray(node["matrix"], dtype=np.float64).reshape(4, 4).T  # stored by columns
    x, y, z, w = np.asarray(node.get("rotation", [0, 0, 0, 1]), dtype=np.float64)
    matrix = np.eye(4)
    with np.errstate(invalid="ignore", over="ignore"):
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ] @ np.diag(np.asarray(node.get("scale", [1, 1, 1]), dtype=np.float64))
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def world_transforms(nodes: list[dict[str, Any]]) -> dict[int, np.ndarray]:
    """[4, 4] into the world by node; nodes of a circle, which nothing leads to, are left out."""
    children = {child for node in nodes for child in node.get("children", [])}
    found = {index: local_transform(node) for index, node in enumerate(nodes) if index not in children}
    waiting = list(found)
    while waiting:
        parent = waiting.pop()
        for child in nodes[parent].get("children", []):
            if child not in found:
                with np.errstate(invalid="ignore", over="ignore"):
                    found[child] = found[parent] @ local_transform(nodes[list_index(child)])
                waiting.append(child)
    if not all((np.abs(matrix) < MAX_PLACE).all() for matrix in found.values()):
        raise InvalidInput(
            f"load_mesh: the nodes of the glTF scene stand at places that are not finite or beyond {MAX_PLACE:g}; "
            "export it again."
        )
    return found


def hidden_nodes(nodes: list[dict[str, Any]], roots: list[int]) -> tuple[set[int], set[int]]:
    """Nodes that the scene shows, and those that it holds but hides: by KHR_node_visibility, or an ancestor's."""
    shown: set[int] = set()
    hidden: set[int] = set()
    waiting = [(root, True) for root in roots]
    while waiting:
        index, visible = waiting.pop()
        if index in shown or index in hidden:
            continue
        node = nodes[index]
        visible = visible and node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True)
        (shown if visible else hidden).add(index)
        waiting += [(child, visible) for child in node.get("children", [])]
    return shown, hidden


def skinned_positions(
    source: GltfSource,
    skin: int,
    positions: np.ndarray,
    joints_and_weights: tuple[np.ndarray, np.ndarray],
    transforms: dict[int, np.ndarray],
) -> tuple[np.ndarray, bool]:
    """Positions [V, 3] in the world: the weighted sum of joint transform x inverse bind matrix x position; and whether
    that mirrors. The transform of the mesh's own node has no part in it.

    joints_and_weights: [V, K] each; weights are scaled to a sum of 1, of stored bytes they may be off.
    """
    joints = source.whole_numbers("joints", joints_and_weights[0])
    weights = source.finite("weights", joints_and_weights[1].astype(np.float64))
    entry = source.items("skins")[list_index(skin)]
    names = [list_index(joint) for joint in entry["joints"]]
    if len(joints) and (joints.max() >= len(names) or any(name not in transforms for name in names)):
        raise InvalidInput(
            f"load_mesh: '{source.path.name}' has a skin of {len(names)} joints, but vertices or the skin point at "
            f"others (up to joint {joints.max()}); export it again."
        )
    inverse = np.tile(np.eye(4), (len(names), 1, 1))
    if "inverseBindMatrices" in entry:
        inverse = source.accessor(entry["inverseBindMatrices"])[: len(names)].reshape(-1, 4, 4).transpose(0, 2, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        matrices = np.stack([transforms[name] for name in names]) @ inverse
    source.finite("joints' places", matrices)
    total = weights.sum(axis=1, keepdims=True)
    # Vertices without any weight belong to their first joint, as in viewers; else they would stand at the origin.
    weights = np.where(total > 1e-12, weights / np.maximum(total, 1e-12), np.eye(1, weights.shape[1]))
    moved = np.zeros_like(positions)
    with np.errstate(invalid="ignore", over="ignore"):  # vertices that are not finite are told when parts are merged
        for column in range(joints.shape[1]):
            matrix = matrices[joints[:, column]]
            placed = np.einsum("vij,vj->vi", matrix[:, :3, :3], positions) + matrix[:, :3, 3]
            moved += weights[:, column : column + 1] * placed
    return moved, bool(np.median(np.linalg.det(matrices[:, :3, :3])) < 0)

"""What a piece of the bust beside the skin is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LABELS = ("skin", "lid_rim", "mouth_bag", "teeth", "gum", "tongue", "eyeball", "ear")


@dataclass(frozen=True)
class Part:
    """One piece: n own vertices, faces over all vertices of the bust, and how it is textured and carried.

    closed, opened: [n, 3] mm, lids down and lids open.  faces: [F, 3] indices into the whole bust, wound outward.
    corner_uvs: [F, 3, 2] in the chart's own 0..1.  jaw: [n] weight of the jaw joint.  joint: 'blend' (head with jaw
    weights), 'head', 'jaw', 'left_eye' or 'right_eye'.  follows: [n] skin vertex whose expression it copies, and
    follow_share: [n] how much of it (0 = none).
    """

    name: str
    label: str
    chart: str
    joint: str
    closed: np.ndarray
    opened: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray
    jaw: np.ndarray
    follows: np.ndarray
    follow_share: np.ndarray


def still_part(
    name: str, label: str, chart: str, joint: str, points: np.ndarray, grid: tuple[np.ndarray, np.ndarray]
) -> Part:
    """A part that no expression moves: rigid to one joint. `grid` is (faces, corner_uvs)."""
    count = len(points)
    zeros = np.zeros(count)
    jaw = np.ones(count) if joint == "jaw" else zeros
    return Part(name, label, chart, joint, points, points, *grid, jaw, zeros.astype(np.int64), zeros)

"""Loose locks of hair: tapered, slightly lifted blades along the border of a shell, which break up its edge. mm."""

from __future__ import annotations

import dataclasses

import numpy as np

from .hair import FLOWS, HairShell, strand_coordinates
from .hair_styles import HairStyle
from .shells import ShellGrid

SEGMENTS = 7


@dataclasses.dataclass(frozen=True)
class Locks:
    """points: [N, SEGMENTS, 3, 3] (lock, step from the root, across, xyz); place: [N] index on the flattened grid."""

    points: np.ndarray
    place: np.ndarray


def build_locks(grid: ShellGrid, shell: HairShell, style: HairStyle, generator: np.random.Generator) -> Locks | None:
    """Locks that start inside the border, follow the strands and end a little beyond it; None if the style has none."""
    if style.locks == 0:
        return None
    rows, columns = grid.shape
    border_row = _border_rows(shell.mask)
    usable = np.flatnonzero(border_row > 6)
    if style.curtain is not None:
        # Hanging hair frays at its lower end only; at a parted forehead loose locks would read as spikes.
        ends = shell.points[border_row[usable].astype(int), usable]
        usable = usable[ends[:, 1] < -30.0]
    column = generator.choice(usable, size=style.locks) + generator.uniform(0, 1, style.locks)
    length = style.lock_length * generator.uniform(0.7, 1.25, style.locks)
    width = 0.5 * generator.uniform(2.2, 4.6, style.locks)
    lift = generator.uniform(0.6, 2.0, style.locks)
    beyond = generator.uniform(0.10, 0.30, style.locks) * length
    whole = column.astype(int) % (columns - 1)
    pitch = np.linalg.norm(np.diff(shell.points, axis=0), axis=-1)
    spacing = np.maximum(pitch[np.clip(border_row[whole].astype(int) - 1, 0, rows - 2), whole], 0.5)
    end = border_row[whole] + beyond / spacing
    steps = np.linspace(0, 1, SEGMENTS)
    row = end[:, None] - (1 - steps[None]) * (length / spacing)[:, None]
    sway = generator.normal(0, 1.0, style.locks)[:, None] * steps[None] ** 2
    center, outward, sideways = _surface(shell.points, row, column[:, None] + sway)
    taper = np.sqrt(np.clip(1 - steps**2.2, 0, 1)) * (0.55 + 0.45 * np.minimum(1, steps * 4))
    rise = (np.sin(np.pi * np.clip(steps, 0, 1) ** 0.8) * 1.0 - 0.5)[None] * lift[:, None]
    middle = center + outward * (rise + 0.5 - 1.4 * (1 - steps[None]) ** 3)[..., None]
    half = sideways * (width[:, None] * taper[None])[..., None]
    sunk = outward * (-0.7 * taper[None, :, None])
    points = np.stack([middle - half + sunk, middle, middle + half + sunk], axis=2)
    return Locks(points, np.clip(end.astype(int), 0, rows - 1) * columns + whole)


def _border_rows(mask: np.ndarray) -> np.ndarray:
    """Row [C] (fractional) at which each column of the mask first turns negative; 0 where it never is positive."""
    inside = mask[:, :-1] > 0
    entered = np.maximum.accumulate(inside, axis=0)
    leaves = entered & ~inside
    row = np.argmax(leaves, axis=0)
    return np.where(leaves.any(axis=0), row, 0).astype(float)


def _surface(points: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear point of the shell at (row, column) [N, S], its outward normal and the unit direction across."""
    rows, columns = points.shape[:2]
    row = np.clip(row, 0.0, rows - 1.001)
    column = np.mod(column, columns - 1)
    r, c = row.astype(int), column.astype(int)
    fr, fc = (row - r)[..., None], (column - c)[..., None]
    a, b, d, e = points[r, c], points[r, c + 1], points[r + 1, c], points[r + 1, c + 1]
    center = (a * (1 - fc) + b * fc) * (1 - fr) + (d * (1 - fc) + e * fc) * fr
    across = (b - a) * (1 - fr) + (e - d) * fr
    down = (d - a) * (1 - fc) + (e - b) * fc
    normal = np.cross(down, across)
    unit = np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    return center, normal / unit, across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)


def strand_seeds(locks: Locks, style: HairStyle) -> np.ndarray:
    """Strand coordinate [N] at which each lock starts, so that its paint continues that of the shell."""
    flow = FLOWS[style.flow]
    roots = locks.points[:, 0, 1]
    return np.array([strand_coordinates(x, y, z, flow, style.part)[0] for x, y, z in roots])

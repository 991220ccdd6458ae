"""The colour field of a portrait: a hash grid and a small network that give every point near the surface a colour.

Network and box are the authors' (their `texturing.py`; the paper's appendix A1.3): 24 encoded numbers, two layers of 32
without bias, four outputs through a sigmoid, of which the first three are the colour.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import IncompatibleCheckpoint, InvalidInput, check_finite, check_shape
from ..files import parse_json, read_safetensors, write_safetensors
from ..meshes import Mesh
from ..render import interpolate, rasterize_mesh
from .hash_grid import hash_encode, initial_table
from .hash_grid_settings import FEATURES, HashGridSettings

FORMAT = "animportrait3d.color_field"
SCHEMA_VERSION = 1
WIDTH, OUTPUTS = 32, 4
LARGEST = 1e6
"""No number of a field comes near; larger ones overflow when colours are computed."""

CHUNK = 1 << 16
"""Points evaluated at once, which bounds the memory."""


@dataclasses.dataclass(frozen=True)
class ColorField:
    """Colours in 0..1 for points in the world; call it.

    table: [rows, 2] of the hash grid `grid`.  weights: the network's matrices [32, 24], [32, 32], [4, 32].  low, high:
    [3] corners of the box that is mapped to the unit cube; points outside take the colour of its sides.
    """

    table: Tensor
    weights: tuple[Tensor, Tensor, Tensor]
    low: Tensor
    high: Tensor
    grid: HashGridSettings = HashGridSettings()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("ColorField", "table", self.table, [self.grid.rows, FEATURES])
        shapes = ([WIDTH, FEATURES * self.grid.levels], [WIDTH, WIDTH], [OUTPUTS, WIDTH])
        for index, (weight, shape) in enumerate(zip(self.weights, shapes, strict=True)):
            check_shape("ColorField", f"weights[{index}]", weight, shape)
        for name in ("low", "high"):
            check_shape("ColorField", name, getattr(self, name), [3])
            check_finite("ColorField", name, getattr(self, name))
        if not bool((self.high - self.low > 1e-6).all()):
            raise InvalidInput(f"ColorField: the box from {self.low.tolist()} to {self.high.tolist()} has no volume.")

    def __call__(self, points: Tensor) -> Tensor:
        """Colours [N, 3] of points [N, 3]; without gradients, in chunks."""
        check_shape("ColorField", "points", points, ["N", 3])
        with torch.no_grad():
            parts = [field_colors(self, chunk) for chunk in points.split(CHUNK)]
            return torch.cat(parts) if parts else points.new_zeros(0, 3)


def new_color_field(low: Tensor, high: Tensor, generator: torch.Generator, grid: HashGridSettings) -> ColorField:
    """An untrained field over the box low [3] to high [3], nearly grey everywhere: small table, matrices by He et al.
    2015 (uniform)."""
    sizes = ((WIDTH, FEATURES * grid.levels), (WIDTH, WIDTH), (OUTPUTS, WIDTH))
    bounds = [math.sqrt(6 / columns) for _, columns in sizes]
    first, second, third = (
        (torch.rand(size, generator=generator) * 2 - 1) * bound for size, bound in zip(sizes, bounds, strict=True)
    )
    return ColorField(initial_table(grid, generator), (first, second, third), low.float(), high.float(), grid)


def field_colors(field: ColorField, points: Tensor) -> Tensor:
    """Colours [N, 3] of points [N, 3], differentiable in the field's table and weights."""
    unit = (points - field.low) / (field.high - field.low)
    values = hash_encode(unit, field.table, field.grid)
    first, second, third = field.weights
    hidden = torch.relu(torch.relu(values @ first.T) @ second.T)
    return torch.sigmoid(hidden @ third.T)[:, :3]


def render_field(mesh: Mesh, field: ColorField, cameras: Cameras, background: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] of the mesh in the field's colours, unlit and not antialiased, over `background` [3]."""
    images = []
    for index in range(len(cameras)):
        image = rasterize_mesh(mesh.vertices, mesh.faces, cameras[index])
        positions = interpolate(image, mesh.faces, mesh.vertices)
        picture = background.expand_as(positions).clone()
        picture[image.mask] = field(positions[image.mask])
        images.append(picture)
    return torch.cat(images)


def save_color_field(field: ColorField, path: str | Path) -> None:
    """Write the field as one safetensors file, in one piece."""
    tensors = {f"weights.{index}": weight for index, weight in enumerate(field.weights)}
    tensors |= {"table": field.table, "low": field.low, "high": field.high}
    grid = json.dumps(dataclasses.asdict(field.grid), sort_keys=True)
    write_safetensors(path, tensors, {"format": FORMAT, "schema_version": str(SCHEMA_VERSION), "grid": grid})


def load_color_field(path: str | Path) -> ColorField:
    """The field of a file that `save_color_field` wrote.

    Raises `MissingModelFile`, `IncompatibleCheckpoint` for other formats and versions, `InvalidInput` for damage.
    """
    where = f"load_color_field: '{path}'"
    tensors, metadata = read_safetensors(path, "load_color_field")
    found = (metadata.get("format", "no format"), metadata.get("schema_version", "none"))
    if found != (FORMAT, str(SCHEMA_VERSION)):
        raise IncompatibleCheckpoint(f"{where} is '{found[0]}' {found[1]}, expected '{FORMAT}' {SCHEMA_VERSION}.")
    names = ("table", "low", "high", "weights.0", "weights.1", "weights.2")
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InvalidInput(f"{where} lacks {missing}; the file is damaged or was edited.")
    try:
        grid = HashGridSettings(**parse_json(metadata["grid"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: its grid settings cannot be read ({error}).") from error
    for name in names:
        if tensors[name].dtype != torch.float32:
            raise InvalidInput(f"{where}: `{name}` has type {tensors[name].dtype}, expected torch.float32.")
        check_finite(where, name, tensors[name])
        if tensors[name].numel() and float(tensors[name].abs().max()) > LARGEST:
            raise InvalidInput(f"{where}: `{name}` holds numbers beyond {LARGEST:g}; the file is damaged.")
    table, low, high, first, second, third = (tensors[name] for name in names)
    return ColorField(table, (first, second, third), low, high, grid)

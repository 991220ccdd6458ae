"""Several textures and colours in one picture, so that a scene of many materials becomes one `Mesh`.

Every texture gets a rectangle with a border that repeats it, so that bilinear sampling at its edge stays right. A
coloured part beside textured ones gets four texels per face, whose bilinear mixture is the linear blend of the corner
colours (where the fourth texel, c1 + c2 - c0, lies in 0..1); faces with equal corner colours share their texels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import InvalidInput
from .parts import Notes, Part

BORDER = 2
MAX_REPEATS = 8
MAX_ATLAS_SIZE = 8192


@dataclasses.dataclass
class _Tile:
    """A picture to place: pixels [h, w, 3] with its border, and its place once packed."""

    pixels: np.ndarray
    row: int = 0
    column: int = 0


def merge_textures(parts: list[Part], notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """One texture [H, W, 3] for all parts and the corner_uvs [F, 3, 2] (v up) of their faces, in the parts' order.

    A single texture shared by all parts is returned as it is, its coordinates too.
    """
    textures = {id(part.texture): part.texture for part in parts if part.texture is not None}
    if len(textures) == 1 and all(part.texture is not None for part in parts):
        corner_uvs = np.concatenate([part.corner_uvs for part in parts if part.corner_uvs is not None])
        return next(iter(textures.values())), corner_uvs
    shrink = 1
    while True:
        tiles, places = _make_tiles(parts, shrink)
        width, height = _pack(tiles)
        if max(width, height) <= MAX_ATLAS_SIZE:
            break
        shrink *= 2
        notes.warn(
            f"the textures together are larger than {MAX_ATLAS_SIZE} texels per side and were shrunk to 1/{shrink}"
        )
    atlas = np.zeros((height, width, 3), dtype=np.float32)
    for tile in tiles:
        rows, columns = tile.pixels.shape[:2]
        atlas[tile.row : tile.row + rows, tile.column : tile.column + columns] = tile.pixels
    corner_uvs = np.concatenate([_place_uvs(texels, tile, width, height) for texels, tile in places])
    return atlas, corner_uvs


def _make_tiles(parts: list[Part], shrink: int) -> tuple[list[_Tile], list[tuple[np.ndarray, _Tile]]]:
    """Tiles of all parts, and per part its corners [F, 3, 2] (column, row in texels of its tile) with that tile."""
    repeats = _needed_repeats(parts)
    tiles: dict[int, _Tile] = {}
    extra: list[_Tile] = []
    places: list[tuple[np.ndarray, _Tile]] = []
    for part in parts:
        if part.texture is None or part.corner_uvs is None:
            tile, texels = _color_tile(part)
            extra.append(tile)
            places.append((texels, tile))
            continue
        across, down = repeats[id(part.texture)]
        pixels = part.texture[::shrink, ::shrink]
        if id(part.texture) not in tiles:
            border = ((BORDER, BORDER), (BORDER, BORDER), (0, 0))
            tiles[id(part.texture)] = _Tile(np.pad(np.tile(pixels, (down, across, 1)), border, mode="wrap"))
        height, width = pixels.shape[:2]
        local = _within_first_tile(part.corner_uvs)
        texels = np.stack([local[..., 0] * width, (down - local[..., 1]) * height], axis=-1) + BORDER
        places.append((texels, tiles[id(part.texture)]))
    return [*tiles.values(), *extra], places


def _within_first_tile(corner_uvs: np.ndarray) -> np.ndarray:
    """Coordinates moved by whole repeats, face by face, so that each face begins in 0..1."""
    return corner_uvs - np.floor(corner_uvs.min(axis=1, keepdims=True) + 1e-6)


def _needed_repeats(parts: list[Part]) -> dict[int, tuple[int, int]]:
    """How often each texture must stand side by side and one above the other, by its id."""
    needed: dict[int, tuple[int, int]] = {}
    for part in parts:
        if part.texture is None or part.corner_uvs is None:
            continue
        furthest = np.ceil(_within_first_tile(part.corner_uvs).max(axis=(0, 1)) - 1e-6).astype(int)
        if furthest.max() > MAX_REPEATS:
            raise InvalidInput(
                f"load_mesh: a single face repeats its texture {furthest.max()} times, expected at most {MAX_REPEATS} "
                "in a scene of several materials; bake the textures into one before exporting."
            )
        before = needed.get(id(part.texture), (1, 1))
        needed[id(part.texture)] = (max(before[0], int(furthest[0])), max(before[1], int(furthest[1])))
    return needed


def _color_tile(part: Part) -> tuple[_Tile, np.ndarray]:
    """A tile of 2 x 2 texel blocks for a part with corner colours, and the corners' places in it."""
    if part.corner_colors is None:
        raise InvalidInput("load_mesh: a geometry has neither texture nor colours; this is a fault of the loader.")
    blocks, index = np.unique(part.corner_colors.reshape(len(part.faces), 9), axis=0, return_inverse=True)
    corners = blocks.reshape(-1, 3, 3)
    side = int(np.ceil(np.sqrt(len(blocks))))
    pixels = np.zeros((side, 2, side, 2, 3), dtype=np.float32)
    number = np.arange(len(blocks))
    row, column = number // side, number % side
    pixels[row, 0, column, 0], pixels[row, 0, column, 1] = corners[:, 0], corners[:, 1]
    pixels[row, 1, column, 0] = corners[:, 2]
    # The fourth texel makes the bilinear blend linear over the triangle.
    pixels[row, 1, column, 1] = np.clip(corners[:, 1] + corners[:, 2] - corners[:, 0], 0, 1)
    offsets = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    first = 2 * np.stack([column, row], axis=-1)[index.reshape(-1)]
    return _Tile(pixels.reshape(2 * side, 2 * side, 3)), first[:, None] + offsets


def _pack(tiles: list[_Tile]) -> tuple[int, int]:
    """Place the tiles on shelves, tallest first; returns width and height of the whole."""
    area = sum(tile.pixels.shape[0] * tile.pixels.shape[1] for tile in tiles)
    width = max(int(np.ceil(np.sqrt(area) * 1.1)), max(tile.pixels.shape[1] for tile in tiles))
    row = column = shelf = 0
    for tile in sorted(tiles, key=lambda tile: -tile.pixels.shape[0]):
        rows, columns = tile.pixels.shape[:2]
        if column + columns > width:
            row, column, shelf = row + shelf, 0, 0
        tile.row, tile.column = row, column
        column, shelf = column + columns, max(shelf, rows)
    return width, row + shelf


def _place_uvs(texels: np.ndarray, tile: _Tile, width: int, height: int) -> np.ndarray:
    return np.stack([(texels[..., 0] + tile.column) / width, 1 - (texels[..., 1] + tile.row) / height], axis=-1)

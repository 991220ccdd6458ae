#!/usr/bin/env python3
"""Draw the contact sheet of the embedded identities: docs/images/identities.png.

usage: identity_contact_sheet.py [--output FILE] [--tile PIXELS] [--texture TEXELS]
Rows: the exported portraits from four sides; every hair style; every garment and pattern; ages and beards; eyes from
open to closed; mouths from closed to wide; the maps of one view.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.cameras import Cameras, orbit_cameras  # noqa: E402
from animportrait3d_core.embedded.identities import (  # noqa: E402
    PORTRAIT_NAMES,
    IdentityRenderSettings,
    PreparedIdentity,
    exported_identity,
    prepare_identity,
    render_identity,
    sample_identity,
    true_parameters,
)
from animportrait3d_core.parts import FIGURE_PARTS  # noqa: E402

MAX_BYTES = 700_000
HEAD, HEAD_FOV = (0.0, 0.34, 0.0), 23.0
PART_COLORS = np.array(
    [[255, 255, 255], [236, 188, 160], [120, 74, 40], [70, 110, 180], [250, 250, 120], [250, 240, 230], [220, 80, 100],
     [110, 20, 30], [240, 150, 120], [30, 30, 30], [150, 220, 60]]
)  # fmt: skip


def head_camera(yaw: float, size: int, elevation: float = 0.0) -> Cameras:
    """The head with its shoulders."""
    return orbit_cameras([yaw], [elevation], size, target=HEAD, fov_degrees=HEAD_FOV)


def crop_camera(prepared: PreparedIdentity, landmarks: slice, yaw: float, fov: float, size: int) -> Cameras:
    """A crop around some landmarks."""
    settings = IdentityRenderSettings(condition=False)
    points = render_identity(prepared, None, head_camera(0, 16), settings).landmarks_3d[0, landmarks].mean(dim=0)
    return orbit_cameras([yaw], [0], size, target=points.tolist(), fov_degrees=fov)


def image(prepared: PreparedIdentity, camera: Cameras, **pose: list[float]) -> np.ndarray:
    """One view [H, W, 3] uint8 of a pose given as parameter name -> values."""
    parameters = true_parameters(prepared.identity)
    parameters = parameters.replace(**{name: torch.tensor([values]) for name, values in pose.items()})
    rgb = render_identity(prepared, parameters, camera, IdentityRenderSettings(condition=False)).rgb[0].numpy()
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def portraits(size: int, texture: int) -> list[np.ndarray]:
    """The exported identities from four sides each."""
    tiles = []
    for name in PORTRAIT_NAMES:
        prepared = prepare_identity(exported_identity(name), texture)
        tiles += [image(prepared, head_camera(yaw, size)) for yaw in (0, 40, 90, 180)]
    return tiles


def styles(size: int, texture: int) -> list[np.ndarray]:
    """Hair styles, garments, patterns, ages, beards and skins, one person each."""
    people: list[tuple[int, dict[str, str | bool], float]] = [
        (41, {"hair_style": "bald", "sex": "man", "beard": "full beard"}, 15),
        (42, {"hair_style": "buzz cut", "sex": "man", "skin_tone": "brown", "garment": "t-shirt"}, -30),
        (
            43,
            {"hair_style": "short hair", "sex": "man", "hair_color": "blond", "garment": "shirt", "beard": "none"},
            25,
        ),
        (44, {"hair_style": "side parting", "sex": "man", "hair_color": "dark brown", "beard": "moustache"}, -15),
        (45, {"hair_style": "bob", "sex": "woman", "hair_color": "red", "freckles": True, "pattern": "striped"}, 20),
        (46, {"hair_style": "long hair", "sex": "woman", "hair_color": "blond", "garment": "v-neck"}, -25),
        (47, {"hair_style": "bun", "sex": "woman", "hair_color": "brown", "garment": "turtleneck"}, 40),
        (48, {"hair_style": "ponytail", "sex": "woman", "hair_color": "black", "pattern": "dotted"}, -65),
        (49, {"hair_style": "afro", "sex": "woman", "skin_tone": "dark", "hair_color": "black", "lips": "red"}, 10),
        (50, {"hair_style": "curly hair", "sex": "man", "hair_color": "brown", "beard": "goatee"}, -20),
        (51, {"age": "old", "sex": "man", "hair_style": "short hair", "skin_tone": "fair", "hair_color": "white"}, 0),
        (52, {"age": "old", "sex": "woman", "hair_style": "bun", "hair_color": "grey", "pattern": "checked"}, 15),
        (53, {"age": "young", "sex": "woman", "hair_style": "long hair", "hair_color": "black", "blush": True}, 0),
        (54, {"age": "middle-aged", "sex": "man", "beard": "stubble", "hair_style": "side parting"}, 30),
        (55, {"age": "old", "sex": "man", "skin_tone": "dark", "hair_style": "afro", "hair_color": "grey"}, -10),
        (56, {"age": "young", "sex": "woman", "skin_tone": "olive", "hair_style": "curly hair", "lips": "plum"}, 25),
    ]
    tiles = []
    for seed, known, yaw in people:
        prepared = prepare_identity(sample_identity(seed, **known), texture)
        tiles.append(image(prepared, head_camera(yaw, size)))
    return tiles


def crops(size: int, texture: int) -> list[np.ndarray]:
    """Eyes from open to closed with gaze; mouths from closed to wide and a smile."""
    woman = prepare_identity(sample_identity(53, sex="woman", skin_tone="fair", iris_color="green"), 2 * texture)
    man = prepare_identity(sample_identity(54, sex="man", age="old", skin_tone="tan", beard="none"), 2 * texture)
    tiles = []
    for prepared in (woman, man):
        eye, mouth = slice(42, 48), slice(48, 68)
        look = [0.1, 0.45, 0.0]
        front = crop_camera(prepared, eye, 0, 5.5, size)
        tiles.append(image(prepared, front))
        tiles.append(
            image(prepared, crop_camera(prepared, eye, 25, 5.5, size), left_eye_pose=look, eyelids=[0.25, 0.25])
        )
        tiles.append(image(prepared, front, eyelids=[0.55, 0.55]))
        tiles.append(image(prepared, front, eyelids=[1.0, 1.0]))
        smile = [0.9] + [0.0] * 9
        tiles.append(image(prepared, crop_camera(prepared, mouth, 0, 7.0, size)))
        tiles.append(image(prepared, crop_camera(prepared, mouth, 20, 7.0, size), expression=smile))
        wide = [math.radians(17), 0.0, 0.0]
        tiles.append(image(prepared, crop_camera(prepared, mouth, 0, 7.0, size), jaw_pose=wide))
        tiles.append(image(prepared, crop_camera(prepared, mouth, 35, 7.0, size), jaw_pose=wide))
    return tiles


def maps(size: int, texture: int) -> list[np.ndarray]:
    """Picture, normals, condition map (normals, labels), parts of a full head and of a mouth crop."""
    prepared = prepare_identity(exported_identity(PORTRAIT_NAMES[0]), texture)
    wide = true_parameters(prepared.identity).replace(jaw_pose=torch.tensor([[math.radians(15), 0.0, 0.0]]))
    tiles = []
    for camera in (head_camera(20, size), crop_camera(prepared, slice(48, 68), 15, 7.5, size)):
        view = render_identity(prepared, wide, camera)
        assert view.condition is not None
        label = view.condition[0, ..., 3:].repeat(1, 1, 3)
        normals = 0.5 * view.normals[0] + 0.5
        shown = [normals, view.condition[0, ..., :3], label]
        tiles += [np.round(tile.clamp(0, 1).numpy() * 255).astype(np.uint8) for tile in shown]
        tiles.append(PART_COLORS[: len(FIGURE_PARTS)][view.parts[0].long().numpy()].astype(np.uint8))
    return tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).resolve().parents[1] / "docs/images/identities.png"
    )
    parser.add_argument("--tile", type=int, default=512, help="pixels of a tile when it is drawn")
    parser.add_argument(
        "--shown", type=int, default=0, help="pixels of a tile in the sheet; 0: as many as fit the file"
    )
    parser.add_argument("--texture", type=int, default=1024)
    options = parser.parse_args()
    tiles = []
    for make in (portraits, styles, crops, maps):
        tiles += make(options.tile, options.texture)
        print(f"{make.__name__}: {len(tiles)} tiles so far", flush=True)
    columns = 8
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for shown in [options.shown] if options.shown else range(224, 95, -4):
        sheet.resize((columns * shown, len(rows) * shown), Image.Resampling.LANCZOS).save(options.output, optimize=True)
        if options.output.stat().st_size <= MAX_BYTES:
            break
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

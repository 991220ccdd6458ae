"""Draw the contact sheet of the mannequin: views, jaw, lids, gaze, expressions, shape directions, identities, details.

usage: python scripts/mannequin_contact_sheet.py [OUTPUT.png] [--tile PIXELS]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.body.model import load_body_model  # noqa: E402
from animportrait3d_core.body.parameters import BodyParameters  # noqa: E402
from animportrait3d_core.cameras import Cameras, intrinsics, look_at  # noqa: E402
from animportrait3d_core.embedded.mannequin import (  # noqa: E402
    build_mannequin,
    identity_skin_displacement,
    mannequin_body_files,
)
from animportrait3d_core.meshes import vertex_normals  # noqa: E402
from animportrait3d_core.render import interpolate, rasterize_mesh  # noqa: E402

COLORS = {
    "skin": (0.87, 0.70, 0.60),
    "lid_rim": (0.80, 0.55, 0.50),
    "mouth_bag": (0.58, 0.26, 0.26),
    "teeth": (0.93, 0.90, 0.83),
    "gum": (0.78, 0.45, 0.44),
    "tongue": (0.76, 0.40, 0.42),
    "eyeball": (0.95, 0.94, 0.93),
    "ear": (0.87, 0.68, 0.58),
}
GLOSS = {"eyeball": 0.6, "teeth": 0.35, "tongue": 0.2, "gum": 0.2}
# name -> (centre in template metres, height of the picture in metres)
FRAMES = {
    "bust": ((0.0, 0.20, 0.0), 0.58),
    "face": ((0.0, 0.30, 0.02), 0.265),
    "eye": ((0.032, 0.312, 0.072), 0.062),
    "mouth": ((0.0, 0.232, 0.088), 0.085),
    "nose": ((0.0, 0.268, 0.095), 0.075),
    "ear": ((0.076, 0.291, -0.01), 0.085),
}
DISTANCE = 0.95
SUPERSAMPLING = 2


class Painter:
    """Shades the posed mannequin; every tile is one call."""

    def __init__(self, tile: int) -> None:
        self.mannequin = build_mannequin()
        self.body = load_body_model(*mannequin_body_files())
        self.faces = torch.from_numpy(self.mannequin.faces)
        self.tile = tile
        self.colors, self.gloss = self._materials()

    def _materials(self) -> tuple[torch.Tensor, torch.Tensor]:
        m = self.mannequin
        colors = np.array([COLORS[name] for name in m.part_names])[m.vertex_parts]
        lips = np.unique(m.faces[m.face_regions["lips"]])
        colors[lips[m.vertex_parts[lips] == 0]] = (0.80, 0.49, 0.46)
        colors *= 0.35 + 0.65 * m.ambient_openness[:, None]
        iris = np.unique(m.faces[m.face_regions["iris"]])
        colors[iris] = (0.33, 0.48, 0.58)
        joints = m.joints[[23, 24], :2]
        from_axis = np.linalg.norm(m.vertices[iris, None, :2] - joints[None], axis=-1).min(axis=1)
        colors[iris[from_axis < 0.0023]] = 0.03
        gloss = np.array([GLOSS.get(name, 0.08) for name in m.part_names])[m.vertex_parts]
        return torch.from_numpy(colors).float(), torch.from_numpy(gloss).float()

    def pose(self, extra: np.ndarray | None = None, **parts) -> torch.Tensor:
        """Vertices [V, 3] in template metres for body parameters; `extra` [V, 3] is an identity's own shape."""
        parameters = BodyParameters.neutral(1, 10, 10).replace(**{name: _row(value) for name, value in parts.items()})
        vertices = self.body(parameters).vertices[0]
        return vertices if extra is None else vertices + torch.from_numpy(extra).float()

    def draw(
        self, vertices: torch.Tensor, frame: str = "face", yaw: float = 0.0, elevation: float = 0.0
    ) -> Image.Image:
        camera = _camera(frame, yaw, elevation, self.tile * SUPERSAMPLING)
        image = rasterize_mesh(vertices, self.faces, camera)
        normals = vertex_normals(vertices, self.faces)
        values = torch.cat([normals, self.colors, self.gloss[:, None], vertices], dim=1)
        pixels = interpolate(image, self.faces, values)[0]
        shaded = _shade(pixels, camera)
        shaded = torch.where(image.mask[0][..., None], shaded, torch.full_like(shaded, 0.93))
        small = torch.nn.functional.avg_pool2d(shaded.permute(2, 0, 1)[None], SUPERSAMPLING)[0].permute(1, 2, 0)
        return Image.fromarray((small.clamp(0, 1).numpy() ** (1 / 1.15) * 255).astype(np.uint8))


def _row(value) -> torch.Tensor:
    return torch.as_tensor(np.asarray(value), dtype=torch.float32).reshape(1, -1)


def _camera(frame: str, yaw: float, elevation: float, size: int) -> Cameras:
    center, height = FRAMES[frame]
    a, b = np.deg2rad(yaw), np.deg2rad(elevation)
    direction = np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
    eye = torch.tensor(np.array(center) + DISTANCE * direction)[None]
    fov = float(np.rad2deg(2 * np.arctan(0.5 * height / DISTANCE)))
    matrix = look_at(eye, torch.tensor(center, dtype=torch.float64))
    return Cameras(matrix.float(), intrinsics(fov, size, size)[None].float(), size, size)


def _shade(pixels: torch.Tensor, camera: Cameras) -> torch.Tensor:
    """Two lights fixed to the camera and a highlight; pixels [H, W, 10] = normal, colour, gloss, position."""
    normal = torch.nn.functional.normalize(pixels[..., :3], dim=-1)
    right, down, forward = camera.world_to_camera[0, :3, :3]
    key = torch.nn.functional.normalize(-0.55 * right - 0.55 * down - 0.75 * forward, dim=0)
    fill = torch.nn.functional.normalize(0.8 * right - 0.1 * down - 0.5 * forward, dim=0)
    toward = torch.nn.functional.normalize(camera.camera_centers[0] - pixels[..., 7:10], dim=-1)
    half = torch.nn.functional.normalize(key + toward, dim=-1)
    diffuse = 0.30 + 0.62 * (normal @ key * 0.9 + 0.1).clamp_min(0) + 0.22 * (normal @ fill).clamp_min(0)
    diffuse = diffuse + 0.06 * normal[..., 1]
    highlight = pixels[..., 6] * (normal * half).sum(-1).clamp_min(0) ** 30
    return pixels[..., 3:6] * diffuse[..., None] + highlight[..., None]


def _unit(index: int, value: float = 1.0) -> np.ndarray:
    vector = np.zeros(10)
    vector[index] = value
    return vector


def _tiles(painter: Painter) -> list[tuple[str, Image.Image]]:
    pose, draw = painter.pose, painter.draw
    neutral_vertices = pose()
    tiles = [("neutral", draw(neutral_vertices, "bust")), ("45 degrees", draw(neutral_vertices, "bust", 45))]
    tiles += [(f"{yaw} degrees", draw(neutral_vertices, "face", yaw)) for yaw in (0, 45, 90, 150)]
    jaw = {"jaw_pose": (0.4, 0, 0)}
    tiles.append(("jaw 0.2", draw(pose(jaw_pose=(0.2, 0, 0)))))
    tiles.append(("jaw 0.4", draw(pose(**jaw))))
    views = {"front": (0, 0), "side": (40, 0), "above": (0, 30), "below": (0, -30)}
    tiles += [(f"jaw 0.4, {name}", draw(pose(**jaw), "mouth", *view)) for name, view in views.items()]
    tiles += [("eye", draw(neutral_vertices, "eye")), ("eye 40", draw(neutral_vertices, "eye", 40))]
    tiles += [(f"blink {b}", draw(pose(eyelids=(b, b)), "eye")) for b in (0.5, 1.0)]
    for gaze in ((-0.25, 0.0, 0.0), (0.0, 0.5, 0.0)):
        tiles.append(("gaze", draw(pose(left_eye_pose=gaze, right_eye_pose=gaze), "eye")))
    tiles += [("nose", draw(neutral_vertices, "nose")), ("nose from below", draw(neutral_vertices, "nose", 0, -35))]
    tiles += [("mouth", draw(neutral_vertices, "mouth")), ("mouth 45", draw(neutral_vertices, "mouth", 45))]
    tiles += [("ear", draw(neutral_vertices, "ear", 75)), ("ear from behind", draw(neutral_vertices, "ear", 130))]
    for k, name in enumerate(painter.mannequin.expression_names):
        tiles.append((name.replace("_", " "), draw(pose(expression=_unit(k)))))
    tiles.append(("smile, jaw", draw(pose(expression=_unit(0), jaw_pose=(0.12, 0, 0)), "face", 30)))
    tiles.append(("all lids closed", draw(pose(eyelids=(1, 1)))))
    for k, name in enumerate(painter.mannequin.shape_names):
        tiles += [(f"{name} {value:+d}", draw(pose(betas=_unit(k, value)))) for value in (-2, 2)]
    for seed in range(4):
        betas = np.random.default_rng(seed).normal(size=10).clip(-2, 2)
        vertices = pose(identity_skin_displacement(seed), betas=betas)
        tiles.append((f"identity {seed}", draw(vertices, "face", 25 * (seed % 2))))
    return tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", nargs="?", default="docs/images/mannequin.png", type=Path)
    parser.add_argument("--tile", type=int, default=192, help="pixels per picture (default 192)")
    parser.add_argument("--columns", type=int, default=10)
    arguments = parser.parse_args()
    tiles = _tiles(Painter(arguments.tile))
    rows = -(-len(tiles) // arguments.columns)
    sheet = Image.new("RGB", (arguments.columns * arguments.tile, rows * arguments.tile), (237, 237, 237))
    for k, (name, image) in enumerate(tiles):
        ImageDraw.Draw(image).text((4, 2), name, fill=(60, 60, 60))
        sheet.paste(image, (k % arguments.columns * arguments.tile, k // arguments.columns * arguments.tile))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, kmeans=2, dither=Image.Dither.FLOYDSTEINBERG).save(arguments.output, optimize=True)
    print(f"{arguments.output}: {len(tiles)} pictures, {arguments.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

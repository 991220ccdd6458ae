"""The pictures that nodes show and contact sheets are made of: shaded meshes, points, overlays, tiles.

Display only: nothing of the method reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cameras import Cameras, orbit_cameras
from .errors import InvalidInput, check_shape
from .files import atomic_write
from .meshes import Mesh, vertex_normals
from .progress import behind, may_stop
from .render import interpolate, rasterize_gaussians, rasterize_mesh

if TYPE_CHECKING:
    from .views import Views

PART_COLORS = torch.tensor(
    [
        [0.84, 0.37, 0.30],  # hair
        [0.26, 0.47, 0.71],  # clothes
        [0.93, 0.78, 0.66],  # skin
        [0.80, 0.36, 0.55],  # lips
        [0.55, 0.43, 0.75],  # eyelids
        [0.35, 0.70, 0.67],  # eyes
        [0.97, 0.93, 0.60],  # teeth
        [0.45, 0.16, 0.16],  # mouth interior
    ]
)
"""Colours [P, 3] by part id, in the order of `AVATAR_PARTS`."""

CLAY = (0.72, 0.71, 0.70)
LABEL_HEIGHT = 22


def preview_cameras(size: int) -> Cameras:
    """Front, three-quarter, side and back."""
    return orbit_cameras([0, 45, 90, 180], [8, 8, 8, 8], size)


def shaded_mesh(
    vertices: Tensor, faces: Tensor, cameras: Cameras, vertex_colors: Tensor | None = None, background: float = 1.0
) -> Tensor:
    """Pictures [B, H, W, 3] of a mesh under a soft light at each camera; `vertex_colors` [V, 3] or clay."""
    with torch.no_grad():
        if vertex_colors is None:
            vertex_colors = vertices.new_tensor(CLAY).expand(len(vertices), 3)
        image = rasterize_mesh(vertices, faces, cameras)
        normals = vertex_normals(vertices, faces)
        values = interpolate(image, faces, torch.cat([vertex_colors, normals, vertices], dim=1))
        colors, normals, positions = values.split(3, dim=-1)
        to_camera = cameras.camera_centers[:, None, None] - positions
        facing = torch.nn.functional.cosine_similarity(normals, to_camera, dim=-1).abs()
        shaded = colors * (0.35 + 0.65 * facing[..., None])
        return torch.where((image.face_id >= 0)[..., None], shaded, torch.full_like(shaded, background)).clamp(0, 1)


def colored_faces(mesh: Mesh, face_colors: Tensor, cameras: Cameras) -> Tensor:
    """Pictures [B, H, W, 3] of a mesh with one colour [F, 3] per face, unblended at their borders."""
    # Each face gets its own three vertices, but keeps the smooth normals by shading with the geometry first.
    clay = shaded_mesh(mesh.vertices, mesh.faces, cameras, torch.ones_like(mesh.vertices))
    face_id = rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id
    flat = face_colors[face_id.clamp_min(0)] * clay
    return torch.where((face_id >= 0)[..., None], flat, torch.ones_like(flat))


def points_image(positions: Tensor, colors: Tensor, cameras: Cameras, spacing: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] of points [N, 3] as round splats over white.

    spacing: [N] world distance to the neighbours, which is their diameter: what lies behind a surface is hidden by it.
    """
    with torch.no_grad():
        count = len(positions)
        quats = positions.new_tensor([1.0, 0, 0, 0]).expand(count, 4)
        scales = (0.5 * spacing)[:, None].expand(count, 3)
        opacities = positions.new_full((count,), 0.95)
        image = rasterize_gaussians(
            positions, quats, scales, opacities, colors, cameras, background=torch.ones(3, dtype=positions.dtype)
        )
        return image.color.clamp(0, 1)


def body_overlay(views: Views, vertices: Tensor, faces: Tensor, strength: float = 0.55) -> Tensor:
    """The views [B, H, W, 3] with a body [V, 3], [F, 3] blended over them in cool clay, so that every misfit of a
    contour shows."""
    with torch.no_grad():
        body = shaded_mesh(vertices, faces, views.cameras, torch.tensor([0.25, 0.60, 0.85]).expand(len(vertices), 3))
        covered = (rasterize_mesh(vertices, faces, views.cameras).face_id >= 0)[..., None]
        return torch.where(covered, (1 - strength) * views.images + strength * body, views.images)


def draw_points(images: Tensor, pixels: Tensor, color: Sequence[float], radius: int = 1) -> Tensor:
    """Copies of images [B, H, W, 3] with small squares at pixels [B, N, 2] (x, y); points outside are left out."""
    check_shape("draw_points", "pixels", pixels, [len(images), "N", 2])
    drawn, (height, width) = images.clone(), images.shape[1:3]
    for image, points in zip(drawn, pixels):
        for x, y in points.floor().long().tolist():
            if 0 <= x < width and 0 <= y < height:
                image[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = image.new_tensor(
                    color
                )
    return drawn


def tile(images: Tensor, columns: int, padding: int = 4, background: float = 1.0) -> Tensor:
    """One picture [H', W', 3] of images [B, H, W, 3] in rows of `columns`."""
    check_shape("tile", "images", images, ["B", "H", "W", 3])
    if columns < 1 or not len(images):
        raise InvalidInput(f"tile: {len(images)} images in {columns} columns, expected at least 1 of each.")
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = images.new_full((rows * (height + padding) - padding, columns * (width + padding) - padding, 3), background)
    for index, image in enumerate(images):
        top, left = index // columns * (height + padding), index % columns * (width + padding)
        sheet[top : top + height, left : left + width] = image
    return sheet


def captioned(image: Tensor, text: str) -> Tensor:
    """The picture [H, W, 3] with one line of text above it, [H + 22, W, 3]."""
    import numpy as np
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (image.shape[1], LABEL_HEIGHT), "white")
    ImageDraw.Draw(strip).text((6, 5), text, fill=(40, 40, 40))
    band = torch.from_numpy(np.asarray(strip).copy()).to(image.dtype) / 255
    return torch.cat([band, image])


def stack_rows(rows: Sequence[Tensor], background: float = 1.0) -> Tensor:
    """Pictures [H_i, W_i, 3] under each other, aligned to the left."""
    width = max(row.shape[1] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[1]), value=background) for row in rows]
    return torch.cat(padded)


def contact_sheet(
    batches: Sequence[Tensor], captions: Sequence[str], columns: int, size: int, rows_per_batch: int = 1
) -> Tensor:
    """One picture [H, W, 3]: captioned rows of `columns` pictures from each batch [B_i, H_i, W_i, 3 or more].

    The pictures are taken evenly from the batch, its first and last included, and resampled to fit into `size` x `size`
    pixels, on white. A batch of one picture that is wider than high fills the whole row.
    """
    rows = []
    for index, batch in enumerate(batches):
        may_stop()
        check_shape("contact_sheet", f"batch {index + 1}", batch, ["B", "H", "W", "C"])
        height, width = batch.shape[1:3]
        if len(batch) == 1 and width > height:
            row = _resampled(batch, round(columns * size * height / width), columns * size)[0]
        else:
            chosen = torch.linspace(0, len(batch) - 1, min(columns * rows_per_batch, len(batch))).round().long()
            row = tile(_fitted(batch[chosen], size), columns=min(columns, len(chosen)))
        rows.append(captioned(row, captions[index]) if index < len(captions) and captions[index] else row)
    return stack_rows(rows)


def _resampled(images: Tensor, height: int, width: int) -> Tensor:
    """Pictures [B, H, W, 3 or more] as [B, height, width, 3] in 0..1."""
    channels = images[..., :3].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        channels, size=(max(1, height), max(1, width)), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.permute(0, 2, 3, 1).clamp(0, 1)


def _fitted(images: Tensor, size: int) -> Tensor:
    """Pictures [B, size, size, 3] that keep their proportions, on white."""
    height, width = images.shape[1:3]
    scale = size / max(height, width)
    inner = _resampled(images, round(height * scale), round(width * scale))
    fitted = torch.ones(len(images), size, size, 3)
    top, left = (size - inner.shape[1]) // 2, (size - inner.shape[2]) // 2
    fitted[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
    return fitted


def write_png(image: Tensor, path: str | Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a picture [H, W, 3] in 0..1 as an 8-bit PNG with texts by name in it, in one piece."""
    from PIL import Image, PngImagePlugin

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    chunks = PngImagePlugin.PngInfo()
    for name, text in (texts or {}).items():
        chunks.add_text(name, text)

    def write() -> None:
        with atomic_write(path) as temporary:
            Image.fromarray(pixels).save(temporary, pnginfo=chunks)

    behind(write)  # seconds for a large one

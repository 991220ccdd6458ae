"""Geometries of a parsed scene as plain arrays: one `Part` per geometry, coloured by a texture or at its corners."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .colors import image_to_array, tint
from .report import LoadSettings

GREY = np.array([0.7, 0.7, 0.7], dtype=np.float32)


@dataclasses.dataclass
class Part:
    """One geometry in the scene's frame. Either `texture` [H, W, 3] with `corner_uvs` [F, 3, 2] (v up), or
    `corner_colors` [F, 3, 3] in 0..1, display colours. vertices: [V, 3] float64. faces: [F, 3] int64."""

    vertices: np.ndarray
    faces: np.ndarray
    color_source: str
    corner_uvs: np.ndarray | None = None
    texture: np.ndarray | None = None
    corner_colors: np.ndarray | None = None


@dataclasses.dataclass
class Notes:
    """What the steps of loading tell the report."""

    warnings: list[str] = dataclasses.field(default_factory=list)
    transparent_faces: int = 0

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)


class PartReader:
    """Turns trimesh geometries into parts; a picture shared by several materials is decoded once."""

    def __init__(self, settings: LoadSettings, notes: Notes) -> None:
        self.settings, self.notes = settings, notes
        self._images: dict[int, tuple[Any, np.ndarray, np.ndarray | None]] = {}
        self._tinted: dict[tuple[int, bytes], np.ndarray] = {}

    def read(self, geometry: Any, transform: np.ndarray) -> Part | None:
        """The part of one trimesh geometry placed by `transform` [4, 4]; None if nothing of it is visible."""
        vertices = np.asarray(geometry.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
        faces = np.asarray(geometry.faces, dtype=np.int64)
        if np.linalg.det(transform[:3, :3]) < 0:
            faces = faces[:, ::-1]  # a mirroring transform turns the winding
        part = Part(vertices, faces, color_source="none")
        kind = geometry.visual.kind
        visible = np.ones(len(faces), dtype=bool)
        if kind == "texture":
            visible = self._read_material(geometry, part)
        elif kind in ("vertex", "face"):
            part.color_source = "vertex colors"
            if kind == "vertex":
                corners = _display_colors(geometry.visual.vertex_colors)[faces]
            else:
                corners = np.repeat(_display_colors(geometry.visual.face_colors)[:, None], 3, axis=1)
            part.corner_colors = corners.astype(np.float32)
        if part.texture is None and part.corner_colors is None:
            part.corner_colors = np.broadcast_to(GREY, (len(faces), 3, 3)).copy()
        return self._without_invisible_faces(part, visible)

    def _read_material(self, geometry: Any, part: Part) -> np.ndarray:
        """Fill in the colours of a geometry with a material; returns which faces are visible [F]."""
        image, factor, alpha_factor, mode, cutoff = _material_values(geometry.visual.material)
        colors = geometry.visual.vertex_attributes.get("color")
        uv = geometry.visual.uv
        alpha: np.ndarray | None = None
        if image is not None and uv is not None and len(uv) == len(part.vertices):
            part.corner_uvs = np.asarray(uv, dtype=np.float64)[:, :2][part.faces]
            part.texture, alpha = self._texture(image, factor)
            part.color_source = "texture"
            if colors is not None and np.asarray(colors)[:, :3].min(initial=1) < 0.99:
                self.notes.warn("a textured material also has vertex colours; the texture is kept, they are ignored")
        else:
            if image is not None:
                self.notes.warn("a material has a texture but its geometry has no texture coordinates; texture ignored")
            base = np.ones((len(part.vertices), 3)) if colors is None else _display_colors(colors)
            part.corner_colors = tint(base.astype(np.float32), factor)[part.faces].astype(np.float32)
            part.color_source = "material colors" if colors is None else "vertex colors"
        return self._visible(part, alpha, alpha_factor, mode, cutoff)

    def _texture(self, image: Any, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if id(image) not in self._images:
            if max(image.size) > self.settings.max_texture_size:
                self.notes.warn(
                    f"a texture of {image.size[0]} x {image.size[1]} texels was shrunk to at most "
                    f"{self.settings.max_texture_size} per side"
                )
            # The picture is kept alive beside its arrays, so that its id cannot be given to another one.
            self._images[id(image)] = (image, *image_to_array(image, self.settings.max_texture_size))
        _, pixels, alpha = self._images[id(image)]
        key = (id(image), factor.tobytes())
        if key not in self._tinted:
            self._tinted[key] = tint(pixels, factor)
        return self._tinted[key], alpha

    def _visible(
        self, part: Part, alpha: np.ndarray | None, alpha_factor: float, mode: str, cutoff: float
    ) -> np.ndarray:
        """Faces [F] that are not transparent all over: corneas and empty hair cards must not hide what is beneath."""
        visible = np.ones(len(part.faces), dtype=bool)
        if mode == "OPAQUE" or (alpha is None and alpha_factor >= 1):
            return visible
        threshold = cutoff if mode == "MASK" else 0.5
        if alpha is None or part.corner_uvs is None:
            return visible & (alpha_factor >= threshold)
        weights = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=float)
        places = np.einsum("sk,fkc->fsc", weights / weights.sum(1, keepdims=True), part.corner_uvs)
        height, width = alpha.shape
        columns = np.floor(places[..., 0] * width).astype(np.int64) % width
        rows = np.floor((1 - places[..., 1]) * height).astype(np.int64) % height
        sampled = alpha[rows, columns] * alpha_factor
        if bool(((sampled.max(1) >= threshold) & (sampled.min(1) < threshold)).any()):
            self.notes.warn(
                "a partly transparent material (hair cards, lashes) is shown opaque where its faces are kept"
            )
        return sampled.max(axis=1) >= threshold

    def _without_invisible_faces(self, part: Part, visible: np.ndarray) -> Part | None:
        self.notes.transparent_faces += int((~visible).sum())
        if not visible.any():
            return None
        part.faces = part.faces[visible]
        if part.corner_uvs is not None:
            part.corner_uvs = part.corner_uvs[visible]
        if part.corner_colors is not None:
            part.corner_colors = part.corner_colors[visible]
        return part


def _display_colors(colors: Any) -> np.ndarray:
    """Colours [N, 3] in 0..1 of uint8 or floating RGB(A) arrays [N, 3 or 4]."""
    values = np.asarray(colors)[:, :3]
    return np.clip(values / 255.0 if values.dtype.kind in "iu" else values.astype(np.float64), 0, 1)


def _material_values(material: Any) -> tuple[Any, np.ndarray, float, str, float]:
    """Picture or None, display colour factor [3], alpha factor, alpha mode and cutoff of a trimesh material."""
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        rgba = np.ones(4) if factor is None else np.asarray(factor, dtype=np.float64) / 255
        cutoff = 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
        return material.baseColorTexture, rgba[:3], float(rgba[3]), material.alphaMode or "OPAQUE", cutoff
    dissolve = material.kwargs.get("d") or ["1"]
    alpha = float(dissolve[-1])
    mode = "BLEND" if alpha < 1 or material.image is not None else "OPAQUE"
    if material.image is not None:
        # By common practice the picture alone decides: exporters leave Kd at 0.8 or even at 0 beside a map.
        return material.image, np.ones(3), alpha, mode, 0.5
    return None, np.asarray(material.diffuse, dtype=np.float64)[:3] / 255, alpha, mode, 0.5

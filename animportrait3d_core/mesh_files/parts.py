"""Geometries of a parsed scene as plain arrays: one `Part` per geometry, coloured by a texture or at its corners."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput
from .colors import image_to_array, tint
from .companions import TextureMap
from .report import LoadSettings

MAX_UV = 1e6
"""Repeats of a picture beyond which float32 cannot tell its texels apart."""

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
    files: list[str] = dataclasses.field(default_factory=list)

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def read(self, file: Path) -> None:
        """Note a companion file that was read, once."""
        if file.name not in self.files:
            self.files.append(file.name)


@dataclasses.dataclass
class Material:
    """What colours a geometry.

    image: a PIL picture or None.  file: of the picture, noted as read where it is used.  factor: display colour [3]
    that tints picture or vertex colours, None if the file says none.  alpha, mode, cutoff: opacity as in glTF.
    uv_map: how texture coordinates reach the picture.
    """

    image: Any
    factor: np.ndarray | None
    alpha: float = 1.0
    mode: str = "OPAQUE"
    cutoff: float = 0.5
    uv_map: TextureMap | None = None
    file: Path | None = None


class PartReader:
    """Turns trimesh geometries into parts; a picture shared by several materials is decoded once."""

    def __init__(self, settings: LoadSettings, notes: Notes, file_name: str) -> None:
        self.settings, self.notes, self.file_name = settings, notes, file_name
        self._images: dict[int, tuple[Any, np.ndarray, np.ndarray | None]] = {}
        self._tinted: dict[tuple[int, bytes], np.ndarray] = {}

    def read(self, geometry: Any, transform: np.ndarray) -> Part | None:
        """The part of one trimesh geometry placed by `transform` [4, 4]; None if nothing of it is visible."""
        with np.errstate(invalid="ignore", over="ignore"):  # of vertices that are not finite, which is told when merged
            vertices = np.asarray(geometry.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
        faces = np.asarray(geometry.faces, dtype=np.int64)
        if np.linalg.det(transform[:3, :3]) < 0:
            faces = faces[:, ::-1]  # a mirroring transform turns the winding
        part = Part(vertices, faces, color_source="none")
        visual, uvs, colors, material = geometry.visual, None, None, None
        if visual.kind == "texture":
            material = _material_of(visual.material)
            if visual.uv is not None and len(visual.uv) == len(vertices):
                uvs = np.asarray(visual.uv, dtype=np.float64)[:, :2][faces]
            if visual.vertex_attributes.get("color") is not None:
                colors = _display_colors(visual.vertex_attributes["color"])[faces]
        elif visual.kind == "vertex":
            colors = _display_colors(visual.vertex_colors)[faces]
        elif visual.kind == "face":
            colors = np.repeat(_display_colors(visual.face_colors)[:, None], 3, axis=1)
        return self.colored(part, material, uvs, colors)

    def colored(
        self, part: Part, material: Material | None, corner_uvs: np.ndarray | None, corner_colors: np.ndarray | None
    ) -> Part | None:
        """A bare part with its texture, or else its colours [F, 3, 3] and material colour, or else grey; None if
        nothing of it is visible.  corner_uvs: [F, 3, 2], v up."""
        self._check("colours", corner_colors, np.inf)
        alpha: np.ndarray | None = None
        image = material.image if material is not None else None
        if material is not None and image is not None and corner_uvs is not None:
            part.corner_uvs = self._on_picture(corner_uvs, material.uv_map)
            part.texture, alpha = self._texture(image, np.ones(3) if material.factor is None else material.factor)
            part.color_source = "texture"
            if material.file is not None:
                self.notes.read(material.file)
            if corner_colors is not None and corner_colors.min(initial=1) < 0.99:
                self.notes.warn("a textured material also has vertex colours; the texture is kept, they are ignored")
        else:
            if image is not None:
                self.notes.warn("a material has a texture but its geometry has no texture coordinates; texture ignored")
            factor = material.factor if material is not None else None
            if corner_colors is not None or factor is not None:
                base = np.ones((len(part.faces), 3, 3)) if corner_colors is None else corner_colors
                tinted = tint(base.astype(np.float32), np.ones(3) if factor is None else factor)
                part.corner_colors = tinted.astype(np.float32)
                part.color_source = "material colors" if corner_colors is None else "vertex colors"
            else:
                part.corner_colors = np.broadcast_to(GREY, (len(part.faces), 3, 3)).copy()
        if material is None:
            return self._without_invisible_faces(part, np.ones(len(part.faces), dtype=bool))
        return self._without_invisible_faces(
            part, self._visible(part, alpha, material.alpha, material.mode, material.cutoff)
        )

    def _on_picture(self, corner_uvs: np.ndarray, uv_map: TextureMap | None) -> np.ndarray:
        """Texture coordinates scaled and shifted by the options of their map."""
        if uv_map is None:
            self._check("texture coordinates", corner_uvs, MAX_UV)
            return corner_uvs
        with np.errstate(invalid="ignore", over="ignore"):
            placed = corner_uvs * uv_map.scale + uv_map.offset
        self._check("texture coordinates", placed, MAX_UV)
        if uv_map.clamp and (placed.min(initial=0) < 0 or placed.max(initial=1) > 1):
            self.notes.warn(
                f"the texture '{uv_map.name[:80]}' is repeated beyond its borders, although -clamp says that it is not"
            )
        return placed

    def _check(self, name: str, values: np.ndarray | None, most: float) -> None:
        """Refuse numbers that are not finite or larger than `most`."""
        if values is not None and not (np.isfinite(values).all() and np.abs(values).max(initial=0) <= most):
            beyond = f" or beyond {most:g}" if np.isfinite(most) else ""
            raise InvalidInput(
                f"load_mesh: '{self.file_name}' holds {name} that are not finite{beyond}; export it again."
            )

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


def _material_of(material: Any) -> Material:
    """A trimesh material; that of a PLY is its picture alone."""
    if hasattr(material, "baseColorFactor"):
        factor = material.baseColorFactor
        rgba = np.ones(4) if factor is None else np.asarray(factor, dtype=np.float64) / 255
        color = None if factor is None and material.baseColorTexture is None else rgba[:3]
        cutoff = 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
        return Material(material.baseColorTexture, color, float(rgba[3]), material.alphaMode or "OPAQUE", cutoff)
    return Material(material.image, np.ones(3), 1.0, "BLEND")

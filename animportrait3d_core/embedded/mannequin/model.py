"""The finished mannequin: arrays in template metres, in the layout that SMPL-X files use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import atlas, landmarks, regions, rig
from .ambient import ambient_openness
from .bust import Bust, displacement, template_bust
from .expressions import EXPRESSION_NAMES, expression_directions
from .parameters import PARAMETER_NAMES, SHAPE_DIRECTIONS, parameter_index
from .parts import LABELS
from .topology import skin_topology

METRES = 1e-3
# The local origin (between the eyes) in the template, so that the landmarks lie where SMPL-X has them.
TEMPLATE_ORIGIN = np.array([0.0, 0.309, 0.0])
MINIMUM_DETAIL = 0.022  # of the distance between the eyes: rms of an identity's displacement outside the basis


@dataclass(frozen=True)
class Mannequin:
    """A bust in the SMPL-X layout. Metres, y up, face to +z, subject's left +x; the rest pose has open eyes.

    vertices: [V, 3] float64.  faces: [F, 3] int64, wound outward.  shape_directions, expression_directions:
    [V, 3, 10], metres per unit.  eyelid_offsets: [2, V, 3], left and right lid from open (0) to closed (1).
    skinning_weights: [V, 55].  joint_regressor: [55, V].  joints: [55, 3].  parents: [55].
    vertex_parts, face_parts: [V], [F] uint8 positions in `part_names`.  part_vertices, part_faces: name of each piece
    ("skin", "left_eye", "upper_teeth", ...) -> slice.  corner_uvs: [F, 3, 2] in 0..1, v up.  charts: piece -> rectangle
    (u0, v0, u1, v1) of the texture.  skin_grid: [n, 2] row and signed column of the skin vertices in the ray grid.
    face_regions: name -> [F] bool.  landmark_faces [70], landmark_barycentric [70, 3]: 68 iBUG, left and right pupil.
    vertex_labels: [V] condition-map labels.  slits: "left_eye", "right_eye", "mouth" -> (upper [m], lower [m]) vertices
    from the subject's right to left.  ambient_openness: [V] in 0..1, low in nostrils, mouth and ears.
    """

    vertices: np.ndarray
    faces: np.ndarray
    shape_directions: np.ndarray
    expression_directions: np.ndarray
    eyelid_offsets: np.ndarray
    skinning_weights: np.ndarray
    joint_regressor: np.ndarray
    joints: np.ndarray
    parents: np.ndarray
    vertex_parts: np.ndarray
    face_parts: np.ndarray
    part_vertices: Mapping[str, slice]
    part_faces: Mapping[str, slice]
    corner_uvs: np.ndarray
    charts: Mapping[str, tuple[float, float, float, float]]
    skin_grid: np.ndarray
    face_regions: Mapping[str, np.ndarray]
    landmark_faces: np.ndarray
    landmark_barycentric: np.ndarray
    vertex_labels: np.ndarray
    slits: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ambient_openness: np.ndarray
    part_names: tuple[str, ...] = LABELS
    shape_names: tuple[str, ...] = tuple(name for name, _ in SHAPE_DIRECTIONS)
    expression_names: tuple[str, ...] = EXPRESSION_NAMES
    parameter_names: tuple[str, ...] = PARAMETER_NAMES

    @property
    def closed_vertices(self) -> np.ndarray:
        """Rest vertices [V, 3] with both lids down."""
        return self.vertices + self.eyelid_offsets.sum(axis=0)


def _shape_directions() -> np.ndarray:
    """Central differences [V, 3, 10] (mm) of one unit of each parameter mixture."""
    columns = []
    for _, mixture in SHAPE_DIRECTIONS:
        parameters = np.zeros(len(PARAMETER_NAMES))
        for name, share in mixture.items():
            parameters[parameter_index(name)] = share
        columns.append(0.5 * (displacement(parameters) - displacement(-parameters)))
    return np.stack(columns, axis=-1)


def _slices(first: int, counts: list[tuple[str, int]]) -> dict[str, slice]:
    spans, start = {"skin": slice(0, first)}, first
    for name, count in counts:
        spans[name] = slice(start, start + count)
        start += count
    return spans


def _faces(bust: Bust) -> np.ndarray:
    return np.concatenate([skin_topology().faces, *(part.faces for part in bust.parts)])


def _lid_offsets(bust: Bust) -> np.ndarray:
    closing = bust.closed - bust.opened
    left = (bust.opened[:, :1] > 0).astype(np.float64)
    return np.stack([closing * left, closing * (1 - left)])


@lru_cache(maxsize=1)
def build_mannequin() -> Mannequin:
    """The mannequin; built once per process (a few seconds), deterministic."""
    bust, topology = template_bust(), skin_topology()
    faces = _faces(bust)
    joints = rig.joint_locations()
    spans = _slices(topology.count, [(part.name, len(part.closed)) for part in bust.parts])
    pupils = (spans["left_eye"].start, spans["right_eye"].start)
    landmark_faces, landmark_barycentric = landmarks.landmark_embedding(bust, faces, pupils)
    return Mannequin(
        vertices=bust.opened * METRES + TEMPLATE_ORIGIN,
        faces=faces,
        shape_directions=_shape_directions() * METRES,
        expression_directions=expression_directions() * METRES,
        eyelid_offsets=_lid_offsets(bust) * METRES,
        skinning_weights=rig.skinning_weights(bust),
        joint_regressor=rig.joint_regressor(bust, joints),
        joints=joints * METRES + TEMPLATE_ORIGIN,
        parents=rig.PARENTS.copy(),
        vertex_parts=regions.vertex_parts(bust),
        face_parts=regions.face_parts(bust),
        part_vertices=spans,
        part_faces=_slices(len(topology.faces), [(part.name, len(part.faces)) for part in bust.parts]),
        corner_uvs=atlas.corner_uvs(bust),
        charts=dict(atlas.CHARTS),
        skin_grid=topology.keys[:, :2].copy(),
        face_regions=regions.face_regions(bust, faces),
        landmark_faces=landmark_faces,
        landmark_barycentric=landmark_barycentric,
        vertex_labels=regions.vertex_labels(bust),
        slits={name: (slit.upper, slit.lower) for name, slit in topology.slits.items()},
        ambient_openness=ambient_openness(bust),
    )


def sample_parameters(generator: np.random.Generator) -> np.ndarray:
    """Random identity parameters [len(PARAMETER_NAMES)], normal of deviation 0.8 clipped to +-1.8."""
    return np.clip(0.8 * generator.normal(size=len(PARAMETER_NAMES)), -1.8, 1.8)


@lru_cache(maxsize=1)
def _orthonormal_basis() -> np.ndarray:
    directions = build_mannequin().shape_directions
    return np.linalg.qr(directions.reshape(-1, directions.shape[-1]))[0]


def identity_skin_displacement(source: int | np.ndarray, minimum_detail: float = MINIMUM_DETAIL) -> np.ndarray:
    """Shape of one identity OUTSIDE the ten shape directions.

    source: a seed, or parameters [len(PARAMETER_NAMES)] (see `parameters.PARAMETER_NAMES`).  Returns [V, 3] float64 in
    metres, orthogonal to every shape direction; add it to the template before lids and skinning. Lids, lips, mouth
    cavity, ears and eyeballs travel together. Its rms over the face is at least `minimum_detail` of the distance
    between the eyes (smaller displacements are scaled up; zero parameters give zero).
    """
    parameters = sample_parameters(np.random.default_rng(source)) if isinstance(source, int | np.integer) else source
    moved = (displacement(np.asarray(parameters)) * METRES).ravel()
    basis = _orthonormal_basis()
    outside = (moved - basis @ (basis.T @ moved)).reshape(-1, 3)
    detail = detail_rms(outside)
    if 1e-9 < detail < minimum_detail:
        outside = outside * (minimum_detail / detail)
    return outside


def detail_rms(displaced: np.ndarray) -> float:
    """Root mean square length of a displacement [V, 3] over the face, as a share of the distance between the eyes."""
    mannequin = build_mannequin()
    face = np.unique(mannequin.faces[mannequin.face_regions["face"]])
    between = np.linalg.norm(mannequin.joints[rig.LEFT_EYE] - mannequin.joints[rig.RIGHT_EYE])
    return float(np.sqrt(np.mean(np.sum(displaced[face] ** 2, axis=1))) / between)

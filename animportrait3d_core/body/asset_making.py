"""Body assets from what a SMPL-X file itself holds: crop, lids, landmarks, regions and labels, by geometry alone.

The authors' own assets are made from lists of vertices that are licensed with their models; nothing of them is needed
here. Landmarks come from the file's embedding, eyeballs are pieces of the template that follow the eye joints, eye and
mouth openings are loops of edges through the landmarks of their borders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse

from ..errors import IncompatibleCheckpoint, InvalidInput
from ..landmarks import (
    CHIN,
    LEFT_EYE,
    LEFT_OUTER_EYE,
    MIRRORED_LANDMARKS,
    MOUTH,
    NOSE,
    NUM_FACE_LANDMARKS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_OUTER_EYE,
)
from ..regions import LABEL_IRIS, LABEL_SCLERA, LABEL_TEETH
from .assets import BodyAssets
from .lids import EyeOpening, fitted_sphere, lid_offsets
from .mouth_making import MadeMouth, MouthSite, make_mouth, own_pieces, own_teeth
from .reader import JOINTS, SHOULDERS
from .skin_regions import skin_regions
from .surface_parts import components, edge_graph, enclosed_by, loop_through

CROP_HEIGHT = -0.1  # metres on the template in its A-pose: head, neck and shoulders, as the authors crop
ARM_ANGLE_DEGREES = 60.0
IRIS_SHARE = 0.45  # of the eyeball's radius: 5.4 of 12 mm
STATIC_LANDMARKS, CONTOUR_LANDMARKS = 51, 17
FRONTAL_CONTOUR = 0  # row of the moving jaw line for a head that is not turned
NOSE_TIP = 30
EYE_JOINTS = {"left_eyeball": JOINTS["left_eye"], "right_eyeball": JOINTS["right_eye"]}
_WHERE = "make_body_assets"


def make_body_assets(
    arrays: Mapping[str, np.ndarray], name: str = "smplx", arm_angle_degrees: float = ARM_ANGLE_DEGREES
) -> BodyAssets:
    """The assets of a body from its checked arrays (`read_body_file`).

    arm_angle_degrees: how far the arms hang under the shoulders in the pose that is cropped.  Teeth are those that the
    template has; to one with an open mouth and none in it ours are added (`mouth_making`).

    Raises `IncompatibleCheckpoint` (no landmark embedding of 51 + 17 places, no eyeballs) and `InvalidInput` (landmarks
    that are not in iBUG order, or that the crop loses).
    """
    crop = _Crop(arrays, arm_angle_degrees)
    places, barycentric = _landmark_places(arrays)
    landmarks = (arrays["v_template"][arrays["f"].astype(np.int64)[places]] * barycentric[..., None]).sum(axis=1)
    _check_order(landmarks)
    places = crop.face_positions[places]
    if (places < 0).any():
        lost = np.flatnonzero(places < 0)[:6].tolist()
        raise InvalidInput(f"{_WHERE}: landmarks {lost} lie under the crop at y = {CROP_HEIGHT} m; expected all above.")
    head = _Head(crop, places, barycentric, landmarks)
    pupils = [_at_vertex(crop.faces, head.pupil(side)) for side in EYE_JOINTS]
    all_places = np.concatenate([places, [face for face, _ in pupils]])
    all_weights = np.concatenate([barycentric, [corner for _, corner in pupils]])
    assets = BodyAssets(
        vertex_ids=torch.from_numpy(crop.kept),
        faces=torch.from_numpy(crop.faces),
        eyelid_offsets=torch.from_numpy(head.eyelid_offsets().astype(np.float32)),
        landmark_faces=torch.from_numpy(all_places),
        landmark_barycentric=torch.from_numpy(all_weights.astype(np.float32)),
        face_regions={name: torch.from_numpy(mask) for name, mask in head.face_regions().items()},
        vertex_labels=torch.from_numpy(head.vertex_labels().astype(np.float32)),
        winding_outward=crop.winding_outward,
        name=name,
        redistributable=False,
        arm_angle_degrees=float(arm_angle_degrees),
    )
    made = make_mouth(head.mouth, crop.kept, len(arrays["v_template"]))
    return assets if made is None else _with_made_mouth(assets, made)


def _with_made_mouth(assets: BodyAssets, made: MadeMouth) -> BodyAssets:
    """The assets with added pieces, which come after what was kept of the file."""
    count = len(made.pieces.vertices)
    masks = {"teeth": made.teeth, "lips": made.lips, "mouth_interior": ~made.lips}
    none = np.zeros(len(made.faces), dtype=bool)
    return dataclasses.replace(
        assets,
        vertex_ids=torch.cat([assets.vertex_ids, made.pieces.file_vertices + torch.arange(count)]),
        faces=torch.cat([assets.faces, torch.from_numpy(made.faces)]),
        eyelid_offsets=torch.cat([assets.eyelid_offsets, torch.zeros(2, count, 3)], dim=1),
        face_regions={
            name: torch.cat([mask, torch.from_numpy(masks.get(name, none))])
            for name, mask in assets.face_regions.items()
        },
        vertex_labels=torch.cat([assets.vertex_labels, torch.from_numpy(made.labels.astype(np.float32))]),
        mouth=made.pieces,
    )


class _Crop:
    """The kept part of the template.

    kept: [V'] int64 vertices of the template.  faces: [F', 3] int64 in the file's order.  face_positions: [F] their
    numbers, -1 where dropped.  vertices: [V', 3].  weights: [V', 55].
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], arm_angle_degrees: float) -> None:
        template, faces = arrays["v_template"].astype(np.float64), arrays["f"].astype(np.int64)
        posed = with_hanging_arms(arrays, np.deg2rad(arm_angle_degrees))
        whole = (posed[:, 1] >= CROP_HEIGHT)[faces].all(axis=1)
        self.kept = np.unique(faces[whole])
        position = np.full(len(template), -1)
        position[self.kept] = np.arange(len(self.kept))
        self.faces = position[faces[whole]]
        self.face_positions = np.where(whole, np.cumsum(whole) - 1, -1)
        self.vertices, self.weights = template[self.kept], arrays["weights"][self.kept].astype(np.float64)
        a, b, c = (template[faces[:, k]] for k in range(3))
        self.winding_outward = bool(np.einsum("fc,fc->", a, np.cross(b, c)) > 0)


def with_hanging_arms(arrays: Mapping[str, np.ndarray], angle: float) -> np.ndarray:
    """Template [V, 3] whose arms are turned about the shoulders by `angle` radians, with all that hangs there."""
    template = arrays["v_template"].astype(np.float64)
    joints = arrays["J_regressor"] @ template
    parents = arrays["kintree_table"][0].astype(np.int64)
    posed = template.copy()
    for shoulder, sign in SHOULDERS.items():
        follows = {shoulder}
        for joint in range(shoulder + 1, len(parents)):
            if int(parents[joint]) in follows:
                follows.add(joint)
        share = arrays["weights"][:, sorted(follows)].sum(axis=1, keepdims=True)
        cos, sin = np.cos(sign * angle), np.sin(sign * angle)
        turned = (template - joints[shoulder]) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + joints[shoulder]
        posed += share * (turned - template)
    return posed


def _landmark_places(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Faces [68] and barycentric coordinates [68, 3] in iBUG order: the jaw line of a frontal head, then the 51."""
    static, contour = arrays["lmk_faces_idx"], arrays["dynamic_lmk_faces_idx"]
    if static.shape != (STATIC_LANDMARKS,) or contour.ndim != 2 or contour.shape[1] != CONTOUR_LANDMARKS:
        raise IncompatibleCheckpoint(
            f"{_WHERE}: `lmk_faces_idx` {list(static.shape)} and `dynamic_lmk_faces_idx` {list(contour.shape)}, "
            f"expected [{STATIC_LANDMARKS}] and [angles, {CONTOUR_LANDMARKS}]: SMPL-X 1.1 has them."
        )
    faces = np.concatenate([contour[FRONTAL_CONTOUR], static]).astype(np.int64)
    weights = [arrays["dynamic_lmk_bary_coords"][FRONTAL_CONTOUR], arrays["lmk_bary_coords"]]
    return faces, np.concatenate(weights).astype(np.float64)


def _check_order(landmarks: np.ndarray) -> None:
    right, left = landmarks[RIGHT_OUTER_EYE], landmarks[LEFT_OUTER_EYE]
    mirrored = np.array(MIRRORED_LANDMARKS[:NUM_FACE_LANDMARKS])
    across = landmarks[mirrored, 0] - landmarks[:, 0]
    sides = np.concatenate([across[:8], across[RIGHT_BROW], across[31:33], across[RIGHT_EYE], across[[48, 49, 60]]])
    heights = [landmarks[part, 1].mean() for part in (slice(CHIN, CHIN + 1), MOUTH, NOSE, RIGHT_EYE, RIGHT_BROW)]
    if not ((sides > 0).all() and (np.diff(heights) > 0).all()):
        raise InvalidInput(
            f"{_WHERE}: the file's landmarks are not in iBUG order with the face to +z and y up: outer eye corners at "
            f"x = {right[0]:.3f} and {left[0]:.3f} m, chin, mouth, nose, right eye and right brow at y = "
            f"{', '.join(f'{height:.3f}' for height in heights)} m, expected each above the one before."
        )


def _at_vertex(faces: np.ndarray, vertex: int) -> tuple[int, np.ndarray]:
    """A face at the vertex, and the vertex's barycentric coordinates there."""
    face, corner = np.argwhere(faces == vertex)[0]
    return int(face), np.eye(3)[corner]


class _Head:
    """What is found on the cropped template: eyeballs, openings, what lies behind them."""

    def __init__(self, crop: _Crop, places: np.ndarray, barycentric: np.ndarray, landmarks: np.ndarray) -> None:
        self._crop, self._landmarks = crop, landmarks
        self._stops = crop.faces[places, barycentric.argmax(axis=1)]
        self._graph: sparse.csr_matrix = edge_graph(crop.vertices, crop.faces)
        self._pieces = components(self._graph)
        self._skin = self._pieces == self._pieces[self._stops[NOSE_TIP]]
        self._eyeballs = {name: self._eyeball(joint) for name, joint in EYE_JOINTS.items()}
        self._spheres = {name: fitted_sphere(crop.vertices[mask]) for name, mask in self._eyeballs.items()}
        self._openings = [self._opening("left_eyeball", LEFT_EYE), self._opening("right_eyeball", RIGHT_EYE)]
        self._mouth = np.concatenate(loop_through(self._graph, self._stops[60:68].tolist()))
        self._behind_lips = enclosed_by(self._graph, self._mouth, int(self._stops[NOSE_TIP]))
        loose = ~self._skin & ~self._eyeballs["left_eyeball"] & ~self._eyeballs["right_eyeball"]
        self.mouth = MouthSite(
            vertices=crop.vertices,
            faces=crop.faces,
            weights=crop.weights,
            landmarks=landmarks,
            lips=self._mouth,
            behind=self._behind_lips,
            pieces=self._pieces,
            loose=loose,
            winding_outward=crop.winding_outward,
        )
        pieces = own_pieces(self.mouth)
        self._teeth = own_teeth(self.mouth, pieces)
        self._inside_mouth = self._behind_lips.copy()
        self._inside_mouth[np.concatenate(pieces) if pieces else []] = True

    def _eyeball(self, joint: int) -> np.ndarray:
        """Vertices [V'] bool of the pieces that follow an eye's joint."""
        follows = np.bincount(self._pieces, self._crop.weights[:, joint]) / np.bincount(self._pieces)
        mask = (follows > 0.5)[self._pieces] & ~self._skin
        if mask.sum() < 20:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: no piece of the template follows joint {joint} (an eye), expected an eyeball apart from "
                "the skin, as SMPL-X has."
            )
        return mask

    def _opening(self, eyeball: str, eye: slice) -> EyeOpening:
        """iBUG goes round an eye from its corner at the subject's right, above to the other corner, below back."""
        ways = loop_through(self._graph, self._stops[eye].tolist())
        loop = np.concatenate(ways)
        other = int(self._stops[eye][3])
        upper = np.concatenate([*ways[:3], [other]])
        lower = np.concatenate([*ways[3:], loop[:1]])[::-1]
        inside = enclosed_by(self._graph, loop, int(self._stops[NOSE_TIP]))
        return EyeOpening(*self._spheres[eyeball], upper, lower, inside)

    def pupil(self, eyeball: str) -> int:
        """The vertex of an eyeball that lies farthest in front of its centre."""
        ids, center = np.flatnonzero(self._eyeballs[eyeball]), self._spheres[eyeball][0]
        rays = self._crop.vertices[ids] - center
        return int(ids[np.argmax(rays[:, 2] / np.linalg.norm(rays, axis=1))])

    def eyelid_offsets(self) -> np.ndarray:
        """Offsets [2, V', 3] that close the left and the right eye."""
        return np.stack([lid_offsets(self._crop.vertices, self._skin, opening) for opening in self._openings])

    def _iris(self) -> np.ndarray:
        mask = np.zeros(len(self._crop.kept), dtype=bool)
        for name, ball in self._eyeballs.items():
            center, radius = self._spheres[name]
            ray = self._crop.vertices - center
            mask |= ball & (ray[:, 2] > 0) & (np.hypot(ray[:, 0], ray[:, 1]) <= IRIS_SHARE * radius)
        return mask

    def vertex_labels(self) -> np.ndarray:
        """Labels [V'] of a condition map: sclera, iris and the file's own teeth."""
        ball = self._eyeballs["left_eyeball"] | self._eyeballs["right_eyeball"]
        teeth = np.where(self._teeth, LABEL_TEETH, 0.0)
        return np.where(self._iris(), LABEL_IRIS, np.where(ball, LABEL_SCLERA, teeth))

    def face_regions(self) -> dict[str, np.ndarray]:
        """Region masks [F'] bool: a face belongs to a region if all its vertices do."""
        faces, vertices = self._crop.faces, self._crop.vertices
        behind_lids = self._openings[0].inside | self._openings[1].inside
        borders = np.concatenate([np.concatenate([o.upper, o.lower]) for o in self._openings])
        rim = behind_lids.copy()
        rim[borders] = True
        mouth_faces = self._behind_lips[faces].any(axis=1)
        lid_faces = behind_lids[faces].any(axis=1)
        outside = self._skin[faces].all(axis=1) & ~mouth_faces & ~lid_faces
        masks = skin_regions(vertices, self._crop.weights, self._landmarks, self._mouth_gap())
        regions = {name: mask[faces].all(axis=1) & outside for name, mask in masks.items()}
        regions["lips"] |= masks["lips"][faces].all(axis=1) & mouth_faces
        balls = {name: mask[faces].all(axis=1) for name, mask in self._eyeballs.items()}
        regions["eye_region"] |= lid_faces | balls["left_eyeball"] | balls["right_eyeball"]
        regions |= balls | {"iris": self._iris()[faces].all(axis=1), "teeth": self._teeth[faces].all(axis=1)}
        regions["mouth_interior"] = self._inside_mouth[faces].any(axis=1) & ~regions["lips"]
        regions["condition_face"] = regions["face"].copy()
        return regions

    def _mouth_gap(self) -> np.ndarray:
        """Distance [V'] to the border of the mouth's opening, infinite for what is not behind it nor on it."""
        gap = np.full(len(self._crop.kept), np.inf)
        ids = np.flatnonzero(self._behind_lips)
        border = self._crop.vertices[self._mouth]
        if len(ids):
            gap[ids] = np.linalg.norm(self._crop.vertices[ids, None] - border[None], axis=2).min(axis=1)
        gap[self._mouth] = 0.0
        return gap

"""Personal offsets by what a portrait shows: its surface and the landmarks that its views agree on.

Shape coefficients do not reach real faces. What is left after the fit is made up by smooth offsets of the template at
rest (as VHAP's static offset): rounds of closest points and a thin plate that becomes softer, coarse to fine. A surface
also draws what lies behind it, lids to eyeballs and lips to teeth, so that two places must be each other's nearest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..landmarks import INNER_FACE, JAWLINE, LEFT_EYE, MOUTH, NUM_FACE_LANDMARKS, RIGHT_EYE
from ..mesh_queries import ClosestPoints, SurfaceTree
from ..meshes import Mesh, vertex_normals
from .fit_terms import body_regions
from .fit_variables import geman_mcclure_weights
from .landmarks import is_closed
from .model import BodyModel
from .parameters import BodyParameters
from .personal import PersonalOffsets
from .personal_parts import followers, following
from .personal_sheet import Pull, relaxed, skin_sheet, smoothed, turned_faces
from .visible_skin import outer_skin, visible_skin

_LANDMARK_AREA = 4e-4  # [m^2], what a sure landmark on a lid or a lip counts as
_LANDMARK_NOISE = 0.0005  # [m], how far off a detected landmark is wont to be
_LANDMARK_WIDTH = 0.009  # [m], how far off the fit a landmark is believed


@dataclasses.dataclass(frozen=True)
class PersonalSettings:
    """Lengths in metres of a body at rest, one per round.

    lengths: features shorter than that are stiff.  widths: distances above which a correspondence loses its say.
    least_agreement: cosine between normals under which two surfaces are not the same place.  mutual_distance,
    mutual_share: how far from a vertex the body's place nearest to its nearest place may be, plus a share of their
    distance.  most_turn: cosine that a face's normal must keep with what it was.  skin_reach: how near to known skin
    the scalp is drawn to it and not only kept under it.
    """

    lengths: Sequence[float] = (0.02, 0.012, 0.008, 0.006, 0.005, 0.004)
    widths: Sequence[float] = (0.02, 0.017, 0.014, 0.012, 0.01, 0.008)
    least_agreement: float = 0.5
    mutual_distance: float = 0.002
    mutual_share: float = 0.4
    most_turn: float = 0.3
    skin_reach: float = 0.01


@dataclasses.dataclass(frozen=True)
class PersonalTarget:
    """What a person looks like, in the world.

    mesh: the surface, wound outward.  covering: [F] bool, faces that are hair or clothes, None if that is not known.
    landmarks: points [68, 3] and weights [68] in 0..1, if there are any that can be relied on.
    """

    mesh: Mesh
    covering: Tensor | None = None
    landmarks: tuple[Tensor, Tensor] | None = None


def find_offsets(
    body: BodyModel,
    parameters: BodyParameters,
    target: PersonalTarget,
    settings: PersonalSettings | None = None,
) -> PersonalOffsets:
    """Offsets under which the fitted body becomes the person.

    parameters: a fit, batch of one. Deterministic; no face of the skin is turned over.
    """
    with torch.inference_mode(False), torch.no_grad():
        return _Search(body, parameters, target, settings or PersonalSettings()).run()


class _Search:
    """One search: the body as it was fitted, and the surface in metres around it."""

    def __init__(
        self, body: BodyModel, parameters: BodyParameters, target: PersonalTarget, settings: PersonalSettings
    ) -> None:
        self.body, self.settings = body, settings
        self.scale = float(parameters.scale)
        self.output = body(parameters)
        self.posed = (self.output.vertices[0] / self.scale).double().numpy()
        self.turns = (body.rest_to_world(parameters)[0] / self.scale).double().numpy()
        self.sheet = skin_sheet(body, body.shape(parameters.betas).vertices[0])
        self.followers = followers(body, parameters, self.sheet)
        self.faces = body.faces_outward
        left, right = (parameters.eyelids[0] > 0.5).tolist()
        self.closed = (left, right)
        self.outer = outer_skin(body).numpy()
        self._read_target(target)
        self._choose_vertices()

    def _read_target(self, target: PersonalTarget) -> None:
        mesh = target.mesh
        vertices = mesh.vertices.double() / self.scale
        self.tree = SurfaceTree(vertices, mesh.faces)
        self.mesh_faces, self.mesh_normals = mesh.faces, vertex_normals(vertices, mesh.faces)
        covering = target.covering
        self.covering = torch.zeros(len(mesh.faces), dtype=torch.bool) if covering is None else covering
        self.knows_skin = covering is not None
        self.rows, self.row_weights, self.row_targets = self._landmark_rows(target.landmarks)

    def _choose_vertices(self) -> None:
        """Which of the sheet's vertices are drawn, and which only have to stay under the surface."""
        is_under = torch.zeros(self.body.num_vertices, dtype=torch.bool)
        is_under[body_regions(self.body, self.body.num_vertices).covered] = True
        self.is_drawn = (visible_skin(self.body, self.output) & ~is_under).numpy()[self.sheet.ids]
        self.is_under = is_under.numpy()[self.sheet.ids]

    def _landmark_rows(
        self, landmarks: tuple[Tensor, Tensor] | None
    ) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
        """Landmarks as mixtures of the sheet's vertices, and the offsets that bring them to their places."""
        count = len(self.sheet.ids)
        if landmarks is None:
            return sparse.csr_matrix((0, count)), np.zeros(0), np.zeros((0, 3))
        points, weights = (value.double().numpy() for value in landmarks)
        weights = weights * _landmark_shares(points, self.closed)
        assets = self.body.assets
        corners = self.body.faces[assets.landmark_faces[:NUM_FACE_LANDMARKS]].numpy()
        shares = assets.landmark_barycentric[:NUM_FACE_LANDMARKS].double().numpy()
        number = np.full(self.body.num_vertices, -1)
        number[self.sheet.ids] = np.arange(count)
        usable = np.flatnonzero((weights > 0) & (number[corners] >= 0).all(1))
        matrix = sparse.csr_matrix(
            (shares[usable].ravel(), (np.repeat(np.arange(len(usable)), 3), number[corners[usable]].ravel())),
            shape=(len(usable), count),
        )
        here = self.output.landmarks[0, usable].double().numpy() / self.scale
        turns = (self.turns[corners[usable]] * shares[usable, :, None, None]).sum(1)
        way = points[usable] / self.scale - here
        believed = geman_mcclure_weights(torch.from_numpy(np.linalg.norm(way, axis=1)), _LANDMARK_WIDTH).numpy()
        # Within what detectors err by, the fit's own landmarks, which all of the face has a say in, are as good.
        squared = np.square(way).sum(1, keepdims=True)
        wanted = np.einsum("nji,nj->ni", turns, way * squared / (squared + _LANDMARK_NOISE**2))
        return matrix, _LANDMARK_AREA * weights[usable] * believed, wanted

    def run(self) -> PersonalOffsets:
        offsets = np.zeros((len(self.sheet.ids), 3))
        calm = np.zeros(len(offsets), dtype=bool)  # where a face turned over: nothing draws there any more
        for length, width in zip(self.settings.lengths, self.settings.widths, strict=True):
            pull = self._pull(offsets, width, calm)
            offsets = relaxed(self.sheet, pull, length)
            for _ in range(2):
                turned = turned_faces(self.sheet, offsets, self.settings.most_turn)
                if not turned.any():
                    break
                calm = self._around(calm, turned)
                pull.weights[calm] = 0.0
                offsets = relaxed(self.sheet, pull, length)
        return following(self.body, self.followers, self._unturned(offsets))

    def _around(self, calm: np.ndarray, turned: np.ndarray) -> np.ndarray:
        """The vertices of turned faces and of the faces around them, beside those that are calm already."""
        touched = np.zeros(len(calm), dtype=bool)
        touched[self.sheet.faces[turned]] = True
        touched[self.sheet.faces[touched[self.sheet.faces].any(1)]] = True
        return calm | touched

    def _unturned(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets averaged with their neighbours wherever a face is still turned."""
        for _ in range(50):
            turned = turned_faces(self.sheet, offsets, self.settings.most_turn)
            if not turned.any():
                break
            near = self._around(np.zeros(len(offsets), dtype=bool), turned)
            offsets = np.where(near[:, None], smoothed(self.sheet, offsets), offsets)
        return offsets

    def _pull(self, offsets: np.ndarray, width: float, calm: np.ndarray) -> Pull:
        """What the surface wants of each vertex of the sheet now."""
        all_offsets = self.followers.everywhere(offsets)
        places = torch.from_numpy(self.posed + np.einsum("nij,nj->ni", self.turns, all_offsets))
        own = places[self.sheet.ids]
        hit = self.tree.closest(own)
        shares = hit.barycentric[..., None].double()
        normals = (self.mesh_normals[self.mesh_faces[hit.faces]] * shares).sum(1)
        normals = torch.nn.functional.normalize(normals, dim=-1)
        step = ((hit.points.double() - own) * normals).sum(-1)  # positive: the surface lies outside
        agrees = (normals * vertex_normals(places, self.faces)[self.sheet.ids]).sum(-1)
        weights = self.sheet.areas * self._say(hit, step, agrees, places, width) * ~calm
        moved = (step[:, None] * normals).numpy()
        targets = offsets + np.einsum("nji,nj->ni", self.turns[self.sheet.ids], moved)
        return Pull(weights, targets, self.rows, self.row_weights, self.row_targets)

    def _say(self, hit: ClosestPoints, step: Tensor, agrees: Tensor, places: Tensor, width: float) -> np.ndarray:
        """How much each correspondence counts, 0 to 1."""
        settings = self.settings
        back = SurfaceTree(places, self.faces).closest(hit.points)
        near = (back.points.double() - places[self.sheet.ids]).norm(dim=-1)
        is_mutual = torch.from_numpy(self.outer)[back.faces]
        is_mutual &= near < settings.mutual_distance + settings.mutual_share * hit.distances
        covered = self.covering[hit.faces]
        sticks_out = step < 0
        drawn, under = torch.from_numpy(self.is_drawn), torch.from_numpy(self.is_under)
        bare_scalp = under & ~covered & (hit.distances < settings.skin_reach) & self.knows_skin
        says = is_mutual & ((drawn & (~covered | sticks_out)) | bare_scalp) | (under & sticks_out)
        says &= agrees > settings.least_agreement
        return (geman_mcclure_weights(hit.distances.double(), width) * says).numpy()


def _landmark_shares(points: np.ndarray, closed: tuple[bool, bool]) -> np.ndarray:
    """How much each landmark says of a shape [68], 0 to 1: lids and lips first, the jawline slides.

    closed: the left and the right eye of the fit. Lids of closed eyes say nothing of open ones, nor these of those.
    """
    shares = np.zeros(NUM_FACE_LANDMARKS)
    shares[JAWLINE], shares[INNER_FACE] = 0.2, 0.5
    shares[MOUTH] = 1.0
    for lids, is_shut in zip((LEFT_EYE, RIGHT_EYE), closed, strict=True):
        shares[lids] = float(is_closed(torch.from_numpy(points[lids])) == is_shut)
    return shares

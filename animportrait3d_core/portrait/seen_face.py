"""A head found by the face in its pictures, where the relief is unlike the body's: statues under their hair, cartoons.

The mesh is looked at from every side and either way up. Where a network for landmarks sees a face, views from around it
have to agree on the landmarks in space, and these have to be a face's: that is what things do not pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ..body.fit_landmarks import find_consensus
from ..body.landmarks import Landmarks, ViewDetector, outer_eye_distance
from ..cameras import orbit_cameras
from ..errors import InvalidInput
from ..landmarks import NUM_FACE_LANDMARKS
from ..meshes import Mesh
from ..progress import may_stop
from ..views import Views
from .alignment import HandAlignment, HeadAlignment, align_by_hand, crop_to_view, fit_similarity
from .head_target import HeadTarget
from .mesh import MeshPortrait, MeshRenderSettings, has_one_color
from .views import render_views

HEAD_SHARES = (1.0, 0.5, 0.2)  # of the mesh's height between chin and crown: heads, busts, whole bodies
TOP_OFFSET = 0.08  # how far hair stands above the body's bald crown, in head heights
UPS = ("+y", "+z", "-y", "-z")  # no program writes x upwards
FACES = ("+z", "-y", "-z", "+y", "+x", "-x")
LOOK_SIZE, VIEW_SIZE = 96, 192  # pixels
YAWS = (0.0, -25.0, 25.0, 0.0, 0.0, -45.0, 45.0)
PITCHES = (0.0, 0.0, 0.0, 15.0, -15.0, 0.0, 0.0)
SURE, LEAST_SURE = 0.6, 0.3  # mean confidence of a first look that is worth a second at once; at the end
MOST_LOOKS = 4  # from all sides
ROUNDS = 2  # the second from where the first puts the face
LEAST_AGREEING = 5  # of the views
LEAST_POINTS = 40
CONSENSUS_WIDTH = 0.012
MOST_ERROR = 0.15  # of the outer-eye distance, from the target's landmarks: faces of statues have 0.08


def place_by_sight(mesh: Mesh, target: HeadTarget, detect: ViewDetector) -> HeadAlignment | None:
    """The alignment of a mesh onto the target by the landmarks of its pictures; None if no face is seen in it.

    detect: finds landmarks in views (`networks.detect_landmarks`). Deterministic; some seconds of a core, few where the
    file is upright and faces one of its axes.
    """
    sight = _Sight(mesh, target, detect)
    doubtful: list[tuple[float, HeadAlignment]] = []
    for start in _starts(mesh, target):
        may_stop()
        sure = sight.sure(start)
        if sure >= SURE and (found := sight.agreed(start)) is not None:
            return found
        if LEAST_SURE <= sure < SURE:
            doubtful.append((sure, start))
        if sight.second_looks >= MOST_LOOKS:
            return None
    doubtful.sort(key=lambda one: -one[0])
    tried = (sight.agreed(start) for _, start in doubtful[: MOST_LOOKS - sight.second_looks])
    return next((found for found in tried if found is not None), None)


def _starts(mesh: Mesh, target: HeadTarget) -> Iterator[HeadAlignment]:
    """The mesh with its top at the target's crown and its front at the nose, for each pair of axes, likely ones first,
    and as several shares of a body."""
    crown, nose = float(target.mesh.vertices[:, 1].max()), float(target.mesh.vertices[:, 2].max())
    for up, face in itertools.product(UPS, FACES):
        if up[1] == face[1]:
            continue
        rotation = align_by_hand(HandAlignment(up=up, face=face)).rotation
        turned = mesh.vertices @ rotation.T
        top, tall = float(turned[:, 1].max()), float(turned[:, 1].max() - turned[:, 1].min())
        for share in HEAD_SHARES:
            scale = (1 + TOP_OFFSET) * target.height / (share * max(tall, 1e-6))
            head = turned[turned[:, 1] > top - (1 + TOP_OFFSET) * target.height / scale]
            middle = float(head[:, 0].max() + head[:, 0].min()) / 2
            corner = torch.tensor([0.0, crown + TOP_OFFSET * target.height, nose])
            place = corner - scale * torch.tensor([middle, top, float(head[:, 2].max())])
            yield HeadAlignment(rotation, scale, place, "seen")


class _Sight:
    """Looks at one mesh. second_looks: how many places were looked at from all sides."""

    def __init__(self, mesh: Mesh, target: HeadTarget, detect: ViewDetector) -> None:
        self.mesh, self.target, self.detect = mesh, target, detect
        self.rendering = MeshRenderSettings(shading="soft" if has_one_color(mesh) else "unlit", supersampling=1)
        self.second_looks = 0

    def sure(self, alignment: HeadAlignment) -> float:
        """Mean confidence of the landmarks from the front; 0 without a face."""
        try:
            views = self._views(alignment, YAWS[:1], PITCHES[:1], LOOK_SIZE)
        except InvalidInput:  # nothing of it is in view
            return 0.0
        _, confidence, found = self.detect(views)
        return float((confidence * found[:, None]).mean())

    def agreed(self, start: HeadAlignment) -> HeadAlignment | None:
        """The alignment by landmarks on which views from around the start agree."""
        self.second_looks += 1
        alignment, error = start, float("inf")
        for _ in range(ROUNDS):
            try:
                views = self._views(alignment, YAWS, PITCHES, VIEW_SIZE)
                points, confidence, found = self.detect(views)
                seen = Landmarks(points_2d=points, confidence=confidence * found[:, None])
                consensus = find_consensus(views.cameras, seen, CONSENSUS_WIDTH)
                known = consensus.point_weights > 0
                if int(consensus.trusted.sum()) < LEAST_AGREEING or int(known.sum()) < LEAST_POINTS:
                    return None
                alignment, error = _moved(alignment, consensus.points, consensus.point_weights, self.target)
            except InvalidInput:  # no view shows a face, or they contradict each other
                return None
        return alignment if error < MOST_ERROR else None

    def _views(self, alignment: HeadAlignment, yaws: tuple[float, ...], pitches: tuple[float, ...], size: int) -> Views:
        portrait = MeshPortrait(crop_to_view(alignment.apply_to_mesh(self.mesh)), rendering=self.rendering)
        return render_views(portrait, orbit_cameras(list(yaws), list(pitches), size))


def _moved(
    alignment: HeadAlignment, points: Tensor, weights: Tensor, target: HeadTarget
) -> tuple[HeadAlignment, float]:
    """The alignment after the similarity that brings points [68, 3] of weights [68] onto the target's landmarks, and
    their distance over the outer-eye distance (root mean square)."""
    wanted = target.landmarks[:NUM_FACE_LANDMARKS]
    rotation, scale, translation, error = fit_similarity(points, wanted, weights)
    turn, shift = rotation.float(), translation.float()
    place = scale * turn @ alignment.translation + shift
    moved = HeadAlignment(turn @ alignment.rotation, scale * alignment.scale, place, "seen", error)
    return moved, error / float(outer_eye_distance(target.landmarks))

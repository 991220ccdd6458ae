"""What of a portrait's surface no point of the avatar stands for: the parts of it that vanish."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..head_frame import EYE_HEIGHT
from ..meshes import Mesh, face_areas
from ..parts import AvatarPart
from .points import RiggedPoints
from .visibility import visible_faces

LOST_DISTANCE = 0.06
"""World units (22 mm): surface farther from all points is lost; noses and ears of another shape lie closer."""

WARNED_SHARE = 0.01
"""Share of the visible surface; a ring or a strand of hair may go unsaid."""


@dataclasses.dataclass(frozen=True)
class LostSurface:
    """Surface of a portrait with no point near it.

    share: of its visible area.  lowest, highest: y of it, in the world.  voted_skin: share of it that was voted skin,
    for which the body's own points stand.
    """

    share: float
    lowest: float = 0.0
    highest: float = 0.0
    voted_skin: float = 0.0

    def warnings(self) -> tuple[str, ...]:
        """A sentence for the user if a part of the portrait is missing in the avatar, not only a strand of hair."""
        if self.share < WARNED_SHARE:
            return ()
        return (
            f"{100 * self.share:.1f} % of the portrait's visible surface (y {self.lowest:.2f} to {self.highest:.2f}; "
            f"eyes are at {EYE_HEIGHT}) vanishes: no point of the avatar lies within {LOST_DISTANCE} of it. Of that, "
            f"{100 * self.voted_skin:.0f} % was voted skin, for which the body stands, and the body has no such shape: "
            "paint it as hair or clothes (Correct Labels), or take it off the mesh.",
        )


def lost_surface(mesh: Mesh, mesh_parts: np.ndarray, points: RiggedPoints) -> LostSurface:
    """The visible surface of a mesh (parts [F] of its faces) that lies far from all points, also from sparse ones."""
    from scipy.spatial import cKDTree

    seen = visible_faces(mesh).numpy()
    centroids = mesh.vertices[mesh.faces].mean(dim=1).double().numpy()[seen]
    distance, nearest = cKDTree(points.positions.double().numpy()).query(centroids)
    lost = distance > np.maximum(LOST_DISTANCE, 3 * points.spacing.numpy()[nearest])
    areas = face_areas(mesh.vertices, mesh.faces).double().numpy()[seen]
    if not lost.any():
        return LostSurface(0.0)
    height, skin = centroids[lost, 1], np.asarray(mesh_parts)[seen][lost] == AvatarPart.SKIN
    area = areas[lost]
    return LostSurface(
        float(area.sum() / areas.sum()),
        float(height.min()),
        float(height.max()),
        float(area[skin].sum() / max(area.sum(), 1e-30)),
    )

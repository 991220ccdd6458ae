"""How good a fit is, in words and in a close picture: for each feature how far it is off, and where to look.

Limits are round numbers around what was measured: the pack's own people lie within 3 % of the outer-eye distance,
heads of others beyond 6 % had lids beside their eyes.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..body.fit import BodyFit
from ..body.landmarks import outer_eye_distance
from ..cameras import orbit_cameras, project
from ..head_frame import FACE_CENTER
from ..landmarks import CHIN, LEFT_BROW, LEFT_EYE, MOUTH, NOSE, NUM_FACE_LANDMARKS, RIGHT_BROW, RIGHT_EYE
from ..meshes import Mesh
from ..previews import draw_points
from .contours import contour_points
from .mesh import MeshRenderSettings, render_colored_mesh

GOOD, FAIR = 0.03, 0.06
PARTS = {
    "right lids": range(RIGHT_EYE.start, RIGHT_EYE.stop),
    "left lids": range(LEFT_EYE.start, LEFT_EYE.stop),
    "lips": range(MOUTH.start, MOUTH.stop),
    "nose": range(NOSE.start, NOSE.stop),
    "brows": range(RIGHT_BROW.start, LEFT_BROW.stop),
    "chin": range(CHIN - 1, CHIN + 2),
}
CONTOUR_COLOR = (0.05, 0.15, 0.95)
SURFACE_GOOD = 0.02


@dataclasses.dataclass(frozen=True)
class FitVerdict:
    """off: distance of each of `PARTS` to the landmarks, over the outer-eye distance, if there are any.  surface: the
    same of the skin to the mesh, if known.  closed: whether an eye was fitted closed."""

    off: dict[str, float]
    surface: float | None
    closed: bool = False

    def lines(self) -> list[str]:
        """Sentences for the user, the worst first."""
        lines = [
            f"{name} {value:.0%} off: look here"
            for name, value in sorted(self.off.items(), key=lambda item: -item[1])
            if value > FAIR
        ]
        for limit, low, word in ((FAIR, GOOD, "fair"), (GOOD, -1.0, "good")):
            names = [name for name, value in self.off.items() if low < value <= limit]
            if names:
                lines.append(f"{', '.join(names)} within {limit:.0%}: {word}")
        if self.surface is not None:
            word = "good" if self.surface <= SURFACE_GOOD else "fair: look at the close picture"
            lines.append(f"skin {self.surface:.1%} from the surface: {word}")
        if self.closed:
            lines.append("the eyes of the portrait are closed: eyeballs are the body's own")
        return lines


def fit_verdict(fit: BodyFit) -> FitVerdict:
    """How far the features of a fit are from the landmarks that it was drawn to."""
    surface, closed = fit.metrics.get("surface_rms"), bool((fit.parameters.eyelids > 0.5).any())
    if fit.landmarks is None:
        return FitVerdict({}, surface, closed)
    found, weights = fit.landmarks
    fitted = fit.body(fit.parameters).landmarks[0, :NUM_FACE_LANDMARKS]
    distances = (fitted - found).norm(dim=-1) / outer_eye_distance(fitted)
    off = {}
    for name, part in PARTS.items():
        index = [number for number in part if bool(weights[number] > 0)]
        if index:
            off[name] = float(distances[index].median())
    return FitVerdict(off, surface, closed)


def contour_image(fit: BodyFit, mesh: Mesh, size: int = 512) -> Tensor:
    """Two close views [2, size, size, 3] of the mesh in soft light with the fitted contours of lids and lips."""
    cameras = orbit_cameras([0.0, 30.0], [0.0, 0.0], size, target=list(FACE_CENTER), fov_degrees=11.0)
    if mesh.texture is None and mesh.vertex_colors is None:
        mesh = dataclasses.replace(mesh, vertex_colors=torch.full_like(mesh.vertices, 0.7))
    images = render_colored_mesh(mesh, cameras, None, MeshRenderSettings("soft")).images
    points = fit.body(fit.parameters).landmarks[0, :NUM_FACE_LANDMARKS].detach()
    return draw_points(images, project(cameras, contour_points(points))[0], CONTOUR_COLOR)

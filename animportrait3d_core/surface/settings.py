"""How a mesh is refined: the weights of equation A2 and the plan of the optimisation."""

from __future__ import annotations

import dataclasses

from ..errors import InvalidInput

REFINE_PRESETS = ("draft", "paper")
REFERENCE_EDGE = 0.0055  # the authors subdivide down to 0.25 % of the bounding box's diagonal, about 2.2 units


@dataclasses.dataclass(frozen=True)
class RefineSettings:
    """The default is the draft: about a minute on two cores.

    normal_weight, silhouette_weight, consistency_weight: of the three terms; the authors have 10, 1 and 50
    (train_mesh.py; the paper gives none, and its equation A2 has no silhouette term). Silhouettes that weigh more keep
    the surface from drifting along the views when normals are noisy. The last weight is meant for edges of
    `REFERENCE_EDGE`: for others it is scaled by the square of the ratio, because the angle between neighbouring faces
    of one surface grows with their size.
    distance_weight: of the squared distance to the smoothed raw surface. Normals do not say where a surface is: without
    it, what no silhouette shows, like a neck under hair, drifts (positions for the coarse shape, normals for the fine
    one: Nehab et al. 2005). The authors have none.
    raw_weight: of the smoothed raw surface's own normals in the target, beside 1 for the estimated ones. Both are
    wrong, the raw surface by noise and a network by blur, so that their mean is better than either; an estimator that
    is much better than the raw surface wants 0, as the authors have.
    iterations, batch: steps, and views rendered in each.  image_size: pixels per side they are rendered at, or the
    views' own size if that is smaller.
    edge_lengths: world units; the mesh is remeshed to each in turn, for an equal share of the iterations.
    smoothing_steps: passes of Laplacian smoothing before the first step. Each reaches about one edge of the raw surface
    further: the authors' 16, on a coarser grid than theirs, take the nose off a face.
    smoothness: lambda of the preconditioner.  lr: largest step of a preconditioned variable, world units;
    falls to a tenth along a cosine.
    face_budget: faces at the end at most.  min_piece_share: smaller separate pieces are dropped, as a share of the
    largest one's faces.  rotation: "camera_to_world", or the authors' transposed "legacy".
    """

    normal_weight: float = 10.0
    silhouette_weight: float = 5.0
    consistency_weight: float = 50.0
    distance_weight: float = 5000.0
    raw_weight: float = 1.0
    iterations: int = 300
    batch: int = 4
    image_size: int = 256
    edge_lengths: tuple[float, ...] = (0.024, 0.015)
    smoothing_steps: int = 2
    smoothness: float = 10.0
    lr: float = 0.03
    face_budget: int = 30_000
    min_piece_share: float = 0.05
    rotation: str = "camera_to_world"

    def __post_init__(self) -> None:
        where = "RefineSettings"
        weights = ("normal_weight", "silhouette_weight", "consistency_weight", "distance_weight", "raw_weight")
        for name in (*weights, "smoothness"):
            if not 0 <= getattr(self, name) < 1e6:
                raise InvalidInput(f"{where}: {name} is {getattr(self, name)}, expected 0 to 1e6.")
        for name, low in (("iterations", 1), ("batch", 1), ("image_size", 16), ("smoothing_steps", 0)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{where}: {name} is {getattr(self, name)}, expected at least {low}.")
        if not self.edge_lengths or min(self.edge_lengths) <= 0:
            raise InvalidInput(f"{where}: edge_lengths is {self.edge_lengths}, expected one or more lengths above 0.")
        if not self.lr > 0:
            raise InvalidInput(f"{where}: lr is {self.lr}, expected more than 0.")
        if self.face_budget < 100:
            raise InvalidInput(f"{where}: face_budget is {self.face_budget}, expected at least 100.")
        if not 0 <= self.min_piece_share <= 1:
            raise InvalidInput(f"{where}: min_piece_share is {self.min_piece_share}, expected 0 to 1.")

    @classmethod
    def preset(cls, name: str) -> RefineSettings:
        """The settings behind a name of `REFINE_PRESETS`."""
        if name == "draft":
            return cls()
        if name == "paper":
            return cls(
                iterations=2400, image_size=512, edge_lengths=(0.024, 0.015, 0.010), smoothing_steps=16,
                silhouette_weight=1.0, distance_weight=0.0, raw_weight=0.0, face_budget=60_000,
            )  # fmt: skip
        raise InvalidInput(f"RefineSettings: '{name}' is unknown, expected one of {', '.join(REFINE_PRESETS)}.")

"""All metrics of one avatar at once, as `animportrait3d evaluate` reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..body.landmarks import Detector
from ..progress import Stages, stage_of
from .avatar import EVALUATION_SIZE, fit_landmark_error, motion_coverage, portrait_likeness
from .truth import evaluate_against_identity

if TYPE_CHECKING:
    from ..avatar import RiggedAvatar
    from ..embedded.identities import Identity
    from ..portrait.protocol import Portrait


def evaluate_avatar(
    avatar: RiggedAvatar,
    portrait: Portrait | None = None,
    identity: Identity | None = None,
    size: int = EVALUATION_SIZE,
    detector: Detector | None = None,
    stages: Stages | None = None,
) -> dict[str, float]:
    """The measures of docs/conventions.md that the arguments allow.

    portrait: for `psnr_portrait` and `ssim_portrait`.  identity: the person of the embedded world behind it, for what
    is measured against the truth, `landmark_error_fit` included.  detector: for `landmark_error`.  size: pixels a side.
    stages: asked for the progress of `coverage` and of `held-out frames`.  `coverage` of the stress clip is
    always measured.
    """
    from ..animation.clips import stress_clip
    from ..portrait.alignment import HeadAlignment

    metrics: dict[str, float] = {"gaussians": len(avatar)}
    if portrait is not None:
        metrics |= portrait_likeness(avatar, portrait, size)
    motion = stress_clip(avatar.body, avatar.parameters)
    metrics |= motion_coverage(avatar, motion, size, progress=stage_of(stages, "coverage"))
    if identity is not None:
        from ..embedded.identities.export import true_landmarks

        stored = avatar.metadata.get("portrait_alignment")
        alignment = HeadAlignment.from_json(stored) if stored else None
        metrics |= evaluate_against_identity(
            avatar, identity, alignment, size, detector, progress=stage_of(stages, "held-out frames")
        )
        landmarks = true_landmarks(identity)
        landmarks = landmarks if alignment is None else alignment.apply(landmarks)
        metrics["landmark_error_fit"] = fit_landmark_error(avatar.body, avatar.parameters, landmarks)
    return metrics

"""All metrics of one avatar at once, as `animportrait3d evaluate` reports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from .avatar import EVALUATION_SIZE, fit_landmark_error, motion_coverage, portrait_likeness
from .truth import Detector, evaluate_against_identity

if TYPE_CHECKING:
    from ..avatar import RiggedAvatar
    from ..embedded.identities import Identity
    from ..portrait.protocol import Portrait

Progress = Callable[[int, int, str], None]


def evaluate_avatar(
    avatar: RiggedAvatar,
    portrait: Portrait | None = None,
    identity: Identity | None = None,
    size: int = EVALUATION_SIZE,
    detector: Detector | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The metrics of design section 13 that the arguments allow.

    portrait: for `psnr_portrait` and `ssim_portrait`.  identity: the person of the embedded world behind it, for what
    is measured against the truth, `landmark_error_fit` included.  detector: for `landmark_error`.  size: pixels a side.
    progress: called as (step, steps, stage).  `coverage` of the stress clip is always measured.
    """
    from ..animation.clips import stress_clip
    from ..portrait.alignment import HeadAlignment

    def stage(name: str) -> Callable[[int, int, Tensor | None], None]:
        return lambda step, steps, _: progress(step, steps, name) if progress is not None else None

    metrics: dict[str, float] = {"gaussians": len(avatar)}
    if portrait is not None:
        metrics |= portrait_likeness(avatar, portrait, size)
    motion = stress_clip(avatar.body, avatar.parameters)
    metrics |= motion_coverage(avatar, motion, size, progress=stage("coverage"))
    if identity is not None:
        from ..embedded.identities.export import true_landmarks

        stored = avatar.metadata.get("portrait_alignment")
        alignment = HeadAlignment.from_json(stored) if stored else None
        metrics |= evaluate_against_identity(
            avatar, identity, alignment, size, detector, progress=stage("held-out frames")
        )
        landmarks = true_landmarks(identity)
        landmarks = landmarks if alignment is None else alignment.apply(landmarks)
        metrics["landmark_error_fit"] = fit_landmark_error(avatar.body, avatar.parameters, landmarks)
    return metrics

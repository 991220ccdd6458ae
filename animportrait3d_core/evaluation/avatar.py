"""What is measured on a finished avatar: likeness at rest, holes in motion, landmarks (the report's metrics)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras, view_preset
from ..landmarks import NUM_FACE_LANDMARKS
from ..progress import Progress
from ..regions import SHOWN_FACE_REGIONS
from ..render import rasterize_mesh, render_gaussians
from ..similarity import psnr, ssim
from .metrics import coverage, frame_coverage, landmark_error

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar import RiggedAvatar
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters
    from ..portrait.protocol import Portrait

EVALUATION_SIZE = 256

LEAST_PSNR_PORTRAIT, LEAST_COVERAGE = 20.0, 0.8
"""Below these an avatar is bad, not only coarse: drafts of the shipped graphs reach 24 dB and 0.95."""


def portrait_likeness(
    avatar: RiggedAvatar, portrait: Portrait, size: int = EVALUATION_SIZE, progress: Progress | None = None
) -> dict[str, float]:
    """`psnr_portrait` and `ssim_portrait`: the resting avatar against the portrait's own renders, on white, at the
    held-out cameras (12 views in none of the training sets). The portrait is rendered at its full quality, so that the
    numbers do not depend on how coarsely it was sampled for training."""
    from ..avatar import pose_avatar, render_avatar_views
    from ..portrait.views import render_views

    cameras, white = view_preset("heldout", size), torch.ones(3)
    truth = render_views(portrait.at_full_quality(), cameras, white, progress)
    views = render_avatar_views(pose_avatar(avatar, avatar.parameters), cameras, white)
    return {"psnr_portrait": psnr(views.images, truth.images), "ssim_portrait": ssim(views.images, truth.images)}


def doubts(metrics: Mapping[str, float]) -> list[str]:
    """What is bad by its own numbers, as sentences for the user; empty for a usable avatar.

    >>> doubts({"psnr_portrait": 28.0, "coverage": 0.97})
    []
    """
    found = []
    if metrics.get("psnr_portrait", LEAST_PSNR_PORTRAIT) < LEAST_PSNR_PORTRAIT:
        found.append(
            f"psnr_portrait is {metrics['psnr_portrait']:.1f} dB, expected at least {LEAST_PSNR_PORTRAIT:.0f}: at rest "
            "the avatar does not look like its portrait. Compare both in the contact sheet, then look at parts and fit."
        )
    if metrics.get("coverage", LEAST_COVERAGE) < LEAST_COVERAGE:
        found.append(
            f"coverage is {metrics['coverage']:.2f}, expected at least {LEAST_COVERAGE}: the face shows holes in the "
            "worst frame of the motion. Take more points, or train longer."
        )
    return found


def motion_coverage(
    avatar: RiggedAvatar, motion: Motion, size: int = EVALUATION_SIZE, progress: Progress | None = None
) -> dict[str, float]:
    """`coverage`: mean alpha inside the eroded face mask in the worst frame; `coverage_mean` over all frames.

    The mask is the posed body's face region, lids, eyes and mouth included, where nothing else of the body hides it.
    """
    from ..avatar import AvatarRig

    rig = AvatarRig(avatar)
    camera = orbit_cameras([0.0], [0.0], size)
    alphas, masks = [], []
    for index in range(len(motion)):
        parameters = motion.parameters[index]
        with torch.no_grad():
            posed = rig.body(parameters)
            image = render_gaussians(rig.pose(parameters, posed), camera)
        alphas.append(image.alpha)
        masks.append(face_mask(avatar.body, posed.vertices[0], camera))
        if progress is not None:
            progress(index + 1, len(motion), None)
    alpha, mask = torch.cat(alphas), torch.cat(masks)
    return {"coverage": coverage(alpha, mask), "coverage_mean": float(frame_coverage(alpha, mask).nanmean())}


def face_mask(body: BodyModel, vertices: Tensor, cameras: Cameras) -> Tensor:
    """Where the body with posed vertices [V, 3] shows its face, [B, H, W] bool; scalp, ears, neck and torso are not
    part of it."""
    shown = torch.zeros(len(body.faces), dtype=torch.bool)
    for region in SHOWN_FACE_REGIONS:
        shown |= body.assets.face_regions[region]
    face_id = rasterize_mesh(vertices, body.faces_outward, cameras).face_id
    return (face_id >= 0) & shown[face_id.clamp_min(0)]


def fit_landmark_error(body: BodyModel, parameters: BodyParameters, true_landmarks: Tensor) -> float:
    """`landmark_error_fit`: mean distance of the body's 68 landmarks to the true ones [68, 3] (world), over the true
    distance of the outer eye corners."""
    with torch.no_grad():
        landmarks = body(parameters).landmarks[:, :NUM_FACE_LANDMARKS]
    return landmark_error(landmarks, true_landmarks[None, :NUM_FACE_LANDMARKS])

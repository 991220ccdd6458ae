"""The authors' face voting, as their code does it: binary votes of the views from level and above, dilated masks.

Differences to `fixed`, all of them theirs: a face has one vote per view however few of its pixels a class covers (+1
for the class, -0.5 for the other one), the eight views from below are not asked, faces without votes become clothes,
hair grows by one ring of faces, and nothing is smoothed. Their votes of pixels beside the mesh, which went to the last
face by an index of -1, are left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput
from ..meshes import Mesh
from ..parts import SKIN_CLASSES, AvatarPart
from ..render import rasterize_mesh
from .labels import ViewLabels

OTHER_CLASS_PENALTY = 0.5
MIN_CENTER = -1e-4


def asked_views(cameras: Cameras) -> list[int]:
    """Views whose camera is not below the origin's height: the authors' pitch of at most 90 degrees."""
    heights = cameras.camera_centers[:, 1]
    views = (heights >= MIN_CENTER).nonzero()[:, 0].tolist()
    if not views:
        raise InvalidInput(
            f"revote_faces: the legacy profile asks only views from level or above, and all {len(cameras)} cameras "
            f"are below (heights {float(heights.min()):.2f} to {float(heights.max()):.2f}); use the profile 'fixed'."
        )
    return views


def legacy_votes(mesh: Mesh, labels: ViewLabels, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Votes [F, 2] for hair and face, and which faces any of the asked views sees [F] bool.

    cameras: at the size of the labels, where the authors rasterise as well.
    """
    votes = torch.zeros(len(mesh.faces), 2)
    seen = torch.zeros(len(mesh.faces), dtype=torch.bool)
    is_face, is_hair = _network_masks(labels)
    for view in asked_views(cameras):
        face_id = rasterize_mesh(mesh.vertices, mesh.faces, cameras[view]).face_id[0]
        hit = face_id >= 0
        seen[face_id[hit]] = True
        for own, other, mask in ((1, 0, is_face[view]), (0, 1, is_hair[view])):
            voted = face_id[mask & hit].unique()
            votes[voted, own] += 1.0
            votes[voted, other] -= OTHER_CLASS_PENALTY
    return votes, seen


def _network_masks(labels: ViewLabels) -> tuple[Tensor, Tensor]:
    """Masks [B, H, W] of face and hair, each as its own network sees it: with a separate hair mask, hair is what that
    says alone, and a pixel that both claim is in both."""
    parts = labels if labels.beneath is None else dataclasses.replace(labels, labels=labels.beneath)
    is_face = torch.stack([parts.mask(name) for name in SKIN_CLASSES]).any(dim=0)
    return is_face, labels.mask("hair") if labels.hair_mask is None else labels.hair_mask


def legacy_parts(mesh: Mesh, votes: Tensor) -> tuple[Tensor, int]:
    """Part [F] uint8 of each face from the votes [F, 2], and how many faces the authors would have taken twice.

    Hair: faces whose corners all lie in the hair mask grown by one ring. Clothes: faces with no corner in the hair or
    face mask. The two overlap in the authors' files; here such faces are hair. What is neither is skin.
    """
    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    hair, face = (_corner_mask(faces, (votes[:, column] > 0).numpy(), count) for column in (0, 1))
    grown = _corner_mask(faces, hair[faces].any(axis=1), count)
    in_hair = grown[faces].all(axis=1)
    in_clothes = (~hair & ~face)[faces].all(axis=1)
    parts = np.full(len(faces), AvatarPart.SKIN, dtype=np.uint8)
    parts[in_clothes] = AvatarPart.CLOTHES
    parts[in_hair] = AvatarPart.HAIR
    return torch.from_numpy(parts), int((in_hair & in_clothes).sum())


def _corner_mask(faces: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """Vertices [count] bool that are a corner of the chosen faces [F] bool."""
    mask = np.zeros(count, dtype=bool)
    mask[faces[chosen].reshape(-1)] = True
    return mask

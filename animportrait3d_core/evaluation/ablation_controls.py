"""Controls of the ablation: what the second stage must not gain by itself, and the most that it could gain.

Negative: a network of random weights, and conditions of another pose. Positive: the true renders of the identity in
place of the guidance's edits.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..avatar.model import RiggedAvatar
from ..body.parameters import BodyParameters
from ..diffusion.diffusers_adapter import DiffusersGuidance
from ..diffusion.sampling import SamplingSettings
from ..fingerprints import fingerprint
from ..optimization.dynamic import RegionPass
from ..optimization.edits import EditMaker, EditSettings
from ..optimization.region_guidance import RegionGuidance
from ..optimization.region_scenes import RegionScenes
from ..optimization.scenes import Scene, Scenes
from ..optimization.stage import LearningRates

if TYPE_CHECKING:
    from ..embedded.identities import Identity

_ELSEWHERE = 1_000_000
"""Steps further on, where the conditions of another pose come from: no stage is that long."""


def forget_everything(guidance: DiffusersGuidance, seed: int = 0) -> DiffusersGuidance:
    """A copy whose U-Net and ControlNet have weights drawn anew: as they were before all training."""
    empty = copy.deepcopy(guidance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for network in (empty.unet, empty.controlnet):
            for module in () if network is None else network.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
    return empty


class OtherPoses:
    """Scenes whose condition maps show the same regions in the pose of another scene."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self.fingerprint = fingerprint(("other poses", scenes.fingerprint))

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step."""
        scene = self._scenes.at(step, seed)
        if scene.conditions is None or scene.rows is None:
            return scene
        conditions, missing, ahead = scene.conditions.clone(), set(range(len(scene.rows))), 0
        while missing:
            other = self._scenes.at(step + _ELSEWHERE + ahead, seed)
            for k in sorted(missing):
                found = [] if other.rows is None else (other.rows == scene.rows[k]).nonzero()[:, 0].tolist()
                if found and other.conditions is not None:
                    conditions[k] = other.conditions[found[k % len(found)]]
                    missing.remove(k)
            ahead += 1
        return dataclasses.replace(scene, conditions=conditions)


class TrueEdits(EditMaker):
    """In place of edits, renders of the person whom the portrait shows, in the same poses and cameras."""

    def __init__(
        self, avatar: RiggedAvatar, scenes: RegionScenes, asked: RegionGuidance, settings: EditSettings, seed: int,
        identity: Identity,
    ) -> None:  # fmt: skip
        from ..embedded.identities import prepare_identity, true_parameters

        super().__init__(avatar, scenes, asked, settings, seed)
        self._identity, self._prepared = identity, prepare_identity(identity)
        self._own_rest, self._true_rest = avatar.parameters, true_parameters(identity)

    def key(self) -> dict[str, str]:
        """See `EditMaker`."""
        return {**super().key(), "truth": fingerprint(self._identity)}

    def _edit(self, scenes: Sequence[Scene], images: Tensor) -> Tensor:
        from ..embedded.identities import IdentityRenderSettings, render_identity

        settings, pictures = IdentityRenderSettings(condition=False), []
        for scene in scenes:
            assert scene.parameters is not None  # `RegionScenes` always poses
            for pose in range(len(scene.parameters)):
                state = in_the_same_state(scene.parameters[pose], self._own_rest, self._true_rest)
                cameras = scene.cameras[scene.cameras_of(pose)]
                pictures.append(render_identity(self._prepared, state, cameras, settings).rgb)
        return torch.cat(pictures).to(images)


def in_the_same_state(state: BodyParameters, rest: BodyParameters, other_rest: BodyParameters) -> BodyParameters:
    """A pose of one body on another one: expression, jaw, gaze and lids as they are, turns relative to the rest."""
    return other_rest.replace(
        expression=state.expression,
        jaw_pose=state.jaw_pose,
        left_eye_pose=state.left_eye_pose,
        right_eye_pose=state.right_eye_pose,
        eyelids=state.eyelids,
        neck_pose=other_rest.neck_pose + state.neck_pose - rest.neck_pose,
        head_pose=other_rest.head_pose + state.head_pose - rest.head_pose,
    )


def towards_truth(one: RegionPass) -> RegionPass:
    """A pass that follows pictures, for `TrueEdits`: as many steps, on as many scenes, at the usual learning rates:
    nothing speaks for care with the truth."""
    count = one.asks.scenes if isinstance(one.asks, EditSettings) else one.stage.iterations
    stage = dataclasses.replace(one.stage, lrs=LearningRates())
    asks = EditSettings(count, SamplingSettings(), 0.8, perceptual_weight=0.2)
    return dataclasses.replace(one, stage=stage, asks=asks)

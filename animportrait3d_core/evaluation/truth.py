"""An avatar against the true renders of the identity behind its portrait, in the embedded world.

The identity is used here and in tests only: no step of the method sees it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..body.landmarks import Detector
from ..cameras import Cameras, project
from ..errors import InvalidInput
from ..landmarks import NUM_FACE_LANDMARKS
from ..parts import AvatarPart
from ..progress import Progress
from ..render import rasterize_mesh, render_gaussians
from ..similarity import SSIM_WINDOW, psnr, ssim_map
from .avatar import EVALUATION_SIZE
from .expression import expression_distance, regress_expression
from .heldout import HeldOutFrame, held_out_frames
from .metrics import iou, landmark_error, landmark_error_splat, nearest_splats

if TYPE_CHECKING:
    from ..avatar import RiggedAvatar
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters
    from ..embedded.identities import Identity, PreparedIdentity
    from ..portrait.alignment import HeadAlignment

TRUTH_REGIONS = ("face", "eyes", "mouth")
TRUTH_LABELS = ("sclera", "iris", "teeth", "lips")

_EYES = ("eye_region", "left_eyeball", "right_eyeball")
_MOUTH = ("lips", "teeth", "mouth_interior")


@dataclasses.dataclass(frozen=True)
class FramePair:
    """One held-out frame of the avatar and of the truth.

    image, true_image: [H, W, 3] over white.  regions: [3, H, W] bool of the truth, see `TRUTH_REGIONS`.  labels,
    true_labels: [4, H, W] bool, see `TRUTH_LABELS`.  landmarks: [68, 2] pixels of the avatar's body.  splats,
    body_landmarks: [68, 3] the Gaussians that follow the landmarks, and the landmarks.
    """

    image: Tensor
    true_image: Tensor
    regions: Tensor
    labels: Tensor
    true_labels: Tensor
    landmarks: Tensor
    splats: Tensor
    body_landmarks: Tensor


def evaluate_against_identity(
    avatar: RiggedAvatar,
    identity: Identity,
    alignment: HeadAlignment | None = None,
    size: int = EVALUATION_SIZE,
    detector: Detector | None = None,
    frames: Sequence[HeldOutFrame] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The measures of docs/conventions.md that need the truth, over the held-out set.

    alignment: how the portrait was moved into the head frame, if it was.  detector: images [B, H, W, 3] -> (points
    [B, 68, 2] pixels, confidence [B, 68], found [B] bool), for `landmark_error`.  Returns `psnr_` and `ssim_` of
    `image`, `face`, `eyes`, `eyes_closed` and `mouth`, `psnr_flat_` of those regions (what a fill with their mean true
    colour would reach), `landmark_error_splat`, `label_iou`, and with a detector
    `landmark_error`, `expression_error` (`expression.py`) and `faces_missed` (a share of the frames).
    """
    frames = held_out_frames() if frames is None else tuple(frames)
    if not frames:
        raise InvalidInput("evaluate_against_identity: no frames given, expected at least one.")
    pairs = list(frame_pairs(avatar, identity, alignment, frames, size, progress))
    metrics = _likeness(frames, pairs)
    cameras = [frame.camera(size) for frame in frames]
    metrics["landmark_error_splat"] = sum(
        landmark_error_splat(pair.splats[None], pair.body_landmarks[None], camera)
        for pair, camera in zip(pairs, cameras)
    ) / len(pairs)
    metrics["label_iou"] = label_iou(
        torch.stack([pair.labels for pair in pairs]), torch.stack([pair.true_labels for pair in pairs])
    )
    return metrics | ({} if detector is None else _detected(avatar, frames, cameras, pairs, detector))


def frame_pairs(
    avatar: RiggedAvatar,
    identity: Identity,
    alignment: HeadAlignment | None,
    frames: Sequence[HeldOutFrame],
    size: int,
    progress: Progress | None,
) -> Iterator[FramePair]:
    """Every frame of the avatar and of the identity behind it; parameters as in `evaluate_against_identity`."""
    from ..avatar import AvatarRig
    from ..embedded.identities import IdentityRenderSettings, prepare_identity, render_identity, true_parameters

    prepared, rest = prepare_identity(identity), true_parameters(identity)
    settings = IdentityRenderSettings(condition=False)
    codes = splat_labels(avatar)
    rig = AvatarRig(avatar)
    at_rest = rig.body(avatar.parameters)
    followed = nearest_splats(rig.pose(avatar.parameters, at_rest).means, at_rest.landmarks[0, :NUM_FACE_LANDMARKS])
    white = torch.ones(3)
    for index, frame in enumerate(frames):
        camera, state, true_state = frame.camera(size), frame.pose(avatar.parameters), frame.pose(rest)
        posed = rig.body(state)
        gaussians = rig.pose(state, posed)
        with torch.no_grad():
            rendered = render_gaussians(gaussians, camera, background=white, features=codes)
        file_camera = camera if alignment is None else camera_before(alignment, camera)
        truth = render_identity(prepared, true_state, file_camera, settings).rgb[0]
        regions, labels = true_masks(prepared, true_state, file_camera)
        landmarks = posed.landmarks[0, :NUM_FACE_LANDMARKS]
        image = rendered.color[0].clamp(0, 1)
        assert rendered.features is not None  # codes were handed in
        yield FramePair(
            image, truth, regions, (rendered.features[0] > 0.5).permute(2, 0, 1), labels,
            project(camera, landmarks)[0][0], gaussians.means[followed], landmarks,
        )  # fmt: skip
        if progress is not None:
            progress(index + 1, len(frames), torch.cat([image, truth], dim=1))


def _likeness(frames: Sequence[HeldOutFrame], pairs: Sequence[FramePair]) -> dict[str, float]:
    """`psnr_` and `ssim_` of whole pictures and of regions, each over the frames that it is about."""
    metrics: dict[str, float] = {}
    chosen = {
        "image": (None, lambda frame: True),
        "face": ("face", lambda frame: True),
        "eyes": ("eyes", lambda frame: max(frame.lids) <= 0.5),
        "eyes_closed": ("eyes", lambda frame: min(frame.lids) >= 0.95),
        "mouth": ("mouth", lambda frame: frame.jaw > 0),
    }
    for name, (region, wanted) in chosen.items():
        kept = [pair for frame, pair in zip(frames, pairs) if wanted(frame)]
        if not kept:
            continue
        images, truth = (torch.stack([getattr(pair, field) for pair in kept]) for field in ("image", "true_image"))
        if region is None:
            mask = torch.ones(images.shape[:3])
        else:
            mask = torch.stack([pair.regions[TRUTH_REGIONS.index(region)] for pair in kept]).float()
        metrics[f"psnr_{name}"] = psnr(images, truth, mask)
        if region is not None:
            metrics[f"psnr_flat_{name}"] = psnr(mean_fill(truth, mask), truth, mask)
        metrics[f"ssim_{name}"] = masked_ssim(images, truth, mask)
    return metrics


def _detected(
    avatar: RiggedAvatar,
    frames: Sequence[HeldOutFrame],
    cameras: Sequence[Cameras],
    pairs: Sequence[FramePair],
    detector: Detector,
) -> dict[str, float]:
    """What a detector finds on the renders against what drives them."""
    points, confidence, found = detector(torch.stack([pair.image for pair in pairs]))
    metrics = {"faces_missed": float((~found).float().mean())}
    if not bool(found.any()):
        return metrics
    wanted = torch.stack([pair.landmarks for pair in pairs])
    metrics["landmark_error"] = landmark_error(points[found], wanted[found])
    rest = avatar.parameters.expression[0]
    seen = found.nonzero()[:, 0].tolist()
    states = [frames[index].pose(avatar.parameters) for index in seen]
    regressed = [
        regress_expression(avatar.body, state, rest, cameras[index], points[index], confidence[index])
        for index, state in zip(seen, states)
    ]
    driving = torch.stack([state.expression[0] for state in states])
    metrics["expression_error"] = expression_distance(torch.stack(regressed), driving)
    return metrics


def mean_fill(images: Tensor, mask: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] of one colour each: the mean of `images` inside the mask [B, H, W], 0 where it is empty.

    >>> picture = torch.tensor([[[[0.0, 0.2, 0.4], [1.0, 0.4, 0.6], [9.0, 9.0, 9.0]]]])
    >>> [round(value, 3) for value in mean_fill(picture, torch.tensor([[[1.0, 1.0, 0.0]]]))[0, 0, 2].tolist()]
    [0.5, 0.3, 0.5]
    """
    weight = mask[..., None]
    colors = (images * weight).sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True).clamp_min(1e-9)
    return colors.expand_as(images)


def masked_ssim(images: Tensor, reference: Tensor, mask: Tensor) -> float:
    """Structural similarity averaged over windows whose centre lies in the mask [B, H, W]; images [B, H, W, 3]."""
    border = SSIM_WINDOW // 2
    similarity = ssim_map(images.double(), reference.double(), border="crop").mean(-1)
    weight = mask[:, border:-border, border:-border].double()
    if float(weight.sum()) <= 0:
        raise InvalidInput("masked_ssim: the mask is empty inside the border of half a window.")
    return float((similarity * weight).sum() / weight.sum())


def label_iou(labels: Tensor, reference: Tensor) -> float:
    """Mean over the labels of the intersection over union of masks [T, L, H, W] bool over all frames at once.

    Labels that occur neither here nor there are left out.

    >>> here = torch.tensor([[[[True, True]], [[False, False]]]])
    >>> there = torch.tensor([[[[True, False]], [[False, False]]]])
    >>> label_iou(here, there)
    0.5
    """
    scores = [
        iou(labels[:, index], reference[:, index])
        for index in range(labels.shape[1])
        if bool((labels[:, index] | reference[:, index]).any())
    ]
    if not scores:
        raise InvalidInput("label_iou: none of the labels occurs in any frame, here or in the truth.")
    return sum(scores) / len(scores)


def splat_labels(avatar: RiggedAvatar) -> Tensor:
    """Label [N, 4] one-hot of each Gaussian (none for most), by the body face it is bound to; see `TRUTH_LABELS`."""
    return _face_labels(avatar.body)[avatar.binding].float() * _is_body(avatar)[:, None]


def _is_body(avatar: RiggedAvatar) -> Tensor:
    """1 where a Gaussian belongs to the body itself: hair and clothes are bound to its faces but are no parts of it."""
    return ((avatar.part_id != AvatarPart.HAIR) & (avatar.part_id != AvatarPart.CLOTHES)).float()


def _face_labels(body: BodyModel) -> Tensor:
    """Labels [F, 4] bool of the body's faces."""
    regions = body.assets.face_regions
    balls = regions["left_eyeball"] | regions["right_eyeball"]
    return torch.stack([balls & ~regions["iris"], regions["iris"], regions["teeth"], regions["lips"]], dim=1)


def true_masks(prepared: PreparedIdentity, state: BodyParameters, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Regions [3, H, W] and labels [4, H, W], bool, of what the identity shows at the pixels' centres."""
    from ..embedded.identities.rendering import pose_figure
    from ..embedded.mannequin import build_mannequin

    figure, body = prepared.figure, build_mannequin()
    vertices = torch.from_numpy(pose_figure(figure, state)).float()
    face_id = rasterize_mesh(vertices, torch.from_numpy(figure.faces), camera).face_id[0]
    on_body = (face_id >= 0) & (face_id < figure.num_body_faces)
    regions = {name: torch.from_numpy(mask) for name, mask in body.face_regions.items()}
    shown = {name: on_body & mask[face_id.clamp(0, len(mask) - 1)] for name, mask in regions.items()}
    eyes = torch.stack([shown[name] for name in _EYES]).any(0)
    mouth = torch.stack([shown[name] for name in _MOUTH]).any(0)
    balls = shown["left_eyeball"] | shown["right_eyeball"]
    labels = torch.stack([balls & ~shown["iris"], shown["iris"], shown["teeth"], shown["lips"]])
    return torch.stack([shown["face"] | eyes | mouth, eyes, mouth]), labels


def camera_before(alignment: HeadAlignment, camera: Cameras) -> Cameras:
    """The camera that sees a subject in its file's frame as `camera` sees it in the head frame, pixel by pixel.

    head = s R file + t, so that camera coordinates, up to the scale s that no picture shows, are
    (R_c R) file + (R_c t + t_c) / s.
    """
    matrix = camera.world_to_camera.double().clone()
    rotation, offset = matrix[:, :3, :3].clone(), matrix[:, :3, 3].clone()
    matrix[:, :3, :3] = rotation @ alignment.rotation.double()
    matrix[:, :3, 3] = (rotation @ alignment.translation.double() + offset) / alignment.scale
    return dataclasses.replace(camera, world_to_camera=matrix.to(camera.world_to_camera.dtype))

"""The 68 landmarks of faces in pictures: found coarsely in the whole picture, then again and again in a cut-out.

The last cut-out of the face is looked at both ways round; then, where a surface is known, each eye and the mouth are
looked at by themselves by networks that have learned to. Heatmaps are read by their expectation (soft-argmax: Sun et
al., Integral Human Pose Regression, ECCV 2018).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..landmarks import LEFT_EYE, MIRRORED_LANDMARKS, MOUTH, NUM_FACE_LANDMARKS, RIGHT_EYE
from ..progress import Progress, may_stop
from .crops import Crops, cut_out, points_from_crop, whole_images
from .files import ImageNetwork
from .predict import check_images, mirror_signs, model_input, seen_pixels

FACE_MARGIN = 1.6
"""Side of a face's cut-out over the larger extent of its 68 points."""

PASSES = 3
"""The whole picture, a first cut-out from the coarse points, and a second from better ones, both ways round."""

ONE_WAY, IN_THE_MIRROR, BOTH_WAYS = (False,), (True,), (False, True)
"""Whether each of a look's answers is the one to the mirrored cut-out."""


@dataclasses.dataclass(frozen=True)
class CloseLook:
    """A part of the face that is looked at in a cut-out of its own, where it is several times as wide as in the face's.

    points: the landmarks of the part, which alone are taken from this look.  margin: side of the cut-out over the
    larger extent of the points.  ways: one of the tuples above.  share: of this look in the points, the rest is the
    face's.
    """

    points: slice
    margin: float
    ways: tuple[bool, ...]
    share: float


# Left eyes are shown as right ones: nothing in a picture of one eye says reliably which it is. A mouth alone, among
# beard and folds, is sometimes taken for something else; together with the face's look it is better than either.
CLOSE_LOOKS = (
    CloseLook(RIGHT_EYE, 2.2, ONE_WAY, 1.0),
    CloseLook(LEFT_EYE, 2.2, IN_THE_MIRROR, 1.0),
    CloseLook(MOUTH, 1.8, BOTH_WAYS, 0.5),
)

_BATCH = 16
_MIN_SIDE = 8.0


def log_shares(heatmaps: Tensor) -> Tensor:
    """Logarithm [B, N, H, W] float32 of the softmax of each heatmap of logits."""
    # Contiguous first: the softmax of maps that are stored channels last would copy them several times.
    return heatmaps.float().contiguous().flatten(2).log_softmax(-1).view(heatmaps.shape)


def expected_points(logs: Tensor) -> Tensor:
    """Pixels [B, N, 2] (x, y; centres at +0.5): the mean place under the `log_shares` [B, N, H, W]."""
    shares = logs.exp()
    columns = torch.arange(logs.shape[-1], device=logs.device) + 0.5
    rows = torch.arange(logs.shape[-2], device=logs.device) + 0.5
    return torch.stack([(shares.sum(2) * columns).sum(-1), (shares.sum(3) * rows).sum(-1)], -1)


def face_crops(points: Tensor, margin: float = FACE_MARGIN) -> Crops:
    """Upright squares around faces, or parts of them, with landmarks [B, N, 2]."""
    low, high = points.amin(dim=1), points.amax(dim=1)
    sides = (high - low).amax(dim=1).clamp_min(_MIN_SIDE) * margin
    return Crops((low + high) / 2, sides, torch.zeros_like(sides))


def detect_landmarks(
    network: ImageNetwork, images: Tensor, progress: Progress | None = None, normals: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks of the face in each picture.

    images: [B, H, W, 3] in 0..1, at most one face each.  normals: [B, H, W, 3] of the surface that they show
    (`Views.normals`), for networks that see it. With them eyes and mouth are looked at closely by networks that can:
    without, in photographs and renders of volumes, a close look shows mostly blur.
    Returns pixels [B, 68, 2] (iBUG order, the subject's right first), confidence [B, 68] in 0..1 (how surely a point is
    visible), found [B] bool. Where no face is found the confidence is 0 and the points are only the network's guess.
    Raises `InvalidInput` for another role, wrong shapes, or values that are not finite.
    """
    check_images("detect_landmarks", network, "landmarks", images)
    pixels = seen_pixels("detect_landmarks", network, images, normals)
    points, confidence = (
        images.new_zeros(len(images), NUM_FACE_LANDMARKS, 2),
        images.new_zeros(len(images), NUM_FACE_LANDMARKS),
    )
    found = torch.zeros(len(images), dtype=torch.bool)
    closely = network.looks_closely and normals is not None
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        seen = pixels[part].permute(0, 3, 1, 2).float()
        points[part], confidence[part], found[part] = _detect(network, seen, closely)
        if progress is not None:
            progress(min(start + _BATCH, len(images)), len(images), None)
    return points, confidence, found


def _detect(network: ImageNetwork, pixels: Tensor, closely: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, height, width = pixels.shape
    crops = whole_images(batch, height, width)
    found = torch.ones(batch, dtype=torch.bool)
    limit = torch.tensor([width, height], dtype=torch.float32)
    for step in range(PASSES):
        last = step + 1 == PASSES
        may_stop()
        points, surely = _look(network, pixels, crops, BOTH_WAYS if last else ONE_WAY)
        found &= surely[:, 0] > 0.5
        # Guesses about pictures without a face must not send the next cut-out astray.
        crops = face_crops(torch.minimum(points.clamp_min(0), limit))
    confidence = surely[:, 1:] * found[:, None]
    if closely:
        for look in CLOSE_LOOKS:
            may_stop()
            _look_closely(network, pixels, points, confidence, look)
    return points, confidence, found


def _look_closely(network: ImageNetwork, pixels: Tensor, points: Tensor, confidence: Tensor, look: CloseLook) -> None:
    """Move the points [B, 68, 2] of one part to where a close look sees them, in pictures that are sure to show it."""
    shown = confidence[:, look.points].mean(1) > 0.5
    if not bool(shown.any()):
        return
    crops = face_crops(points[shown, look.points], look.margin)
    closer, _ = _look(network, pixels[shown.to(pixels.device)], crops, look.ways)
    points[shown, look.points] = torch.lerp(points[shown, look.points], closer[:, look.points], look.share)


def _look(network: ImageNetwork, pixels: Tensor, crops: Crops, ways: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Points [B, 68, 2] in pixels of the pictures [B, C, H, W] and probabilities [B, 69] by one look at cut-outs.

    ways: for each answer, whether it is that to the mirrored cut-out; their mean, whose errors are only partly the
    same.
    """
    cut = cut_out(pixels, crops, network.size, border=True)
    answers = [_looked_at_mirrored(network, cut) if mirrored else _looked_at(network, cut) for mirrored in ways]
    shares, surely = (torch.stack(values).mean(0) for values in zip(*answers, strict=True))
    return points_from_crop(shares, crops, 1), surely


def _looked_at_mirrored(network: ImageNetwork, cut: Tensor) -> tuple[Tensor, Tensor]:
    """As `_looked_at`, of cut-outs that are shown to the network in the mirror."""
    order = list(MIRRORED_LANDMARKS[:NUM_FACE_LANDMARKS])
    shares, surely = _looked_at(network, cut.flip(-1) * mirror_signs(cut.shape[1])[:, None, None])
    shares = shares[:, order] * torch.tensor([-1.0, 1]) + torch.tensor([1.0, 0])
    return shares, surely[:, [0, *(1 + index for index in order)]]


def _looked_at(network: ImageNetwork, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Points [B, 68, 2] in shares of the cut-out's side, and probabilities [B, 69]: of a face, of each point seen."""
    with torch.no_grad():
        heatmaps, logits = network.model(model_input(network, cut))
        heatmaps = network.maps(heatmaps)
    return expected_points(log_shares(heatmaps)).cpu() / heatmaps.shape[-1], logits.float().cpu().sigmoid()

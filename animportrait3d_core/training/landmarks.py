"""Training of the network for landmarks: heatmaps on cut-outs, from the whole picture down to an eye alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..landmarks import CHIN, INNER_FACE, LEFT_OUTER_EYE, NUM_FACE_LANDMARKS, RIGHT_OUTER_EYE
from ..networks.crops import Crops
from ..networks.landmarks import CLOSE_LOOKS, FACE_MARGIN, detect_landmarks, expected_points, face_crops, log_shares
from ..networks.predict import model_input
from .augment import (
    AugmentSettings,
    TrainingImages,
    change_light,
    composite,
    cut_images,
    degrade,
    flip,
    random_backgrounds,
    uniform,
)
from .images import load_images, network_of, points_of, split_dataset, spread_rows, task_fingerprint
from .inputs import LOOKS, shown_as, shown_by_chance
from .metrics import normalized_landmark_errors
from .recipes import Recipe
from .shards import ShardDataset

EVALUATED_REGIONS = ("bust", "face")
"""What is evaluated; trained is on all pictures, close ones too."""
WHOLE_SHARE = 0.3
"""Of the cut-outs that show about the whole picture, as the first pass of the detector sees it."""
WHOLE_SHARE_WITHOUT_FACE = 0.7
"""The same for pictures without a face: the others are close cut-outs of where it would be, as after a wrong look."""
CLOSE_SHARES = (0.25, 0.0, 0.15)
"""Of the cut-outs that show a part alone, one of `CLOSE_LOOKS`: left eyes are the right ones of mirrored pictures."""
PART_SHOWN = 0.6
"""Share of a part's landmarks that are visible, from which on it is looked at closely."""
JITTER_SHIFT, JITTER_SCALE, JITTER_TURN = 0.1, (0.8, 1.3), math.radians(20)
"""How far the other cut-outs lie off the square around the true points."""
FACE_POINTS = 12
"""A picture shows a face when this many of the 51 points of `INNER_FACE` are visible in it."""
SPREAD = 1.0
"""Pixels of a heatmap; standard deviation of the spot that a heatmap is drawn towards."""
TURNED_FACE = 0.5
"""Outer-eye distance over the height of the face, below which a face is turned too far for a relative error."""
_EVALUATION_BATCH = 16


def face_is_shown(points: Tensor, visible: Tensor, size: int) -> Tensor:
    """Whether [B] pictures of `size` show a face: enough inner points [B, 68, 2] are visible and inside."""
    inside = ((points > 0) & (points < size)).all(-1)
    return (inside & (visible > 0.5))[:, INNER_FACE].sum(1) >= FACE_POINTS


@dataclasses.dataclass(frozen=True)
class Looks:
    """Cut-outs as the detector's passes make them.

    crops: of B pictures.  asked: [B, 68] float, the landmarks that are asked for there: all, or those of one part.
    enlarged: [B], how many times larger than the face's square they show their part; 1 for faces and whole pictures.
    """

    crops: Crops
    asked: Tensor
    enlarged: Tensor

    @property
    def of_part(self) -> Tensor:
        """Whether [B] a part of the face is looked at alone."""
        return self.asked.amin(1) < 1


def landmark_looks(images: TrainingImages, generator: torch.Generator) -> Looks:
    """Cut-outs about the whole picture, or off the square of the face, of an eye or of the mouth by a jitter."""
    count, side = len(images), float(images.colors.shape[-1])
    points, visible = points_of(images)
    face = face_crops(points, FACE_MARGIN)
    centers, sides, asked = _squares(points, visible, face, side, generator)
    shift = uniform(generator, (count, 2), -JITTER_SHIFT, JITTER_SHIFT)
    low, high = (math.log(value) for value in JITTER_SCALE)
    scale = torch.exp(uniform(generator, (count,), low, high))
    turn = uniform(generator, (count,), -JITTER_TURN, JITTER_TURN)
    looks = Looks(Crops(centers + shift * sides[:, None], sides * scale, turn), asked, torch.ones(count))
    larger = (face.sides / looks.crops.sides).clamp_min(1)
    return dataclasses.replace(looks, enlarged=torch.where(looks.of_part, larger, looks.enlarged))


def _squares(
    points: Tensor, visible: Tensor, face: Crops, side: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [B, 2] and sides [B] of what is looked at, drawn for each picture of `side`, and `Looks.asked`."""
    count = len(points)
    shown = face_is_shown(points, visible, int(side))
    whole = torch.rand(count, generator=generator) < torch.where(shown, WHOLE_SHARE, WHOLE_SHARE_WITHOUT_FACE)
    centers = torch.where(whole[:, None], torch.full((count, 2), side / 2), face.centers)
    sides = torch.where(whole, torch.full((count,), side), face.sides)
    asked = torch.ones(count, NUM_FACE_LANDMARKS)
    seen = visible * ((points > 0) & (points < side)).all(-1)
    draw, threshold = torch.rand(count, generator=generator), 0.0
    for look, share in zip(CLOSE_LOOKS, CLOSE_SHARES, strict=True):
        chosen = (draw >= threshold) & (draw < threshold + share) & (seen[:, look.points].mean(1) >= PART_SHOWN)
        threshold += share
        part = face_crops(points[:, look.points], look.margin)
        centers, sides = torch.where(chosen[:, None], part.centers, centers), torch.where(chosen, part.sides, sides)
        of_part = torch.zeros(NUM_FACE_LANDMARKS)
        of_part[look.points] = 1
        asked = torch.where(chosen[:, None], of_part, asked)
    return centers, sides, asked


def spot_loss(logs: Tensor, points: Tensor, counted: Tensor) -> Tensor:
    """Mean divergence of heatmaps [B, N, S, S] (`log_shares`) from Gaussian spots at points, weighted by `counted`.

    It keeps the maps in one piece, which their mean place alone does not ask for (Nibali et al. 2018, DSNT).
    """
    steps = torch.arange(logs.shape[-1], dtype=torch.float32) + 0.5
    spots = torch.softmax(-((steps - points[..., None]) ** 2) / (2 * SPREAD**2), -1)
    columns, rows = spots[:, :, 0], spots[:, :, 1]
    entropy = -((logs * columns[:, :, None]).sum(-1) * rows).sum(-1)
    floor = -(columns * columns.log()).nan_to_num().sum(-1) - (rows * rows.log()).nan_to_num().sum(-1)
    return ((entropy - floor) * counted).sum() / counted.sum().clamp_min(1)


class LandmarksTask:
    """Place of all points inside the cut-out, which of them are visible, and whether there is a face."""

    role, metric = "landmarks", "landmark_error"
    separable = False
    """The losses are means over what is visible, and the network has BatchNorm."""

    def __init__(self, model: nn.Module, dataset: ShardDataset, recipe: Recipe, held_out_limit: int | None) -> None:
        self.model, self.recipe = model, recipe
        self.split = split_dataset(dataset, recipe.held_out_share)
        self.network = network_of(model, recipe)
        self.fingerprint = task_fingerprint(dataset, recipe)
        self.held_out_limit = held_out_limit

    def __len__(self) -> int:
        return len(self.split.training)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Augmented cut-outs with points in their pixels."""
        settings: AugmentSettings = self.recipe.augment
        images = load_images(self.split.training, indices, self._wanted)
        backgrounds = random_backgrounds(len(images), images.colors.shape[-1], settings, generator)
        images = flip(
            composite(images, backgrounds), torch.rand(len(images), generator=generator) < settings.flip_share
        )
        looks = landmark_looks(images, generator)
        images = cut_images(images, looks.crops, self.recipe.size)
        # Volumes that are softer than the data set's pictures are softer still in close looks.
        colors = change_light(images.colors, settings.light, generator)
        colors = degrade(colors, settings, generator, looks.enlarged)
        images = dataclasses.replace(images, colors=colors)
        pixels = shown_by_chance(self.network, images, settings, generator)
        points, visible = points_of(images)
        shown = (looks.of_part | face_is_shown(points, visible, self.recipe.size)).float()
        given = {"points": points, "visible": visible, "shown": shown, "asked": looks.asked}
        return {"pixels": model_input(self.network, pixels), **given}

    @property
    def _wanted(self) -> tuple[str, ...]:
        return ("points", "surface") if self.network.sees_normals else ("points",)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Distance of points in hundredths of the cut-out, compact heatmaps, and the two kinds of logits."""
        heatmaps, logits = model(batch["pixels"])
        heatmaps = self.network.maps(heatmaps)
        logs, logits = log_shares(heatmaps), logits.float()
        size = heatmaps.shape[-1]
        points = batch["points"] * (size / self.recipe.size)
        asked = batch["asked"] * batch["shown"][:, None]
        inside = ((points > 0) & (points < size)).all(-1).float() * asked
        # The few points of an eye alone count as much as the many of a face.
        asked = asked * (NUM_FACE_LANDMARKS / batch["asked"].sum(1, keepdim=True))
        # Hidden points are the shape's best guess: worth less than what is seen.
        weight = inside * asked * (0.25 + 0.75 * batch["visible"])
        distance = ((expected_points(logs) - points).square().sum(-1) + 1e-4).sqrt()
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        seen = bce(logits[:, 1:], batch["visible"] * inside, reduction="none") * asked
        # Whether an eye alone is a face is not asked.
        whole_face = batch["asked"].amin(1)
        face = bce(logits[:, 0], batch["shown"], reduction="none") * whole_face
        return {
            "distance": (distance * weight).sum() / weight.sum().clamp_min(1) * (100.0 / size),
            "spots": 0.3 * spot_loss(logs, points, weight),
            "visible": 0.2 * seen.sum() / asked.sum().clamp_min(1),
            "face": 0.2 * face.sum() / whole_face.sum().clamp_min(1),
        }

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics by the pictures alone of what is held out of the people without traits."""
        return self.measure(model, self.split.held_out.of_trait(None))

    def measure(self, model: nn.Module, dataset: ShardDataset, look: str = LOOKS[0]) -> dict[str, float]:
        """The whole detector on busts and faces of a data set: `landmark_error` (visible points over the outer-eye
        distance, faces turned less than about 50 degrees), `landmark_error_pixels` (all turns), and how often found is
        right. look: one of `LOOKS`.
        """
        network = dataclasses.replace(self.network, model=model)
        relative, pixels, right = [], [], []
        dataset = dataset.of_region(*EVALUATED_REGIONS)
        for indices in spread_rows(dataset, self.held_out_limit).split(_EVALUATION_BATCH):
            images = composite(load_images(dataset, indices, self._wanted), torch.ones(1, 3, 1, 1))
            colors, normals = shown_as(look, network, images)
            points, _, found = detect_landmarks(network, colors, normals=normals)
            truth, visible = points_of(images)
            shown = face_is_shown(truth, visible, images.colors.shape[-1])
            counted = visible * ((truth > 0) & (truth < images.colors.shape[-1])).all(-1)
            both = shown & found
            frontal = both & (facing(truth) > TURNED_FACE)
            relative.append(normalized_landmark_errors(points, truth, counted)[frontal])
            pixels.append((((points - truth).norm(dim=-1) * counted).sum(1) / counted.sum(1))[both])
            right.append((shown == found).float())
        errors = torch.cat(relative)
        return {
            "landmark_error": float(errors.mean()),
            "landmark_error_median": float(errors.nanmedian()),
            "landmark_error_pixels": float(torch.cat(pixels).mean()),
            "found_right": float(torch.cat(right).mean()),
            "faces_counted": float(len(errors)),
        }


def facing(points: Tensor) -> Tensor:
    """Projected outer-eye distance [B] over the distance from between the eyes to the chin: falls as a head turns."""
    right, left = points[:, RIGHT_OUTER_EYE], points[:, LEFT_OUTER_EYE]
    return (left - right).norm(dim=-1) / (points[:, CHIN] - (right + left) / 2).norm(dim=-1)

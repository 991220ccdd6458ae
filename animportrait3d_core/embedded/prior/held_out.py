"""What a prior is worth on persons that it has never seen: how near the truth, how obedient to condition and words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion import Guidance
from ...errors import InvalidInput
from ...progress import Stages, stage_of
from ...regions import IMAGE_REGIONS
from ...similarity import psnr
from ...training.shards import BODY_WIDTHS, ShardDataset
from ..identities.attributes import CHOICES
from ..identities.prompts import parse_prompt
from .codec_training import spread_indices
from .crop_labels import CROP_CLASSES, colors_of, eyeballs_of, find_labels, label_channel, teeth_of, true_labels
from .quality import QualitySettings, sample_images

CLOSED_LIDS = 0.99
MOST_SCLERA = 0.01
"""Share of the pixels of an eye crop, below which its lids count as closed."""
_LEAST_SHOWN = 0.005
"""Share of the pixels that must be eyeball, or teeth, for a crop to be judged by them."""
NEEDED = ("face", "eyes", "mouth", "closed")
_JUDGED = {"eyes": eyeballs_of, "mouth": teeth_of}
_PALETTE_PICTURES = 2000
_LEAST_PIXELS = {"hair_color": 150, "garment_color": 150, "skin_tone": 150, "iris_color": 6}
_DARKEST = 0.02
"""The least part of a colour that light is measured by."""
_PART_OF = {"hair_color": "hair", "garment_color": "clothes", "skin_tone": "skin"}
_SMALL = 32
"""Side in pixels at which a picture is compared with all of the training."""


@dataclasses.dataclass(frozen=True)
class HeldOutSettings:
    """count: samples of each kind.  quality: how they are sampled."""

    count: int = 100
    quality: QualitySettings = QualitySettings()


@dataclasses.dataclass(frozen=True)
class Drawn:
    """n samples of one kind and pictures [n, S, S, 3] in 0..1 of them.

    truth: renders.  controlled, free: drawn with the sample's condition and without.  wrong: with that of another one.
    """

    samples: list[Any]
    truth: Tensor
    controlled: Tensor
    free: Tensor
    wrong: Tensor

    def pictures(self) -> dict[str, Tensor]:
        """By name."""
        return {name: getattr(self, name) for name in ("truth", "controlled", "free", "wrong")}


def unseen(dataset: ShardDataset, training: ShardDataset) -> ShardDataset:
    """The samples of persons that are not in the training. Raises `InvalidInput` without any."""
    known = torch.tensor(training.identities)
    others = dataset.subset(~torch.isin(dataset.column("identity").long(), known))
    if not len(others):
        raise InvalidInput("evaluate-prior: every person of the data set was trained on; build one with another seed.")
    return others


def draw_held_out(
    guidance: Guidance, dataset: ShardDataset, settings: HeldOutSettings, stages: Stages | None = None
) -> dict[str, Drawn]:
    """Pictures by kind: the regions, and `closed`, crops of eyes whose lids are closed."""
    chosen = {kind: [dataset[k] for k in places.tolist()] for kind, places in _kinds(dataset, settings).items()}
    lacking = [kind for kind in NEEDED if not chosen[kind]]
    if lacking:
        raise InvalidInput(f"evaluate-prior: the data set has no samples of {lacking}; build one of more identities.")
    drawn = {}
    for kind, samples in chosen.items():
        stage_of(stages, kind)
        # Closed lids are shown the condition of open eyes.
        others = chosen["eyes"] if kind == "closed" else [*samples[1:], samples[0]]
        swapped = [
            dataclasses.replace(item, condition=others[k % len(others)].condition) for k, item in enumerate(samples)
        ]
        drawn[kind] = Drawn(
            samples,
            colors_of(samples),
            sample_images(guidance, samples, settings.quality, controlled=True),
            sample_images(guidance, samples, settings.quality, controlled=False),
            sample_images(guidance, swapped, settings.quality, controlled=True),
        )
    return drawn


def _kinds(dataset: ShardDataset, settings: HeldOutSettings) -> dict[str, Tensor]:
    """Positions of the samples of each kind."""
    region = dataset.column("region")
    lids = dataset.column("body").split(list(BODY_WIDTHS.values()), 1)[list(BODY_WIDTHS).index("eyelids")]
    places = {name: (region == number).nonzero()[:, 0] for number, name in enumerate(IMAGE_REGIONS)}
    places["closed"] = places["eyes"][(lids[places["eyes"]] >= CLOSED_LIDS).all(1)]
    for name, visible in _JUDGED.items():
        shown = [float(visible(label_channel([dataset[k]])).float().mean()) for k in places[name].tolist()]
        places[name] = places[name][torch.tensor(shown) >= _LEAST_SHOWN]
    # A world without busts is small, but a world.
    found = {name: _spread(rows, settings.count) for name, rows in places.items()}
    return {name: rows for name, rows in found.items() if len(rows) or name in NEEDED}


def _spread(places: Tensor, count: int) -> Tensor:
    """At most `count` of the positions, evenly spread."""
    return places[spread_indices(len(places), count)] if len(places) else places


def held_out_figures(
    guidance: Guidance, drawn: Mapping[str, Drawn], training: ShardDataset, judge: nn.Module
) -> dict[str, float]:
    """All figures by name. training: what the prior was trained on.  judge: of `crop_labels`, trained on the same."""
    return {
        **nearness(guidance, drawn), **obedience(judge, drawn), **color_scores(training, drawn),
        **distances_to_training(training, drawn),
    }  # fmt: skip


def nearness(guidance: Guidance, drawn: Mapping[str, Drawn]) -> dict[str, float]:
    """PSNR in dB against the truth, by region and as their mean: of samples with the condition and without, and of the
    codec alone."""
    figures: dict[str, float] = {}
    for region in _regions(drawn):
        truth = drawn[region].truth
        with torch.no_grad():
            decoded = torch.cat([guidance.decode(guidance.encode(part)).cpu() for part in truth.split(16)])
        shown = {"controlled": drawn[region].controlled, "free": drawn[region].free, "codec": decoded}
        for name, pictures in shown.items():
            figures[f"psnr_{name}_{region}"] = sum(psnr(a, b) for a, b in zip(pictures, truth)) / len(truth)
    for name in ("controlled", "free", "codec"):
        values = [figures[f"psnr_{name}_{region}"] for region in _regions(drawn)]
        figures[f"psnr_{name}"] = sum(values) / len(values)
    return figures


def _regions(drawn: Mapping[str, Drawn]) -> list[str]:
    return [region for region in IMAGE_REGIONS if region in drawn]


def obedience(judge: nn.Module, drawn: Mapping[str, Drawn]) -> dict[str, float]:
    """What the judge sees: IoU of eyeballs and teeth with the condition, over all samples, and the share of closed lids
    that show hardly any sclera; each of renders (`truth`) and of what was drawn."""
    figures: dict[str, float] = {}
    for kind, visible in _JUDGED.items():
        wanted = visible(label_channel(drawn[kind].samples))
        names = ("sclera", "iris") if kind == "eyes" else ("teeth",)
        for name, pictures in drawn[kind].pictures().items():
            found = _has(find_labels(judge, pictures), *names)
            figures[f"iou_{kind}_{name}"] = float((found & wanted).sum() / (found | wanted).sum())
    for name, pictures in drawn["closed"].pictures().items():
        sclera = _has(find_labels(judge, pictures), "sclera").float().mean((1, 2))
        figures[f"closed_{name}"] = float((sclera < MOST_SCLERA).float().mean())
    return figures


def _has(labels: Tensor, *names: str) -> Tensor:
    """Where labels are one of these classes."""
    return torch.isin(labels, torch.tensor([CROP_CLASSES.index(name) for name in names]))


def color_scores(training: ShardDataset, drawn: Mapping[str, Drawn]) -> dict[str, float]:
    """How often the nearest colour word is the prompt's, inside the true mask: of renders, of samples with condition,
    and by chance (renders against the words of another person). Irises are asked for in faces alone.

    The colour of a word is the mean colour of its pictures in the training: light and shade are in it. `_lit` asks for
    the nearest word of samples in the light of the true picture: all words' colours times what that has over its own.
    """
    parts = training.manifest.parts
    palette = _palette(training)
    figures: dict[str, float] = {}
    for attribute in _LEAST_PIXELS:
        kinds = ("face",) if attribute == "iris_color" else ("face", "bust")
        right: dict[str, list[bool]] = {"truth": [], "controlled": [], "chance": [], "lit": []}
        for item, truth, picture, other in _shown(drawn, kinds):
            mask = _mask(item, attribute, parts)
            if int(mask.sum()) < _LEAST_PIXELS[attribute]:
                continue
            names = list(palette[attribute])
            colors = torch.stack(list(palette[attribute].values()))
            true_color, color = (image[mask].mean(0) for image in (truth, picture))
            word = str(parse_prompt(item.full_prompt).known[attribute])
            of_truth = names[_nearest(colors, true_color)]
            right["truth"].append(of_truth == word)
            right["controlled"].append(names[_nearest(colors, color)] == word)
            if word in names:
                lit = _lit_as(true_color, colors, names.index(word))
                right["lit"].append(names[_nearest(lit, color)] == word)
            right["chance"].append(of_truth == parse_prompt(other.full_prompt).known[attribute])
        figures[f"{attribute}_count"] = len(right["truth"])
        figures |= {f"{attribute}_{name}": sum(values) / len(values) for name, values in right.items() if values}
    return figures


def _nearest(colors: Tensor, wanted: Tensor) -> int:
    """Row of colours [n, 3] that is nearest to one [3]."""
    return int((colors - wanted).norm(dim=1).argmin())


def _lit_as(seen: Tensor, colors: Tensor, row: int) -> Tensor:
    """Colours [n, 3] in the light in which one of them looks like `seen` [3]."""
    return colors * (seen / colors[row].clamp_min(_DARKEST))


def _shown(drawn: Mapping[str, Drawn], kinds: tuple[str, ...]) -> list[tuple[Any, Tensor, Tensor, Any]]:
    """(sample, render, drawn with condition, another sample) of some kinds."""
    rows = []
    for kind in (kind for kind in kinds if kind in drawn):
        own = drawn[kind]
        others = [*own.samples[1:], own.samples[0]]
        rows += list(zip(own.samples, own.truth, own.controlled, others))
    return rows


def _mask(item: Any, attribute: str, parts: tuple[str, ...]) -> Tensor:
    """Where a sample shows what an attribute colours [S, S], bool."""
    if attribute == "iris_color":
        return true_labels([item], parts)[0] == CROP_CLASSES.index("iris")
    return item.parts == parts.index(_PART_OF[attribute])


def _palette(training: ShardDataset) -> dict[str, dict[str, Tensor]]:
    """Mean colour [3] of each word of each attribute, over some of the training's faces and busts."""
    pictures = training.of_region("face", "bust")
    sums = {name: {word: torch.zeros(4) for word in CHOICES[name]} for name in _LEAST_PIXELS}
    for index in spread_indices(len(pictures), _PALETTE_PICTURES).tolist():
        item = pictures[index]
        known, colors = parse_prompt(item.full_prompt).known, colors_of([item])[0]
        for name, least in _LEAST_PIXELS.items():
            mask = _mask(item, name, training.manifest.parts)
            if int(mask.sum()) >= least:
                sums[name][str(known[name])] += torch.cat([colors[mask].mean(0), torch.ones(1)])
    return {
        name: {word: total[:3] / total[3] for word, total in words.items() if total[3] > 0}
        for name, words in sums.items()
    }


def distances_to_training(training: ShardDataset, drawn: Mapping[str, Drawn]) -> dict[str, float]:
    """Median PSNR in dB to the nearest picture of the training of the same region, at 32 pixels: of samples with
    condition, of unseen renders, and the highest of the samples. Samples nearer than renders would be remembered."""
    figures: dict[str, float] = {}
    for region in _regions(drawn):
        known = _small(training.of_region(region))
        for name in ("controlled", "truth"):
            wanted = _shrunk(getattr(drawn[region], name))
            nearest = torch.cdist(wanted, known).min(1).values.square() / wanted.shape[1]
            decibels = -10 * torch.log10(nearest.clamp_min(1e-10))
            figures[f"nearest_{name}_{region}"] = float(decibels.median())
            if name == "controlled":
                figures[f"nearest_most_{region}"] = float(decibels.max())
    return figures


def _small(dataset: ShardDataset) -> Tensor:
    """All pictures of a data set, shrunk [n, 3 * 32 * 32]."""
    parts = torch.arange(len(dataset)).split(256)
    return torch.cat([_shrunk(colors_of([dataset[k] for k in part.tolist()])) for part in parts])


def _shrunk(pictures: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(pictures.permute(0, 3, 1, 2), _SMALL).flatten(1)


def drawn_sheet(drawn: Drawn, count: int = 12) -> Tensor:
    """A picture [H, W, 3] in 0..1 to look at: normals, labels, truth, with condition, without, with a wrong one."""
    condition = torch.stack([item.condition for item in drawn.samples[:count]]).float() / 255
    rows = [condition[..., :3], condition[..., 3:].expand(-1, -1, -1, 3)]
    rows += [pictures[:count] for pictures in drawn.pictures().values()]
    return torch.cat([torch.cat(list(row), 1) for row in rows], 0)

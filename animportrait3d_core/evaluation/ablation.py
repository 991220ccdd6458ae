"""The ablation of the second stage in the embedded world (the paper's Tables A.1 and A.2), cell by cell.

A cell is one row (what was left out or replaced) for one person: an avatar and its metrics against the truth. Cells are
kept as files; a table that was stopped goes on with the first one missing.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..avatar import AvatarRig, InitializeSettings, RiggedAvatar, initialize_avatar
from ..avatar.io import load_avatar, save_avatar
from ..body.landmarks import Detector
from ..body.model import BodyModel
from ..cameras import view_preset
from ..conditioning import Prompts
from ..diffusion import Guidance
from ..diffusion.diffusers_adapter import CONTROLNET_FOLDER, GuidanceFiles, load_guidance
from ..errors import InvalidInput
from ..files import sha256_of_file, write_json
from ..fingerprints import fingerprint
from ..initialization import InitializationSettings, Networks, Subject, find_subject
from ..optimization import fit_to_views
from ..optimization.anchor import Anchor
from ..optimization.dynamic import RegionPass, Staging, Variant, Workplace, optimize_regions
from ..optimization.presets import dynamic_stage
from ..parts import AvatarPart
from ..portrait.trigrid import load_trigrid_portrait
from ..portrait.views import render_views
from ..previews import captioned, stack_rows, tile
from ..progress import Stages, stage_of
from ..render import render_gaussians
from ..rigging.points import PosedBody, color_points, sample_points, uncolored_points
from ..surface.color_training import train_color_field
from .ablation_controls import OtherPoses, TrueEdits, forget_everything, towards_truth
from .heldout import GROUPS, held_out_frames
from .truth import evaluate_against_identity

if TYPE_CHECKING:
    from ..embedded.identities import Identity

Start = Literal["initial", "no appearance", "no geometry"]
Metrics = dict[str, float]
Cells = dict[str, dict[str, Metrics]]
"""Metrics by row and person."""
ALL_STAGES = ("eyes", "mouth", "full", "refine")
AVATAR_FILE, METRICS_FILE = "avatar.safetensors", "metrics.json"


@dataclasses.dataclass(frozen=True)
class Row:
    """What an avatar is made by.

    after: the row whose avatar it begins with, or the kind of start.  stages: what follows.  controlled: with the
    ControlNet.  rule, condition_in_inversion: of the scores.  teacher: "prior", the prior before all training
    ("untrained"), with conditions of another pose ("other pose"), or true renders ("truth").  anchored: by views of the
    portrait.  one_person: measured on the first person alone.
    """

    name: str
    after: str
    stages: tuple[str, ...] = ()
    controlled: bool = True
    rule: Literal["ism", "fast", "csd", "sds"] = "ism"
    condition_in_inversion: bool = False
    teacher: Literal["prior", "untrained", "other pose", "truth"] = "prior"
    anchored: bool = True
    one_person: bool = False


STARTS: tuple[Start, ...] = ("initial", "no appearance", "no geometry")
ROWS = (
    Row("initial avatar", "initial"),
    Row("pre-trained", "initial avatar", ("eyes", "mouth")),
    Row("without refinement", "pre-trained", ("full",)),
    Row("whole method", "without refinement", ("refine",)),
    Row("no appearance initialization", "no appearance", ALL_STAGES),
    Row("no geometry initialization", "no geometry", ALL_STAGES),
    Row("no pre-training", "initial avatar", ("full", "refine")),
    Row("no ControlNet", "initial avatar", ALL_STAGES, controlled=False),
    Row("refinement only", "initial avatar", ("refine",)),
    Row("untrained networks", "initial avatar", ALL_STAGES, teacher="untrained"),
    Row("conditions of another pose", "initial avatar", ALL_STAGES, teacher="other pose"),
    Row("ceiling: true renders", "initial avatar", ALL_STAGES, teacher="truth"),
    Row("no portrait views", "initial avatar", ALL_STAGES, anchored=False, one_person=True),
    Row("ControlNet in the inversion", "initial avatar", ALL_STAGES, condition_in_inversion=True, one_person=True),
    Row("fast", "initial avatar", ALL_STAGES, rule="fast", one_person=True),
    Row("csd", "initial avatar", ALL_STAGES, rule="csd", one_person=True),
    Row("sds", "initial avatar", ALL_STAGES, rule="sds", one_person=True),
)


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody of the embedded world. portrait: file of the trigrid portrait."""

    name: str
    identity: Identity
    portrait: Path


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """rows: names of ROWS.  preset, length: of the dynamic stages.  seed: of everything."""

    rows: tuple[str, ...] = tuple(row.name for row in ROWS)
    preset: str = "standard"
    length: float = 1.0
    seed: int = 0
    initialization: InitializationSettings = InitializationSettings()

    def __post_init__(self) -> None:
        known = [row.name for row in ROWS]
        unknown = [name for name in self.rows if name not in known]
        if unknown or not self.rows:
            raise InvalidInput(f"ablation: rows {unknown or list(self.rows)}, expected some of {', '.join(known)}.")


class Ablation:
    """The table at work. folder: of all cells."""

    def __init__(
        self, folder: Path, prior: Path, body: BodyModel, networks: Networks, settings: AblationSettings,
        detector: Detector | None = None, stages: Stages | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._prior, self._body, self._networks = Path(folder), Path(prior), body, networks
        self._settings, self._detector, self._stages = settings, detector, stages
        self._subject: tuple[str, Subject] | None = None
        self._anchors: dict[str, Anchor] = {}

    def cell(self, person: Person, name: str) -> Metrics:
        """Metrics of a row for a person, made now if they are not there."""
        row = _row(name)
        known = self._known(person, row)
        return self._make(person, row) if known is None else known

    def _known(self, person: Person, row: Row) -> Metrics | None:
        """Metrics on disk, if these settings made them."""
        file = self._place(person, row) / METRICS_FILE
        if not file.is_file():
            return None
        known = json.loads(file.read_text(encoding="utf-8"))
        return known["metrics"] if known["key"] == self._key(person, row) else None

    def _make(self, person: Person, row: Row) -> Metrics:
        place = self._place(person, row)
        begun = time.perf_counter()
        avatar = self._made(person, row, place / "runs")
        seconds = time.perf_counter() - begun
        save_avatar(avatar, place / AVATAR_FILE)
        progress = stage_of(self._stages, f"{person.name}, {row.name}: held-out frames")
        metrics = evaluate_against_identity(avatar, person.identity, detector=self._detector, progress=progress)
        metrics["seconds"] = seconds
        write_json(place / METRICS_FILE, {"key": self._key(person, row), "metrics": metrics})
        return metrics

    def avatar(self, person: Person, name: str) -> RiggedAvatar:
        """The avatar of a cell, made if its file is not there: metrics may be kept without it."""
        row = _row(name)
        if not self.has_avatar(person, name):
            self._make(person, row)
        return load_avatar(self._place(person, row) / AVATAR_FILE, body=self._body)

    def has_avatar(self, person: Person, name: str) -> bool:
        """Whether the avatar of a cell is on disk, made by these settings."""
        row = _row(name)
        return self._known(person, row) is not None and (self._place(person, row) / AVATAR_FILE).is_file()

    def _place(self, person: Person, row: Row) -> Path:
        return self._folder / person.name / row.name.replace(" ", "_").replace(":", "")

    def _key(self, person: Person, row: Row) -> str:
        settings = self._settings
        kept: tuple[object, ...] = (
            row, person.identity, settings.seed, settings.initialization, self._network_contents,
        )  # fmt: skip
        if row.stages:
            kept += (settings.preset, settings.length, self._prior_contents)
        return fingerprint(kept)

    @functools.cached_property
    def _network_contents(self) -> str:
        """With other networks the first stage gives other avatars: rows would be set beside a start not their own."""
        return fingerprint(self._networks)

    @functools.cached_property
    def _prior_contents(self) -> list[tuple[str, str]]:
        files = (path for path in sorted(self._prior.rglob("*")) if path.suffix in (".safetensors", ".json"))
        return [(path.relative_to(self._prior).as_posix(), sha256_of_file(path)) for path in files]

    def _made(self, person: Person, row: Row, runs: Path) -> RiggedAvatar:
        start = self._start(person, row.after, runs) if row.after in STARTS else self.avatar(person, row.after)
        if not row.stages:
            return start
        guidance = load_guidance(GuidanceFiles(self._prior, controlnet=self._prior / CONTROLNET_FOLDER))
        if row.teacher == "untrained":
            guidance = forget_everything(guidance, self._settings.seed)
        prompts = Prompts.of(person.identity.prompt)
        place = Workplace(runs, self._named(person, row))
        for stage in row.stages:
            passes = self._passes(row, stage, guidance)
            anchor = self._anchor(person, guidance.image_size) if row.anchored else None
            staging = Staging(seed=self._settings.seed, anchor=anchor)
            start = optimize_regions(start, guidance, prompts, passes, staging, place, _variant(row, person))
        return start

    def _anchor(self, person: Person, size: int) -> Anchor:
        """Close views of the person's portrait."""
        if person.name not in self._anchors:
            cameras = view_preset("face", size)
            portrait = load_trigrid_portrait(person.portrait)
            self._anchors[person.name] = Anchor(render_views(portrait, cameras, torch.ones(3)))
        return self._anchors[person.name]

    def _named(self, person: Person, row: Row) -> Stages | None:
        stages = self._stages
        return None if stages is None else lambda name: stages(f"{person.name}, {row.name}: {name}")

    def _passes(self, row: Row, stage: str, guidance: Guidance) -> tuple[RegionPass, ...]:
        settings = self._settings
        passes = dynamic_stage(stage, settings.preset, guidance.guidance_scale, guidance.regions)
        return tuple(_as_in(row, one.longer(settings.length)) for one in passes)

    def _start(self, person: Person, kind: str, runs: Path) -> RiggedAvatar:
        """An avatar of the first stage, with all of it or without one of its halves."""
        settings, stages = self._settings.initialization, self._stages
        subject = self._subject_of(person)
        posed, mesh = PosedBody.of(subject.fit.body, subject.fit.parameters), subject.parts.mesh
        parts = subject.parts.part_of_face
        if kind == "no geometry":
            parts = torch.full_like(parts, AvatarPart.SKIN)
        generator = torch.Generator().manual_seed(settings.seed)
        points = sample_points(mesh, parts, posed, settings.points, generator)
        if kind == "no appearance":
            points = uncolored_points(points)
        else:
            progress = stage_of(stages, f"{person.name}: colour field")
            field = train_color_field(mesh, subject.all_views, settings.colors, settings.seed, progress, runs=runs)
            points = color_points(points, mesh, posed, field)
        avatar = initialize_avatar(
            points, subject.fit.body, subject.fit.parameters, InitializeSettings(), prompt=person.identity.prompt
        )
        if kind == "no appearance":
            return avatar
        progress = stage_of(stages, f"{person.name}: train the avatar")
        return fit_to_views(avatar, subject.all_views, settings.training, settings.seed, progress, runs=runs)

    def _subject_of(self, person: Person) -> Subject:
        """Views, surface and fit of a person; kept for the next row."""
        if self._subject is None or self._subject[0] != person.name:
            portrait = load_trigrid_portrait(person.portrait)
            found = find_subject(portrait, self._body, self._networks, self._settings.initialization)
            self._subject = (person.name, found)
        return self._subject[1]


def _row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def _as_in(row: Row, one: RegionPass) -> RegionPass:
    """A pass with what the row changes."""
    if not row.controlled:
        one = dataclasses.replace(one, uses=tuple(dataclasses.replace(use, controlled=False) for use in one.uses))
    if row.teacher == "truth":
        return towards_truth(one)
    return one.with_score(rule=row.rule, condition_in_inversion=row.condition_in_inversion)


def _variant(row: Row, person: Person) -> Variant:
    """Who teaches, and with which conditions."""
    if row.teacher == "truth":
        return Variant(edit_maker=functools.partial(TrueEdits, identity=person.identity))
    return Variant(OtherPoses) if row.teacher == "other pose" else Variant()


def run_ablation(
    ablation: Ablation, people: Sequence[Person], rows: Sequence[str], report: Callable[[str, str], None]
) -> Cells:
    """All cells, row by row. report: hears of each (row, person) before it begins."""
    found: Cells = {}
    for row in (row for row in ROWS if row.name in rows):
        for person in people[:1] if row.one_person else people:
            report(row.name, person.name)
            found.setdefault(row.name, {})[person.name] = ablation.cell(person, row.name)
    return found


def ablation_sheet(avatars: dict[str, RiggedAvatar], person: Person, size: int = 192) -> Tensor:
    """A picture [H, W, 3]: the truth and each row's avatar in the same held-out frames, two of every group."""
    from ..embedded.identities import IdentityRenderSettings, prepare_identity, render_identity, true_parameters

    every = held_out_frames()
    frames = [frame for group in GROUPS for frame in [one for one in every if one.group == group and one.close][:2]]
    prepared, rest, white = prepare_identity(person.identity), true_parameters(person.identity), torch.ones(3)
    plain = IdentityRenderSettings(condition=False)
    rows = {"truth": [render_identity(prepared, frame.pose(rest), frame.camera(size), plain).rgb for frame in frames]}
    for name, avatar in avatars.items():
        rig = AvatarRig(avatar)
        rows[name] = [
            render_gaussians(rig.pose(frame.pose(avatar.parameters)), frame.camera(size), background=white).color
            for frame in frames
        ]
    return stack_rows([
        captioned(tile(torch.cat(pictures).clamp(0, 1), len(frames)), name) for name, pictures in rows.items()
    ])  # fmt: skip

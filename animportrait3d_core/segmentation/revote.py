"""Face revoting: labels of the views become parts of the portrait's mesh (the paper's section 3.1).

"Projection onto the face and hair segmentation maps and averaging over all views", with hair over everything and
clothes as the rest. Every pixel counts, by how squarely its face is seen and how sure its label is; a view speaks only
about faces that are really visible in it; a view that contradicts all others is left out; faces that no view sees take
over from their surroundings on the surface; what was painted by hand overrules everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from ..meshes import Mesh
from ..parts import PART_OF_CLASS, AvatarPart, MeshParts
from ..progress import Progress
from .face_graph import FaceGraph, absorb_islands, face_graph, spread_votes
from .labels import ViewLabels
from .legacy import asked_views, legacy_parts, legacy_votes
from .report import RevoteReport, check_skin
from .votes import FaceGeometry, ViewVotes, fitted_cameras, view_votes, with_doubtful_borders

WHERE = "revote_faces"
SCHEMA_VERSION = 1
MIN_OVERLAP = 0.3
PAINTED_EVIDENCE = 1e4


@dataclasses.dataclass(frozen=True)
class RevoteSettings:
    """How faces are voted for. Lengths are in world units (a head is about 0.65 high, 2.8 units a metre)."""

    profile: Literal["fixed", "legacy"] = "fixed"
    """`legacy`: the authors' binary votes (`segmentation.legacy`); the other settings are not used then."""
    size: int = 768
    """Smaller side in pixels of the pictures in which faces are looked for: a face needs pixels to be seen."""
    facing_power: float = 1.5
    """Weight of a pixel is the cosine between its face's normal and the view to this power. Under hanging hair the
    views that see a face squarely are right; where labels are wrong at random, every view is a help: 4 is too much."""
    least_facing: float = 0.15
    """Faces seen at less than this cosine (flatter than 81 degrees) do not count as visible."""
    border_width: float = 0.012
    """Pixels closer than this share of the picture's smaller side to another label are doubtful: there the surface and
    the picture disagree by a pixel or two, and one part hides another."""
    border_weight: float = 0.3
    """What doubtful pixels count, and specks that their surroundings outvote; 1: as much as all others."""
    least_agreement: float = 0.5
    """A view whose labels agree with the vote of all views on less than this share of its weight is left out."""
    smoothing: float = 0.025
    """Radius over which votes are blended along the surface (9 mm); 0: faces decide alone."""
    least_island: float = 0.003
    """Islands of a part smaller than this area (a square of 2 cm) join what surrounds them; 0: none."""

    def __post_init__(self) -> None:
        if self.profile not in ("fixed", "legacy"):
            raise InvalidInput(f"RevoteSettings: profile '{self.profile}', expected 'fixed' or 'legacy'.")
        if not 32 <= self.size <= 4096:
            raise InvalidInput(f"RevoteSettings: `size` is {self.size}, expected 32 to 4096 pixels.")
        limits = {"least_facing": 0.9, "border_width": 0.1, "border_weight": 1.0, "least_agreement": 1.0}
        for name, high in (limits | {"smoothing": 1.0, "least_island": 10.0}).items():
            if not 0 <= getattr(self, name) <= high:
                raise InvalidInput(f"RevoteSettings: `{name}` is {getattr(self, name)}, expected 0 to {high}.")


@dataclasses.dataclass(frozen=True)
class FaceVotes:
    """The outcome for a mesh of F faces.

    votes: [F, C] what each face was given per class of `classes`, rows sum to 1 where anything is known (in the
    `legacy` profile: sums of +1 and -0.5 in the columns of hair and face).  class_of_face: [F] uint8, positions in
    `classes`.  seen: [F] bool, faces visible in a view that counted.  parts: the mesh with HAIR, CLOTHES or SKIN per
    face.  report: what was seen, left out and changed.
    """

    votes: Tensor
    classes: tuple[str, ...]
    class_of_face: Tensor
    seen: Tensor
    parts: MeshParts
    report: RevoteReport
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        count = len(self.parts.mesh.faces)
        check_shape("FaceVotes", "votes", self.votes, [count, len(self.classes)])
        check_shape("FaceVotes", "class_of_face", self.class_of_face, [count])
        check_shape("FaceVotes", "seen", self.seen, [count])


@dataclasses.dataclass(frozen=True)
class _Gathered:
    """What all views say about F faces.

    votes: [F, C] mean class shares.  evidence: [F] how much was said, at most 1.  painted: [F, C] how much by hand.
    """

    votes: np.ndarray
    evidence: np.ndarray
    painted: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Consulted:
    """How far each view agrees with the vote of all, and the views that were left out, with the reason."""

    agreement: tuple[float, ...]
    left_out: dict[int, str]


def revote_faces(
    mesh: Mesh,
    labels: ViewLabels,
    cameras: Cameras,
    settings: RevoteSettings | None = None,
    progress: Progress | None = None,
) -> FaceVotes:
    """Hair, clothes and skin of a portrait's mesh from the labels of its views.

    cameras: one per label map, of the same proportions; their size may differ from the labels'.  progress: called as
    (views done, views in all, None).
    Raises `InvalidInput` if no view shows the mesh, no view shows a face, or next to nothing of the result is face.
    """
    settings = settings or RevoteSettings()
    cameras = fitted_cameras(WHERE, labels, cameras)
    left_out = _check_labels(labels)
    if settings.profile == "legacy":
        return _legacy(mesh, labels, cameras)
    size = _raster_size(cameras, settings.size)
    labels = with_doubtful_borders(labels, settings.border_width, settings.border_weight)
    every: list[ViewVotes] = []
    geometry = FaceGeometry.of(mesh)
    for view in range(len(cameras)):
        camera, facing = cameras[view].resized(*size), (settings.least_facing, settings.facing_power)
        every.append(view_votes(mesh, geometry, labels.of_view(view), camera, *facing))
        if progress is not None:
            progress(view + 1, len(cameras), None)
    _check_overlap(every)
    used = [view for view in range(len(every)) if view not in left_out]
    votes, _ = _gathered([every[view] for view in used], len(mesh.faces), len(labels.classes))
    agreement = [_agreement(each, votes, labels.classes) for each in every]
    for view in used:
        if agreement[view] < settings.least_agreement:
            left_out[view] = f"its labels agree with the vote of all views on {100 * agreement[view]:.0f} %"
    used = [view for view in used if view not in left_out]
    if not used:
        raise InvalidInput(
            f"{WHERE}: every view contradicts the vote of all (they agree on {_percent(agreement)}); check that labels "
            "and views have the same order, or lower `least_agreement`."
        )
    votes, evidence = _gathered([every[view] for view in used], len(mesh.faces), len(labels.classes))
    painted = _painted(every, len(mesh.faces), len(labels.classes))
    gathered = _Gathered(votes, evidence, painted)
    return _decided(mesh, labels.classes, gathered, settings, _Consulted(tuple(agreement), left_out))


def _raster_size(cameras: Cameras, side: int) -> tuple[int, int]:
    """Width and height whose smaller one is `side`, or the labels' own size where that is larger."""
    factor = max(1.0, side / min(cameras.width, cameras.height))
    return round(cameras.width * factor), round(cameras.height * factor)


def _check_labels(labels: ViewLabels) -> dict[int, str]:
    """Views without foreground, with the reason to leave them out; refuses labels without a face."""
    foreground = ~labels.mask("background")
    empty = [view for view in range(len(labels)) if not bool(foreground[view].any())]
    if len(empty) == len(labels):
        raise InvalidInput(
            f"{WHERE}: all {len(labels)} label maps are background; check the views' pictures, and that the label set "
            "is the one of the network."
        )
    if not bool(labels.mask("face").any()):
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in labels.shares().items())
        raise InvalidInput(
            f"{WHERE}: no face found in any of {len(labels)} views (foreground: {shares}); check that some views show "
            "the face from the front, that the label set is the network's, or paint the face in one view."
        )
    return {view: "it has no foreground" for view in empty}


def _check_overlap(every: Sequence[ViewVotes]) -> None:
    overlaps = [each.overlap for each in every]
    if max(overlaps) < MIN_OVERLAP:
        raise InvalidInput(
            f"{WHERE}: the labels do not show this mesh: silhouettes overlap by {_percent(overlaps)} (intersection "
            f"over union), expected at least {100 * MIN_OVERLAP:.0f} % in one view; give the views that were "
            "rendered of the portrait this mesh was made of, in their order."
        )


def _percent(values: Sequence[float]) -> str:
    return f"{100 * min(values):.0f} to {100 * max(values):.0f} %"


def _gathered(views: Sequence[ViewVotes], faces: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean class shares [F, C] over the views that see each face, by their weight; and the evidence [F], at most 1."""
    total, weights = np.zeros((faces, classes)), np.zeros(faces)
    for view in views:
        # A view names each face once, so that plain indexing adds up rightly.
        total[view.faces] += view.weights[:, None] * view.shares
        weights[view.faces] += view.weights
    return total / np.maximum(weights, 1e-12)[:, None], np.minimum(weights, 1.0)


def _part_votes(votes: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Votes [F, 3] of the parts HAIR, CLOTHES and SKIN from those of the classes [F, C]."""
    parts = np.zeros((len(votes), 3))
    for column, name in enumerate(classes):
        if name in PART_OF_CLASS:
            parts[:, PART_OF_CLASS[name]] += votes[:, column]
    return parts


def _agreement(view: ViewVotes, votes: np.ndarray, classes: tuple[str, ...]) -> float:
    """Share of a view's weight that speaks for the part which all views together chose; 1 if it says nothing."""
    weight = view.weights.sum()
    if weight <= 0:
        return 1.0
    chosen = _part_votes(votes[view.faces], classes).argmax(axis=1)
    own = _part_votes(view.shares, classes)[np.arange(len(chosen)), chosen]
    return float((view.weights * own).sum() / weight)


def _painted(views: Sequence[ViewVotes], faces: int, classes: int) -> np.ndarray:
    """How much [F, C] was painted by hand over each face; only views count in which most of the face was painted."""
    total = np.zeros((faces, classes))
    for view in views:
        mostly = view.painted.sum(axis=1) >= 0.5
        total[view.faces[mostly]] += view.painted[mostly]
    return total


def _decided(
    mesh: Mesh,
    classes: tuple[str, ...],
    gathered: _Gathered,
    settings: RevoteSettings,
    consulted: _Consulted,
) -> FaceVotes:
    """Votes, evidence and paint of the faces, smoothed and decided."""
    graph = face_graph(mesh)
    by_hand = gathered.painted.sum(axis=1) > 0
    votes, pinned = gathered.votes.copy(), gathered.evidence.copy()
    votes[by_hand] = np.eye(len(classes))[gathered.painted[by_hand].argmax(axis=1)]
    pinned[by_hand] = PAINTED_EVIDENCE
    if not (pinned > 0).any():
        raise InvalidInput(f"{WHERE}: no view sees a labelled face of the mesh; do labels and mesh belong together?")
    smooth = spread_votes(graph, torch.from_numpy(votes), torch.from_numpy(pinned), settings.smoothing)
    smooth[torch.from_numpy(by_hand)] = torch.from_numpy(votes[by_hand])
    part_votes = torch.from_numpy(_part_votes(smooth.numpy(), classes))
    first = part_votes.argmax(dim=1)
    final = absorb_islands(graph, first, settings.least_island, torch.from_numpy(by_hand))
    parts = MeshParts(mesh, final.to(torch.uint8))
    seen = torch.from_numpy((gathered.evidence > 0) | by_hand)
    report = _reported(graph, final, seen, consulted)
    changed, hand_count = int((final != first).sum()), int(by_hand.sum())
    report = dataclasses.replace(report, island_faces=changed, painted_faces=hand_count)
    return FaceVotes(smooth.float(), classes, _class_of_face(smooth, final, classes), seen, parts, report)


def _class_of_face(votes: Tensor, parts: Tensor, classes: tuple[str, ...]) -> Tensor:
    """The class [F] uint8 with most votes among those of the face's part."""
    part_of_column = torch.tensor([PART_OF_CLASS.get(name, -1) for name in classes])
    allowed = part_of_column[None] == parts[:, None]
    return torch.where(allowed, votes, torch.full_like(votes, -1.0)).argmax(dim=1).to(torch.uint8)


def _reported(graph: FaceGraph, parts: Tensor, seen: Tensor, consulted: _Consulted) -> RevoteReport:
    """Areas and remarks; refuses a result without a face."""
    visible = graph.areas * seen.numpy()
    areas = np.bincount(parts.numpy(), weights=visible, minlength=3) / max(visible.sum(), 1e-12)
    shares = {
        "hair": float(areas[AvatarPart.HAIR]),
        "clothes": float(areas[AvatarPart.CLOTHES]),
        "skin": float(areas[AvatarPart.SKIN]),
    }
    pieces = np.bincount(graph.pieces(), weights=graph.areas)
    report = RevoteReport(
        faces=len(graph),
        piece_shares=tuple((np.sort(pieces)[::-1] / max(pieces.sum(), 1e-12)).tolist()),
        unseen_faces=int((~seen).sum()),
        part_shares=shares,
        agreement=consulted.agreement,
        left_out=consulted.left_out,
    )
    check_skin(WHERE, report)
    return report


def _legacy(mesh: Mesh, labels: ViewLabels, cameras: Cameras) -> FaceVotes:
    """The authors' voting in the form of ours."""
    sums, seen = legacy_votes(mesh, labels, cameras)
    parts, doubled = legacy_parts(mesh, sums)
    votes = torch.zeros(len(mesh.faces), len(labels.classes))
    for column, name in enumerate(("hair", "face")):
        if name in labels.classes:
            votes[:, labels.classes.index(name)] = sums[:, column]
    asked = asked_views(cameras)
    skipped = {view: "the camera is below" for view in range(len(cameras)) if view not in asked}
    report = _reported(face_graph(mesh), parts.long(), seen, _Consulted((), skipped))
    note = f"{doubled} faces lie in the authors' hair and clothes meshes both; here they are hair."
    report = dataclasses.replace(report, remarks=(note,) if doubled else ())
    classes = _class_of_face(votes, parts.long(), labels.classes)
    return FaceVotes(votes, labels.classes, classes, seen, MeshParts(mesh, parts), report)

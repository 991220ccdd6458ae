"""Training of the colour field on views of the mesh (the authors' `texturing.py`; the paper's appendix A1.3).

Every pixel that sees the mesh is an observation: a point of the surface and the colour that a view shows there. The
field is trained on them directly; where the authors render the mesh anew in each step, its geometry never changes.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite
from ..fingerprints import fingerprint
from ..meshes import Mesh, face_normals
from ..progress import Progress, may_stop
from ..randomness import generator_at
from ..render import interpolate, rasterize_mesh
from ..runs import RunState, automatic_run, carry_out
from ..views import Views
from .color_field import ColorField, field_colors, new_color_field, render_field
from .hash_grid_settings import HashGridSettings

_WHERE = "train_color_field"
_ADAM_EPSILON = 1e-8
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclasses.dataclass(frozen=True)
class ColorFieldSettings:
    """How the field is trained. The authors' numbers are those of the 600 iterations, Adam's rate and the jitter."""

    iterations: int = 600
    lr: float = 0.01
    """Learning rate of Adam, for the table and the network."""
    final_share: float = 0.1
    """It falls exponentially to this fraction at the end, so that the field settles between views that disagree.
    10^-0.12 in `paper`."""
    views_per_step: int = 8
    """Views that a step looks at. 1 in `paper`, where each step pulls the colours towards one view's shading."""
    pixels_per_step: int = 16_384
    """Pixels that a step takes of them, at random. In `paper` all of the one picture."""
    key_views: bool = False
    """Whether only the views nearest to front, left, back and right are used, as in `paper`: what those four do not
    see stays without colour."""
    mask_threshold: float = 0.99
    """Pixels with less coverage in the view's mask are not used: their colour is mixed with the background. 0 in
    `paper`, which trusts the mesh's own silhouette."""
    facing_weight: bool = True
    """Whether pixels count by the cosine between surface and sight: at a grazing angle a small error of the geometry
    takes the colour from somewhere else. False in `paper`."""
    smoothness: float = 0.03
    """Weight of the mean change of colour under `jitter`; reached after `smoothness_ramp` steps."""
    smoothness_ramp: int = 500
    jitter: float = 0.01
    """Standard deviation of that displacement, in world units (a head is 0.65 high)."""
    margin: float = 0.04
    """Share of the mesh's size by which the box is larger on every side: no dense grid wraps around then, and jitter is
    not clamped. 0 in `paper`."""
    grid: HashGridSettings = HashGridSettings()
    preview_interval: int = 100
    """Steps between two pictures handed to the report."""

    def __post_init__(self) -> None:
        for name in ("iterations", "views_per_step", "pixels_per_step", "smoothness_ramp", "preview_interval"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"ColorFieldSettings: `{name}` is {getattr(self, name)}, expected at least 1.")
        for name in ("lr", "final_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInput(f"ColorFieldSettings: `{name}` is {getattr(self, name)}, expected above 0 to 1.")
        for name in ("smoothness", "jitter", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"ColorFieldSettings: `{name}` is {getattr(self, name)}, expected at least 0.")

    @classmethod
    def paper(cls) -> ColorFieldSettings:
        """The authors' training."""
        return cls(
            final_share=10**-0.12, views_per_step=1, pixels_per_step=2**31, key_views=True, mask_threshold=0.0,
            facing_weight=False, margin=0.0,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Observations:
    """What the views show of the surface, ordered by view.

    points: [N, 3] world.  colors: [N, 3].  weights: [N].  starts: [B + 1], view b holds the rows from starts[b] up to
    starts[b + 1].
    """

    points: Tensor
    colors: Tensor
    weights: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.points)


def train_color_field(
    mesh: Mesh,
    views: Views,
    settings: ColorFieldSettings = ColorFieldSettings(),
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    runs: Path | None = None,
) -> ColorField:
    """The colours that `views` show on the mesh, as a field; its own vertex colours or texture are not looked at.

    seed: decides start, order and jitter.  progress: called after each step, with an image of the first view every
    `settings.preview_interval` steps.  device: where it is trained; the field comes back on the CPU.  runs: folder of
    unfinished runs (`runs.automatic_run`); a training that was stopped there goes on where it was.

    Raises `InvalidInput` for a mesh without faces, non-finite values, and views that do not see the mesh.
    """
    check_finite(_WHERE, "views.images", views.images)
    # The caller may be inside inference mode, whose tensors cannot take part in training.
    with torch.inference_mode(False), torch.enable_grad():
        mesh = dataclasses.replace(mesh, vertices=mesh.vertices.clone(), faces=mesh.faces.clone())
        training = _Training(mesh, observe(mesh, views, settings), settings, seed, torch.device(device))
        run = None
        if runs is not None:
            geometry = (mesh.vertices, mesh.faces)
            key = {"mesh": fingerprint(geometry), "views": fingerprint(views), "settings": repr(settings)}
            run = automatic_run(runs, "color_field", {**key, "seed": str(seed)})

        def report() -> None:
            if progress is not None:
                progress(training.step_index, settings.iterations, _preview(mesh, training, views))

        carry_out(training, run, report)
        if run is not None:
            run.remove()
        return _on(training.field, torch.device("cpu"))


def _preview(mesh: Mesh, training: _Training, views: Views) -> Tensor | None:
    """The first view in the field's colours [H, W, 3] at every interval and at the end, else None."""
    done, settings = training.step_index, training.settings
    if done % settings.preview_interval and done != settings.iterations:
        return None
    return render_field(mesh, _on(training.field, torch.device("cpu")), views.cameras[0], views.background)[0]


class _Training:
    """A colour field in training (`runs.Work`); what a step draws depends on (seed, step)."""

    def __init__(
        self, mesh: Mesh, seen: Observations, settings: ColorFieldSettings, seed: int, device: torch.device
    ) -> None:
        self.steps, self.step_index = settings.iterations, 0
        self.settings, self._seen, self._seed = settings, seen, seed
        low, high = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
        # A flat mesh still needs a box with volume.
        border = (settings.margin * (high - low)).clamp_min(settings.jitter + 1e-3)
        border = border if settings.margin else torch.where(high > low, 0.0, border)
        start = generator_at(seed, "color_field", "start")
        self.field = _on(new_color_field(low - border, high + border, start, settings.grid), device)
        self._leaves = [value.requires_grad_() for value in (self.field.table, *self.field.weights)]
        # torch's fused Adam takes half the time of one made of single operations: the table has millions of rows.
        self._optimizer = torch.optim.Adam(self._leaves, lr=settings.lr, eps=_ADAM_EPSILON, fused=True)

    def step(self) -> None:
        settings = self.settings
        lr = settings.lr * settings.final_share ** (self.step_index / settings.iterations)
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.zero_grad()
        generator = generator_at(self._seed, "color_field", self.step_index)
        _loss(self.field, self._seen, self.step_index, settings, generator).backward()
        self._optimizer.step()
        self.step_index += 1

    def state(self) -> RunState:
        tensors = {}
        for index, leaf in enumerate(self._leaves):
            moments = self._optimizer.state[leaf]
            tensors[f"{index}.value"] = leaf.detach().clone()
            tensors |= {f"{index}.{name}": moments[name].clone() for name in _MOMENTS}
        return RunState(tensors, {"step": self.step_index})

    def restore(self, state: RunState) -> None:
        self.step_index = int(state.values["step"])
        for index, leaf in enumerate(self._leaves):
            with torch.no_grad():
                leaf.copy_(state.tensors[f"{index}.value"])
            moments = {name: state.tensors[f"{index}.{name}"].to(leaf.device) for name in _MOMENTS}
            self._optimizer.state[leaf] = moments


def observe(mesh: Mesh, views: Views, settings: ColorFieldSettings) -> Observations:
    """Every pixel of the views that sees the mesh and that `settings` allow."""
    check_finite(_WHERE, "mesh.vertices", mesh.vertices)
    if len(mesh.faces) == 0 or len(views) == 0:
        raise InvalidInput(f"{_WHERE}: {len(mesh.faces)} faces and {len(views)} views, expected at least 1 of each.")
    if settings.key_views:
        views = views[key_views(views)]
    centers = views.cameras.camera_centers
    normals = torch.nn.functional.normalize(face_normals(mesh.vertices, mesh.faces), dim=-1)
    points, colors, weights = [], [], []
    for index in range(len(views)):
        may_stop()
        image = rasterize_mesh(mesh.vertices, mesh.faces, views.cameras[index])
        used = image.mask[0] & (views.masks[index] >= settings.mask_threshold)
        positions = interpolate(image, mesh.faces, mesh.vertices)[0][used]
        sight = torch.nn.functional.normalize(centers[index] - positions, dim=-1)
        facing = (normals[image.face_id[0][used]] * sight).sum(-1).abs()
        points.append(positions)
        colors.append(views.images[index][used].clone())
        weights.append(facing if settings.facing_weight else torch.ones_like(facing))
    starts = torch.tensor([0, *(len(part) for part in points)]).cumsum(0)
    if int(starts[-1]) == 0:
        size = f"{views.cameras.width} x {views.cameras.height}"
        raise InvalidInput(
            f"{_WHERE}: none of the {len(views)} views of {size} pixels shows the mesh where its mask is at least "
            f"{settings.mask_threshold}; mesh and views must be of the same portrait, and the masks not empty."
        )
    return Observations(torch.cat(points), torch.cat(colors), torch.cat(weights), starts)


def key_views(views: Views) -> list[int]:
    """Indices of the views nearest to level cameras in front, at the left, behind and at the right."""
    directions = torch.nn.functional.normalize(views.cameras.camera_centers, dim=-1)
    wanted = directions.new_tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]])
    return sorted(set((wanted @ directions.T).argmax(dim=1).tolist()))


def tone_map(colors: Tensor) -> Tensor:
    """sRGB curve of log(1 + x) of colours [..., 3], as the authors compare them: errors in the dark count more."""
    logarithm = torch.log1p(colors)
    curve = 1.055 * logarithm.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(logarithm > 0.0031308, curve, 12.92 * logarithm)


def _loss(
    field: ColorField, seen: Observations, step: int, settings: ColorFieldSettings, generator: torch.Generator
) -> Tensor:
    """Weighted L1 of tone-mapped colours, and of the colours' change under jitter."""
    rows = _draw(seen, settings, generator)
    device = field.table.device
    points, colors, weights = (part[rows].to(device) for part in (seen.points, seen.colors, seen.weights))
    moved = points + settings.jitter * torch.randn(points.shape, generator=generator).to(device)
    # One evaluation of both halves: the kernels' start costs as much as thousands of points.
    found, found_moved = field_colors(field, torch.cat([points, moved])).split(len(points))
    total = weights.sum().clamp_min(1e-12) * colors.shape[1]
    difference = ((tone_map(found) - tone_map(colors)).abs() * weights[:, None]).sum() / total
    strength = settings.smoothness * min(1.0, step / settings.smoothness_ramp)
    return difference + strength * (found_moved - found).abs().mean()


def _draw(seen: Observations, settings: ColorFieldSettings, generator: torch.Generator) -> Tensor:
    """Rows of one step: pixels of a few views that show the mesh, all of a view that has few."""
    counts = seen.starts.diff()
    candidates = counts.nonzero()[:, 0]
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[: settings.views_per_step]]
    share = max(1, settings.pixels_per_step // len(chosen))
    rows = []
    for view in chosen.tolist():
        count, start = int(counts[view]), int(seen.starts[view])
        few = count <= share
        offsets = torch.arange(count) if few else torch.randint(count, (share,), generator=generator)
        rows.append(start + offsets)
    return torch.cat(rows)


def _on(field: ColorField, device: torch.device) -> ColorField:
    """The field on a device, outside any graph; shares memory with the original where it is there already."""
    values = (field.table, field.low, field.high, *field.weights)
    table, low, high, first, second, third = (value.detach().to(device) for value in values)
    return dataclasses.replace(field, table=table, weights=(first, second, third), low=low, high=high)

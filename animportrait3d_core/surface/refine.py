"""Mesh refinement: vertices are moved until the rendered normals are those seen in the views (paper, equation A2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..mesh_queries import SurfaceTree, surface_colors
from ..meshes import Mesh, vertex_normals
from ..previews import shaded_mesh
from ..progress import Progress, may_stop
from ..randomness import shuffled_rows
from ..render import antialias, interpolate, rasterize_mesh
from ..render.antialias import mesh_edges
from ..runs import RunState, automatic_run, carry_out
from ..views import Views
from .decimation import decimate
from .losses import consistency_loss, distance_loss, normal_loss, silhouette_loss
from .marching_cubes import smooth_mesh
from .preconditioner import SmoothSteps, UniformAdam
from .preparation import LARGEST_INVERTED_SHARE, face_pairs, inverted_share, mesh_volume, prepare_mesh
from .remesh import isotropic_remesh
from .settings import REFERENCE_EDGE, RefineSettings
from .view_normals import ViewNormals, check_view_normals, resized_normals, world_normals

_WHERE = "refine_mesh"
EMPTY_SHARE = 1e-3  # a view whose mask covers less of its picture has no foreground
VOLUME_RANGE = (0.5, 2.0)  # of the volume at the start; beyond, the run has diverged
STEPS_BETWEEN_PICTURES = 10
PREVIEW_SIZE = 320


@dataclasses.dataclass(frozen=True)
class RefinedMesh:
    """mesh: closed if the given one was, wound outward, with vertex colours if that had colours.

    losses: per term, one value per iteration [I], unweighted.  metrics: numbers about the run.  notes: what the user
    should know: pieces dropped, views left out.
    """

    mesh: Mesh
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """What happened, in a few lines for the user."""
        tail = max(1, len(self.losses["normal"]) // 20)
        start, end = (float(part.mean()) for part in (self.losses["normal"][:tail], self.losses["normal"][-tail:]))
        lines = [
            f"{self.metrics['faces_before']:.0f} faces became {self.metrics['faces']:.0f}, with "
            f"{self.metrics['views']:.0f} views; the normal loss fell from {start:.4f} to {end:.4f}."
        ]
        return "\n".join([*lines, *self.notes])


@dataclasses.dataclass(frozen=True)
class ViewTargets:
    """What the renders are compared with: world normals and their weights, mattes and cameras of B usable views."""

    normals: Tensor
    weights: Tensor
    mattes: Tensor
    cameras: Cameras


def refine_mesh(
    mesh: Mesh,
    normals: ViewNormals,
    views: Views,
    settings: RefineSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    runs: Path | None = None,
) -> RefinedMesh:
    """Refines a raw surface with the normals and mattes of its views (all of them; the authors use four).

    mesh: in the world of the views' cameras.  normals: one image per view, of the views' size.  seed: draws the views
    of each step.  progress: called as progress(step, total, image or None).  runs: folder of unfinished runs
    (`runs.automatic_run`); a refinement that was stopped there goes on where it was.

    Raises `ShapeMismatch` for normals of another count or size, `InvalidInput` for a mesh without faces, views without
    foreground, a run that diverges, or a result that is inside out.
    """
    settings = settings or RefineSettings()
    check_view_normals(_WHERE, normals, views)
    prepared = prepare_mesh(mesh, settings.min_piece_share)
    targets, notes = view_targets(normals, views, settings)
    smoothed = smooth_mesh(prepared.mesh, settings.smoothing_steps)
    if settings.raw_weight:
        targets = with_surface_normals(targets, smoothed, settings.raw_weight)
    refinement = Refinement(targets, settings, seed, smoothed)
    run = None
    if runs is not None:
        inputs = {"mesh": fingerprint(mesh), "normals": fingerprint(normals), "views": fingerprint(views)}
        run = automatic_run(runs, _WHERE, {**inputs, "settings": repr(settings), "seed": str(seed)})
    carry_out(refinement, run, lambda: refinement.show(progress))
    final = decimate(refinement.mesh(), settings.face_budget)
    inverted = _check_result(final)
    if mesh.texture is not None or mesh.vertex_colors is not None:
        final = dataclasses.replace(final, vertex_colors=surface_colors(mesh, final.vertices))
    metrics = {
        "faces_before": float(len(mesh.faces)), "faces": float(len(final.faces)), "views": float(len(targets.cameras)),
        "volume_ratio": mesh_volume(final) / mesh_volume(prepared.mesh), "inverted_share": inverted,
    }  # fmt: skip
    losses = {name: torch.tensor(values) for name, values in refinement.losses.items()}
    if run is not None:
        run.remove()
    return RefinedMesh(final, losses, metrics, (*prepared.notes, *notes))


def view_targets(normals: ViewNormals, views: Views, settings: RefineSettings) -> tuple[ViewTargets, tuple[str, ...]]:
    """Targets of the views that have a foreground, at the size they are rendered at."""
    seen = (views.masks > 0.5).flatten(1).float().mean(dim=1)
    known = (normals.masks > 0.5).flatten(1).float().mean(dim=1)
    usable = torch.nonzero((seen > EMPTY_SHARE) & (known > EMPTY_SHARE)).squeeze(1)
    if not len(usable):
        raise InvalidInput(
            f"{_WHERE}: none of the {len(views)} views has a foreground (their masks cover at most "
            f"{100 * float(seen.max()):.2g} % of the picture, the normals' at most {100 * float(known.max()):.2g} %); "
            "render the views again, or give masks that are 1 on the subject."
        )
    notes = []
    if len(usable) < len(views):
        empty = sorted(set(range(len(views))) - set(usable.tolist()))
        shown = ", ".join(str(index) for index in empty[:12]) + (", ..." if len(empty) > 12 else "")
        notes.append(f"Left out {len(empty)} of {len(views)} views without foreground: {shown}.")
    scale = min(1.0, settings.image_size / max(views.cameras.width, views.cameras.height))
    width, height = max(1, round(scale * views.cameras.width)), max(1, round(scale * views.cameras.height))
    small = resized_normals(normals[usable], width, height)
    cameras = views.cameras[usable].resized(width, height)
    mattes = _resized_masks(views.masks[usable], width, height)
    world = world_normals(small, cameras, settings.rotation)
    return ViewTargets(world, small.masks * (small.masks > 0.5), mattes, cameras), tuple(notes)


def with_surface_normals(targets: ViewTargets, mesh: Mesh, weight: float) -> ViewTargets:
    """Targets whose normals are the means of what they were, counted once, and of a surface's own, counted `weight`.

    Where a view does not show the surface, or the two are opposite, they stay as they were.
    """
    own = vertex_normals(mesh.vertices, mesh.faces)
    fused = []
    for index in range(len(targets.cameras)):
        may_stop()
        image = rasterize_mesh(mesh.vertices, mesh.faces, targets.cameras[index])
        seen = torch.nn.functional.normalize(interpolate(image, mesh.faces, own), dim=-1)[0]
        mean = targets.normals[index] + weight * seen * image.mask[0][..., None]
        length = mean.norm(dim=-1, keepdim=True)
        fused.append(torch.where(length > 1e-3, mean / length.clamp_min(1e-3), targets.normals[index]))
    # What the targets did not know stays unknown: the surface alone must not count as an estimate.
    known = (targets.normals.norm(dim=-1, keepdim=True) > 0.5).to(own.dtype)
    return dataclasses.replace(targets, normals=torch.stack(fused) * known)


def _resized_masks(masks: Tensor, width: int, height: int) -> Tensor:
    resized = torch.nn.functional.interpolate(
        masks[:, None], size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[:, 0].clamp(0, 1)


@dataclasses.dataclass(frozen=True)
class Connectivity:
    """What stays the same while the vertices of a mesh move: faces [F, 3], pairs of them that share an edge, edges."""

    faces: Tensor
    pairs: Tensor
    edges: Tensor

    @classmethod
    def of(cls, faces: Tensor, num_vertices: int) -> Connectivity:
        """Found from the faces [F, 3] of a mesh."""
        return cls(faces, face_pairs(faces, num_vertices), mesh_edges(faces))


class _Round:
    """The steps with one length of edges: mesh at its start, variables, optimiser."""

    def __init__(self, mesh: Mesh, surface: SurfaceTree, settings: RefineSettings) -> None:
        self.mesh = mesh
        self.connectivity = Connectivity.of(mesh.faces, len(mesh.vertices))
        self.system = SmoothSteps(mesh.faces, len(mesh.vertices), settings.smoothness)
        self.variables = self.system.variables(mesh.vertices)
        self.optimizer = UniformAdam(self.variables, settings.lr)
        # The same anchors for all steps: a sheet of hair that could slide over the cheek would.
        self.anchors = surface.closest(mesh.vertices).points

    def moved(self) -> Mesh:
        """The mesh as it is now."""
        return dataclasses.replace(self.mesh, vertices=self.system.solve(self.variables))


class Refinement:
    """One optimisation in work (`runs.Work`), in rounds: the mesh is remeshed to each length of edges in turn.

    losses: unweighted terms of all steps. The views of a step depend on (seed, step).
    """

    def __init__(self, targets: ViewTargets, settings: RefineSettings, seed: int, mesh: Mesh) -> None:
        self.targets, self.settings = targets, settings
        self.steps, self.step_index = settings.iterations, 0
        self.losses: dict[str, list[float]] = {"normal": [], "silhouette": [], "consistency": [], "distance": []}
        self._seed, self._start, self._surface = seed, mesh, SurfaceTree(mesh.vertices, mesh.faces)
        self._consistency_weight = settings.consistency_weight
        self._rounds_begun = 0
        self._round: _Round | None = None

    def step(self) -> None:
        """Move the vertices once."""
        now = self._round
        while now is None or self.step_index == self._end_of(self._rounds_begun):
            now = self._begin_round(isotropic_remesh(self.mesh(), self.settings.edge_lengths[self._rounds_begun]))
        vertices = now.system.solve(now.variables).requires_grad_()
        loss = self.loss(vertices, now.connectivity, now.anchors)
        (gradient,) = torch.autograd.grad(loss, vertices)
        self._check_step(loss, gradient)
        now.optimizer.lr = self._lr()
        now.optimizer.step(now.system.solve(gradient))
        self.step_index += 1
        if self.step_index == self._end_of(self._rounds_begun):
            self._check_volume(mesh_volume(now.moved()) / mesh_volume(now.mesh))

    @property
    def next_step_is_long(self) -> bool:
        """Whether the triangles are made anew, so that a stop should not wait for its end."""
        return self._round is not None and self.step_index == self._end_of(self._rounds_begun)

    def mesh(self) -> Mesh:
        """The mesh as it is now."""
        return self._start if self._round is None else self._round.moved()

    def state(self) -> RunState:
        """The round's mesh and variables, its optimiser, and all losses."""
        now = self._round
        if now is None:
            raise RuntimeError(f"{_WHERE}: there is no state before the first step.")
        tensors = {"vertices": now.mesh.vertices, "faces": now.mesh.faces, "variables": now.variables.clone()}
        tensors |= {f"optimizer.{name}": value for name, value in now.optimizer.state_dict().items()}
        tensors |= {f"losses.{name}": torch.tensor(found).double() for name, found in self.losses.items()}
        return RunState(tensors, {"step": self.step_index, "round": self._rounds_begun})

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of the same mesh, targets, settings and seed."""
        tensors, prefix = state.tensors, "optimizer."
        self.step_index, self._rounds_begun = int(state.values["step"]), int(state.values["round"]) - 1
        now = self._begin_round(dataclasses.replace(self._start, vertices=tensors["vertices"], faces=tensors["faces"]))
        now.variables.copy_(tensors["variables"])
        moments = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        now.optimizer.load_state_dict(moments)
        self.losses = {name: tensors[f"losses.{name}"].tolist() for name in self.losses}

    def _begin_round(self, mesh: Mesh) -> _Round:
        length = self.settings.edge_lengths[self._rounds_begun]
        self._consistency_weight = self.settings.consistency_weight * (REFERENCE_EDGE / length) ** 2
        self._round = _Round(mesh, self._surface, self.settings)
        self._rounds_begun += 1
        return self._round

    def _end_of(self, rounds: int) -> int:
        """The step at which so many rounds are done."""
        return round(self.settings.iterations * rounds / len(self.settings.edge_lengths))

    def loss(self, vertices: Tensor, connectivity: Connectivity, anchors: Tensor) -> Tensor:
        """Equation A2 with silhouettes, over the views of this step, and the distance to where it began."""
        targets, settings, faces = self.targets, self.settings, connectivity.faces
        size = min(settings.batch, len(targets.cameras))
        chosen = shuffled_rows(len(targets.cameras), self.step_index * size, size, self._seed, _WHERE)
        cameras = targets.cameras[chosen]
        image = rasterize_mesh(vertices, faces, cameras)
        covered = (image.face_id >= 0).to(vertices.dtype)
        rendered = interpolate(image, faces, vertex_normals(vertices, faces), vertices, cameras)
        coverage = antialias(covered[..., None], image, vertices, faces, cameras, connectivity.edges)[..., 0]
        terms = {
            "normal": normal_loss(rendered, targets.normals[chosen], targets.weights[chosen] * covered),
            "silhouette": silhouette_loss(coverage, targets.mattes[chosen]),
            "consistency": consistency_loss(vertices, faces, connectivity.pairs),
            "distance": distance_loss(vertices, anchors),
        }
        for name, value in terms.items():
            self.losses[name].append(float(value.detach()))
        weights = {
            "normal": settings.normal_weight,
            "silhouette": settings.silhouette_weight,
            "consistency": self._consistency_weight,
            "distance": settings.distance_weight,
        }
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    def _lr(self) -> float:
        """From the full rate to a tenth of it along half a cosine."""
        done = self.step_index / max(self.steps - 1, 1)
        return self.settings.lr * (0.55 + 0.45 * math.cos(math.pi * done))

    def _check_step(self, loss: Tensor, gradient: Tensor) -> None:
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(gradient).all()):
            return
        raise InvalidInput(
            f"{_WHERE}: the loss or its gradient was not finite at step {self.step_index + 1} of {self.steps} "
            f"(loss {float(loss.detach()):.4g}); lower lr (now {self.settings.lr:g})."
        )

    def _check_volume(self, ratio: float) -> None:
        low, high = VOLUME_RANGE
        if low <= ratio <= high:
            return
        raise InvalidInput(
            f"{_WHERE}: the mesh's volume is {ratio:.3g} of what it was, after {self.step_index} of {self.steps} "
            f"steps, expected {low:g} to {high:g}: the run diverged. Lower lr (now {self.settings.lr:g}), or check "
            "that normals, masks and cameras belong to this mesh."
        )

    def show(self, progress: Progress | None) -> None:
        """Report the last step, now and then with an image of the mesh."""
        if progress is None:
            return
        image = None
        if self.step_index % STEPS_BETWEEN_PICTURES == 0 or self.step_index == self.steps:
            mesh = self.mesh()
            image = shaded_mesh(mesh.vertices, mesh.faces, orbit_cameras([20], [5], PREVIEW_SIZE))[0]
        progress(self.step_index, self.steps, image)


def _check_result(mesh: Mesh) -> float:
    """Share of the visible surface that is seen from inside; raises unless the mesh is finite and wound outward."""
    volume = mesh_volume(mesh)
    inverted = inverted_share(mesh)
    if math.isfinite(volume) and volume > 0 and inverted <= LARGEST_INVERTED_SHARE:
        return inverted
    raise InvalidInput(
        f"{_WHERE}: the refined mesh is damaged: volume {volume:.3g} (expected above 0), {100 * inverted:.1f} % of its "
        f"visible surface inside out (expected at most {100 * LARGEST_INVERTED_SHARE:g} %). Lower lr, or "
        "check that normals, masks and cameras belong to this mesh."
    )

"""Mesh refinement: vertices are moved until the rendered normals are those seen in the views (paper, equation A2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras
from ..errors import InvalidInput
from ..mesh_queries import SurfaceTree, surface_colors
from ..meshes import Mesh, vertex_normals
from ..previews import shaded_mesh
from ..progress import Progress
from ..render import antialias, interpolate, rasterize_mesh
from ..render.antialias import mesh_edges
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
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> RefinedMesh:
    """Refines a raw surface with the normals and mattes of its views (all of them; the authors use four).

    mesh: in the world of the views' cameras.  normals: one picture per view, of the views' size.  generator: draws the
    views of each step; seeded with 0 if not given.  progress: called as progress(step, total, picture or None).

    Raises `ShapeMismatch` for normals of another count or size, `InvalidInput` for a mesh without faces, views without
    foreground, a run that diverges, or a result that is inside out.
    """
    settings = settings or RefineSettings()
    generator = generator or torch.Generator().manual_seed(0)
    check_view_normals(_WHERE, normals, views)
    prepared = prepare_mesh(mesh, settings.min_piece_share)
    targets, notes = view_targets(normals, views, settings)
    smoothed = smooth_mesh(prepared.mesh, settings.smoothing_steps)
    if settings.raw_weight:
        targets = with_surface_normals(targets, smoothed, settings.raw_weight)
    run = Refinement(targets, settings, generator, progress, smoothed)
    optimized = run.optimize()
    final = decimate(optimized, settings.face_budget)
    inverted = _check_result(final)
    if mesh.texture is not None or mesh.vertex_colors is not None:
        final = dataclasses.replace(final, vertex_colors=surface_colors(mesh, final.vertices))
    metrics = {
        "faces_before": float(len(mesh.faces)), "faces": float(len(final.faces)), "views": float(len(targets.cameras)),
        "volume_ratio": mesh_volume(final) / mesh_volume(prepared.mesh), "inverted_share": inverted,
    }  # fmt: skip
    losses = {name: torch.tensor(values) for name, values in run.losses.items()}
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


class Refinement:
    """One optimisation: what stays the same over its iterations, and the record of its losses."""

    def __init__(
        self,
        targets: ViewTargets,
        settings: RefineSettings,
        generator: torch.Generator,
        progress: Progress | None,
        mesh: Mesh,
    ) -> None:
        self.targets, self.settings, self.generator, self.progress = targets, settings, generator, progress
        self.losses: dict[str, list[float]] = {"normal": [], "silhouette": [], "consistency": [], "distance": []}
        self._start, self._surface = mesh, SurfaceTree(mesh.vertices, mesh.faces)
        self._batches = self._view_batches()
        self._consistency_weight = settings.consistency_weight

    def optimize(self) -> Mesh:
        """The mesh after all iterations, remeshed to each edge length in turn."""
        mesh, settings = self._start, self.settings
        count = len(settings.edge_lengths)
        bounds = [round(settings.iterations * part / count) for part in range(count + 1)]
        for length, first, last in zip(settings.edge_lengths, bounds, bounds[1:]):
            self._consistency_weight = settings.consistency_weight * (REFERENCE_EDGE / length) ** 2
            mesh = self._steps(isotropic_remesh(mesh, length), range(first, last))
        return mesh

    def _steps(self, mesh: Mesh, steps: range) -> Mesh:
        """The mesh after some iterations with fixed faces."""
        faces = mesh.faces
        pairs = face_pairs(faces, len(mesh.vertices))
        edges = mesh_edges(faces)
        volume = mesh_volume(mesh)
        system = SmoothSteps(faces, len(mesh.vertices), self.settings.smoothness)
        variables = system.variables(mesh.vertices)
        optimizer = UniformAdam(variables, self.settings.learning_rate)
        # The same anchors for all steps: a sheet of hair that could slide over the cheek would.
        anchors = self._surface.closest(mesh.vertices).points
        for step in steps:
            vertices = system.solve(variables).requires_grad_()
            loss = self.loss(vertices, faces, pairs, edges, anchors)
            (gradient,) = torch.autograd.grad(loss, vertices)
            self._check_step(step, loss, gradient)
            optimizer.learning_rate = self._learning_rate(step)
            optimizer.step(system.solve(gradient))
            self._report(step + 1, vertices.detach(), faces)
        moved = dataclasses.replace(mesh, vertices=system.solve(variables))
        self._check_volume(steps.stop, mesh_volume(moved) / volume)
        return moved

    def loss(self, vertices: Tensor, faces: Tensor, pairs: Tensor, edges: Tensor, anchors: Tensor) -> Tensor:
        """Equation A2 with silhouettes, over the views of the next batch, and the distance to where it began."""
        chosen = next(self._batches)
        targets, settings = self.targets, self.settings
        cameras = targets.cameras[chosen]
        image = rasterize_mesh(vertices, faces, cameras)
        covered = (image.face_id >= 0).to(vertices.dtype)
        rendered = interpolate(image, faces, vertex_normals(vertices, faces), vertices, cameras)
        coverage = antialias(covered[..., None], image, vertices, faces, cameras, edges)[..., 0]
        terms = {
            "normal": normal_loss(rendered, targets.normals[chosen], targets.weights[chosen] * covered),
            "silhouette": silhouette_loss(coverage, targets.mattes[chosen]),
            "consistency": consistency_loss(vertices, faces, pairs),
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

    def _learning_rate(self, step: int) -> float:
        """From the full rate to a tenth of it along half a cosine."""
        done = step / max(self.settings.iterations - 1, 1)
        return self.settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))

    def _view_batches(self) -> Iterator[list[int]]:
        """Views without end; every view comes once before one comes again."""
        count = len(self.targets.cameras)
        size = min(self.settings.batch, count)
        waiting: list[int] = []
        while True:
            if len(waiting) < size:
                waiting += torch.randperm(count, generator=self.generator).tolist()
            yield waiting[:size]
            waiting = waiting[size:]

    def _check_step(self, step: int, loss: Tensor, gradient: Tensor) -> None:
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(gradient).all()):
            return
        raise InvalidInput(
            f"{_WHERE}: the loss or its gradient was not finite at step {step + 1} of {self.settings.iterations} "
            f"(loss {float(loss.detach()):.4g}); lower learning_rate (now {self.settings.learning_rate:g})."
        )

    def _check_volume(self, step: int, ratio: float) -> None:
        low, high = VOLUME_RANGE
        if low <= ratio <= high:
            return
        raise InvalidInput(
            f"{_WHERE}: the mesh's volume is {ratio:.3g} of what it was, after {step} of {self.settings.iterations} "
            f"steps, expected {low:g} to {high:g}: the run diverged. Lower learning_rate (now "
            f"{self.settings.learning_rate:g}), or check that normals, masks and cameras belong to this mesh."
        )

    def _report(self, step: int, vertices: Tensor, faces: Tensor) -> None:
        if self.progress is None:
            return
        total = self.settings.iterations
        picture = None
        if step % STEPS_BETWEEN_PICTURES == 0 or step == total:
            picture = shaded_mesh(vertices, faces, orbit_cameras([20], [5], PREVIEW_SIZE))[0]
        self.progress(step, total, picture)


def _check_result(mesh: Mesh) -> float:
    """Share of the visible surface that is seen from inside; raises unless the mesh is finite and wound outward."""
    volume = mesh_volume(mesh)
    inverted = inverted_share(mesh)
    if math.isfinite(volume) and volume > 0 and inverted <= LARGEST_INVERTED_SHARE:
        return inverted
    raise InvalidInput(
        f"{_WHERE}: the refined mesh is damaged: volume {volume:.3g} (expected above 0), {100 * inverted:.1f} % of its "
        f"visible surface inside out (expected at most {100 * LARGEST_INVERTED_SHARE:g} %). Lower learning_rate, or "
        "check that normals, masks and cameras belong to this mesh."
    )

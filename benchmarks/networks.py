"""The 2D networks on renders of the shipped portraits, against the truth of their identities: the gap that matters.

    python benchmarks/networks.py                                    # the embedded weights
    python benchmarks/networks.py --network parts=RUN/network --network normals=OTHER/network --output DIR
    python benchmarks/networks.py --portrait amara=FILE.safetensors  # one portrait, from another file

The networks are trained on renders of meshes; portraits are volumes, softer and noisier. For each portrait the same
cameras see the portrait and its identity's true figure. Writes DIR/networks.json and DIR/networks-<portrait>.png, and
prints a table: per portrait mean IoU of the parts, mean angle of the normals where both figures are, error of the
visible landmarks over the outer-eye distance. `truth` in the table: the same networks on the true figure's own renders;
`picture alone`: without the surface that some of the networks look at.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core import previews  # noqa: E402
from animportrait3d_core.cameras import Cameras, concatenate_cameras, view_preset, yaw_of  # noqa: E402
from animportrait3d_core.depths import normals_of_depth  # noqa: E402
from animportrait3d_core.embedded.identities import (  # noqa: E402
    Identity,
    IdentityImage,
    IdentityRenderSettings,
    prepare_identity,
    render_identity,
)
from animportrait3d_core.embedded.portraits import (  # noqa: E402
    SHIPPED_PORTRAITS,
    portrait_identity,
    shipped_portrait_file,
)
from animportrait3d_core.embedded.weights import embedded_network_folder  # noqa: E402
from animportrait3d_core.errors import MissingModelFile  # noqa: E402
from animportrait3d_core.files import write_json  # noqa: E402
from animportrait3d_core.networks import (  # noqa: E402
    ROLES,
    ImageNetwork,
    detect_landmarks,
    estimate_normals,
    load_network,
    segment_images,
)
from animportrait3d_core.parts import (
    FIGURE_PARTS,  # noqa: E402
    PART_CLASSES,  # noqa: E402
)
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait  # noqa: E402
from animportrait3d_core.portrait.views import render_views  # noqa: E402
from animportrait3d_core.training.images import class_table  # noqa: E402
from animportrait3d_core.training.metrics import (  # noqa: E402
    ConfusionCounts,
    angles_between,
    normalized_landmark_errors,
)
from animportrait3d_core.views import Views  # noqa: E402

FRONTAL_DEGREES = 40.0
SHOWN = [0, 3, 5, 8, 12, 14, 16, 19]
CLASS_COLORS = torch.tensor(
    [[255, 255, 255], [240, 190, 160], [120, 70, 40], [70, 100, 200], [60, 180, 90], [210, 40, 60], [90, 10, 30]]
) / 255.0  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scene:
    """One portrait and its truth from the same cameras."""

    name: str
    views: Views
    truth: IdentityImage

    @property
    def true_normals(self) -> Tensor:
        """Of the depth [B, H, W, 3] of the true figure, as those of views are."""
        return normals_of_depth(torch.where(self.truth.alpha > 0.5, self.truth.depth, 0.0), self.views.cameras)


Seen = tuple[Tensor, Tensor | None]
"""Pictures [B, H, W, 3], and the normals of the surface beside them."""


def scene_cameras(size: int) -> Cameras:
    """12 views from all around, and 8 close ones of the face."""
    return concatenate_cameras([view_preset("heldout", size), view_preset("face", size)[list(range(0, 24, 3))]])


def make_scene(name: str, file: Path, identity: Identity, size: int) -> Scene:
    """Render portrait and truth."""
    cameras = scene_cameras(size)
    views = render_views(load_trigrid_portrait(file), cameras)
    prepared = prepare_identity(identity)
    return Scene(name, views, render_identity(prepared, None, cameras, IdentityRenderSettings(condition=False)))


def parts_figures(network: ImageNetwork, scene: Scene, seen: Seen) -> tuple[dict[str, float], Tensor]:
    """Mean IoU and that of each class; the labels found."""
    labels = segment_images(network, seen[0], normals=seen[1]).argmax(-1)
    counts = ConfusionCounts(len(PART_CLASSES))
    counts.add(labels, class_table(FIGURE_PARTS)[scene.truth.parts.long()])
    each = {f"iou_{name}": value for name, value in zip(PART_CLASSES, counts.iou().tolist(), strict=True)}
    return {"mean_iou": counts.mean_iou(), **each}, labels


def normals_figures(network: ImageNetwork, scene: Scene, seen: Seen) -> tuple[dict[str, float], Tensor]:
    """Mean and median angle where both the portrait and the true figure are; the normals found."""
    normals = estimate_normals(network, seen[0], torch.ones(seen[0].shape[:3]))
    both = (scene.views.masks > 0.9) & (scene.truth.alpha > 0.9)
    angles = angles_between(normals[both], scene.truth.normals[both])
    return {"mean_angle": float(angles.mean()), "median_angle": float(angles.median())}, normals


def landmarks_figures(network: ImageNetwork, scene: Scene, seen: Seen) -> tuple[dict[str, float], Tensor]:
    """Error over the outer-eye distance of faces seen from within 40 degrees, and in which of them a face is found."""
    points, _, found = detect_landmarks(network, seen[0], normals=seen[1])
    truth, yaws = scene.truth.landmarks[:, :68], yaw_of(scene.views.cameras).abs()
    frontal = yaws < FRONTAL_DEGREES
    inside = ((truth > 0) & (truth < seen[0].shape[1])).all(-1).float()
    errors = normalized_landmark_errors(points, truth, inside)[frontal & found]
    behind = yaws > 120
    return {
        "landmark_error": float(errors.mean()) if len(errors) else float("nan"),
        "found_in_front": float(found[frontal].float().mean()),
        "found_behind": float(found[behind].float().mean()),
    }, torch.where(found[:, None, None], points, torch.full_like(points, -9.0))


FIGURES = {"parts": parts_figures, "normals": normals_figures, "landmarks": landmarks_figures}


def drawn(role: str, scene: Scene, answer: Tensor) -> Tensor:
    """TrainingImages [B, H, W, 3] of a network's answer, over white outside of the portrait."""
    if role == "landmarks":
        return previews.draw_points(scene.views.images, answer, (1.0, 0.0, 0.0), radius=1)
    pictures = CLASS_COLORS[answer] if role == "parts" else answer * 0.5 + 0.5
    return torch.where(scene.views.masks[..., None] > 0.5, pictures, torch.ones_like(pictures))


def measure(scenes: list[Scene], networks: dict[str, ImageNetwork], folder: Path) -> dict[str, dict[str, float]]:
    """All figures of all scenes, for the portraits and for the true figures; one sheet of pictures per scene."""
    table: dict[str, dict[str, float]] = {}
    for scene in scenes:
        rows = {"portrait": scene.views.images}
        kinds: dict[str, Seen] = {scene.name: (scene.views.images, scene.views.normals)}
        if any(network.sees_normals for network in networks.values()):
            kinds[f"{scene.name}, picture alone"] = (scene.views.images, None)
        kinds[f"{scene.name}, truth"] = (scene.truth.rgb, scene.true_normals)
        for kind, seen in kinds.items():
            table[kind] = {}
            for role, network in networks.items():
                figures, answer = FIGURES[role](network, scene, seen)
                table[kind] |= figures
                if kind == scene.name:
                    rows[role] = drawn(role, scene, answer)
        pictures = torch.cat([row[SHOWN] for row in rows.values()])
        previews.write_png(previews.tile(pictures, columns=len(SHOWN)), folder / f"networks-{scene.name}.png")
    return table


def print_table(table: dict[str, dict[str, float]]) -> None:
    """Markdown."""
    names = [name for name in ("mean_iou", "mean_angle", "landmark_error", "found_in_front", "found_behind")
             if any(name in row for row in table.values())]  # fmt: skip
    print("| portrait | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for kind, row in table.items():
        print(f"| {kind} | " + " | ".join(f"{row[name]:.4f}" if name in row else "" for name in names) + " |")


def chosen_networks(choices: list[str]) -> dict[str, ImageNetwork]:
    """The networks asked for as ROLE=FOLDER, else the embedded ones that are there."""
    if choices:
        return {role: load_network(folder, role) for role, _, folder in (choice.partition("=") for choice in choices)}
    networks = {}
    for role in ROLES:
        try:
            networks[role] = load_network(embedded_network_folder(role), role)
        except MissingModelFile as error:
            print(error, file=sys.stderr)
    return networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", action="append", default=[], metavar="ROLE=FOLDER")
    parser.add_argument("--portrait", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    files = dict(choice.split("=", 1) for choice in options.portrait)
    files = files or {name: str(shipped_portrait_file(name)) for name in SHIPPED_PORTRAITS}
    scenes = [make_scene(name, Path(file), portrait_identity(name), options.size) for name, file in files.items()]
    table = measure(scenes, chosen_networks(options.network), options.output)
    write_json(options.output / "networks.json", table)
    print_table(table)


if __name__ == "__main__":
    main()

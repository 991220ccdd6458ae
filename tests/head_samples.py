"""Heads made by code with the traits of those that others make: what hides the face, what it lacks, how it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import trimesh
from torch import Tensor

from animportrait3d_core.body.landmarks import outer_eye_distance
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.body.visible_skin import outer_skin, visible_face
from animportrait3d_core.evaluation.mouth_and_eyes import eyeball_pixels
from animportrait3d_core.mesh_queries import SurfaceTree
from animportrait3d_core.meshes import Mesh, compact, vertex_normals
from animportrait3d_core.portrait.head_target import standard_placement

GREY = 0.7


@dataclasses.dataclass(frozen=True)
class HeadSample:
    """A head in the head frame. landmarks: [68, 3], where they are whatever hides them."""

    mesh: Mesh
    landmarks: Tensor


def figure(body: BodyModel, seed: int, spread: float = 0.7, change: Callable | None = None) -> tuple[Tensor, Tensor]:
    """Vertices of the posed body in the head frame, of a shape that is drawn, and its landmarks [68, 3]."""
    generator = torch.Generator().manual_seed(seed)
    betas = spread * torch.randn(1, body.num_betas, generator=generator)
    parameters = standard_placement(body).replace(betas=betas)
    output = body(parameters if change is None else change(parameters))
    return output.vertices[0].detach(), output.landmarks[0, :68].detach()


def seen_eyes(body: BodyModel, parameters: BodyParameters, closed: float) -> int:
    """How many pixels of its eyeballs a body shows in close views when its lids are closed so far."""
    return eyeball_pixels(body, parameters.replace(eyelids=torch.full((1, 2), closed)))


def face_rms(body: BodyModel, parameters: BodyParameters, mesh: Mesh) -> float:
    """Root mean square distance of the visible face to a mesh, over the distance of the outer eye corners."""
    output = body(parameters)
    distances = SurfaceTree(mesh.vertices, mesh.faces).closest(output.vertices[0][visible_face(body, output)]).distances
    return float(distances.square().mean().sqrt() / outer_eye_distance(output.landmarks[0]))


def skin_of(body: BodyModel, vertices: Tensor) -> Mesh:
    """The skin of a body without eyes and mouth, at posed vertices [V', 3]."""
    return compact(Mesh(vertices, body.faces_outward), outer_skin(body))


def with_parts(body: BodyModel, vertices: Tensor, *parts: trimesh.Trimesh, keep: Tensor | None = None) -> Mesh:
    """The body's surface (its faces `keep` [F]) and more pieces beside it, all of one grey."""
    faces = [body.faces_outward if keep is None else body.faces_outward[keep]]
    places, count = [vertices], len(vertices)
    for part in parts:
        faces.append(torch.tensor(part.faces).long() + count)
        places.append(torch.tensor(part.vertices).float())
        count += len(part.vertices)
    return grey(Mesh(torch.cat(places), torch.cat(faces)))


def grey(mesh: Mesh) -> Mesh:
    """Without unused vertices, all of one colour."""
    mesh = compact(dataclasses.replace(mesh, vertex_colors=None), torch.ones(len(mesh.faces), dtype=torch.bool))
    return dataclasses.replace(mesh, vertex_colors=torch.full_like(mesh.vertices, GREY))


def bare(body: BodyModel, seed: int) -> HeadSample:
    """Nothing but head and shoulders."""
    vertices, landmarks = figure(body, seed)
    return HeadSample(with_parts(body, vertices), landmarks)


def glasses(body: BodyModel, seed: int) -> HeadSample:
    """Thick glasses with lenses in front of the eyes, and temples to the ears."""
    vertices, landmarks = figure(body, seed)
    pieces = []
    for first, last in ((36, 42), (42, 48)):
        middle = landmarks[first:last].mean(0).numpy() + np.array([0, 0, 0.045])
        ring = trimesh.creation.torus(0.055, 0.008)
        lens = trimesh.creation.cylinder(radius=0.055, height=0.004)
        side = np.sign(middle[0])
        temple = trimesh.creation.box([0.008, 0.012, 0.22])
        temple.apply_translation([side * 0.06, 0, -0.11])
        for piece in (ring, lens, temple):
            piece.apply_translation(middle)
            pieces.append(piece)
    bridge = trimesh.creation.box([0.05, 0.012, 0.01])
    bridge.apply_translation(landmarks[27].numpy() + np.array([0, 0, 0.02]))
    return HeadSample(with_parts(body, vertices, *pieces, bridge), landmarks)


def fringe(body: BodyModel, seed: int) -> HeadSample:
    """A shell of hair that falls over forehead, brows and half of the eyes."""
    vertices, landmarks = figure(body, seed)
    outward = vertices + 0.055 * vertex_normals(vertices, body.faces_outward)
    middle = vertices[body.faces_outward].mean(1)
    over = body.assets.face_regions["scalp"] | (body.assets.face_regions["face"] & (middle[:, 1] > landmarks[37, 1]))
    hair = trimesh.Trimesh(outward.numpy(), body.faces_outward[over].numpy(), process=False)
    return HeadSample(with_parts(body, vertices, hair), landmarks)


def laugh(body: BodyModel, seed: int) -> HeadSample:
    """A jaw wide open and narrowed eyes."""

    def change(parameters: BodyParameters) -> BodyParameters:
        jaw = torch.tensor([[0.38, 0.0, 0.0]])
        return parameters.replace(jaw_pose=jaw, eyelids=torch.full((1, 2), 0.6))

    vertices, landmarks = figure(body, seed, change=change)
    return HeadSample(with_parts(body, vertices), landmarks)


def hollow_eyes(body: BodyModel, seed: int) -> HeadSample:
    """A skin without eyeballs, teeth or mouth: the sockets are holes, and the neck is open."""
    vertices, landmarks = figure(body, seed)
    regions = body.assets.face_regions
    names = ("left_eyeball", "right_eyeball", "iris", "teeth", "mouth_interior")
    inner = torch.stack([regions[name] for name in names]).any(0)
    low = vertices[body.faces_outward][..., 1].amin(1) < landmarks[8, 1] - 0.12
    return HeadSample(with_parts(body, vertices, keep=~(inner | low)), landmarks)


def crown(body: BodyModel, seed: int) -> HeadSample:
    """A ring of spikes above the head, in its own piece."""
    vertices, landmarks = figure(body, seed)
    top = vertices[vertices[:, 1].argmax()].numpy()
    pieces = []
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        spike = trimesh.creation.cone(radius=0.05, height=0.22)
        spike.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
        spike.apply_translation(top + [0.17 * np.cos(angle), -0.1, 0.17 * np.sin(angle)])
        pieces.append(spike)
    return HeadSample(with_parts(body, vertices, *pieces), landmarks)


def marble(body: BodyModel, seed: int) -> HeadSample:
    """Chiselled: waves all over the surface, the eyes blind."""
    vertices, landmarks = figure(body, seed)
    rng = np.random.default_rng(seed)
    bumps = sum(
        torch.sin(vertices @ torch.tensor(rng.normal(size=3) * 28).float() + float(rng.uniform(0, 6))) for _ in range(6)
    )
    outward = vertices + 0.0022 * bumps[:, None] * vertex_normals(vertices, body.faces_outward)
    return HeadSample(with_parts(body, outward), landmarks)


def cartoon(body: BodyModel, seed: int) -> HeadSample:
    """A head that is broad above and small below, with a long nose."""
    vertices, landmarks = figure(body, seed)

    def moved(points: Tensor) -> Tensor:
        height = ((points[:, 1:2] - landmarks[8, 1]) / 0.65).clamp(-0.3, 1.2)
        wider = torch.cat([points[:, :1] * (0.82 + 0.4 * height), points[:, 1:2], points[:, 2:] * 1.08], dim=1)
        near_nose = torch.exp(-((points - landmarks[30]) / 0.07).square().sum(1, keepdim=True))
        return wider + near_nose * torch.tensor([0.0, -0.01, 0.06])

    return HeadSample(with_parts(body, moved(vertices)), moved(landmarks))


def whole_body(body: BodyModel, seed: int) -> HeadSample:
    """Torso, arms and legs below the bust."""
    vertices, landmarks = figure(body, seed)

    def limb(height: float, radius: float, x: float, y: float) -> trimesh.Trimesh:
        piece = trimesh.creation.capsule(height=height, radius=radius)
        piece.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        piece.apply_translation([x, y, -0.1])
        return piece

    limbs = [limb(1.3, 0.36, 0, -0.9)]
    limbs += [limb(1.2, 0.1, side * 0.62, -0.9) for side in (-1, 1)]
    limbs += [limb(1.7, 0.15, side * 0.2, -2.6) for side in (-1, 1)]
    return HeadSample(with_parts(body, vertices, *limbs), landmarks)


def half_face(body: BodyModel, seed: int) -> HeadSample:
    """What a scan from one side leaves: nothing where x is less than -0.01."""
    vertices, landmarks = figure(body, seed)
    keep = (vertices[body.faces_outward][..., 0] > -0.01).all(1)
    return HeadSample(with_parts(body, vertices, keep=keep), landmarks)


def tilted(body: BodyModel, seed: int) -> HeadSample:
    """A head that is turned, nodded and tilted by some 30 degrees on upright shoulders."""
    turn = torch.tensor([[0.2, 0.3, 0.25]])
    vertices, landmarks = figure(body, seed, change=lambda p: p.replace(neck_pose=turn / 2, head_pose=turn))
    return HeadSample(with_parts(body, vertices), landmarks)


HEADS = {
    "bare": bare, "glasses": glasses, "fringe": fringe, "laugh": laugh, "hollow eyes": hollow_eyes, "crown": crown,
    "marble": marble, "cartoon": cartoon, "whole body": whole_body, "tilted": tilted,
}  # fmt: skip
"""Heads that must be found, by their trait: functions (body, seed) -> HeadSample."""


def _chair() -> trimesh.Trimesh:
    places = [([0.45, 0.05, 0.45], [0, 0.45, 0]), ([0.45, 0.55, 0.05], [0, 0.75, -0.2])]
    places += [([0.05, 0.45, 0.05], [x, 0.22, z]) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    boxes = []
    for size, place in places:
        boxes.append(trimesh.creation.box(size))
        boxes[-1].apply_translation(place)
    return trimesh.util.concatenate(boxes)


def _hand() -> trimesh.Trimesh:
    pieces = [trimesh.creation.box([0.085, 0.1, 0.03])]
    fingers = [(-0.032, 0.07, 0.0), (-0.011, 0.08, 0.0), (0.011, 0.075, 0.0), (0.032, 0.06, 0.0), (-0.05, 0.06, 0.8)]
    for x, length, angle in fingers:
        finger = trimesh.creation.capsule(height=length, radius=0.0095)
        finger.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
        finger.apply_transform(trimesh.transformations.rotation_matrix(angle, [0, 0, 1]))
        finger.apply_translation([x, 0.05 if angle == 0 else -0.01, 0])
        pieces.append(finger)
    return trimesh.util.concatenate(pieces)


def _car() -> trimesh.Trimesh:
    boxes = [trimesh.creation.box([1.8, 0.6, 4.2]), trimesh.creation.box([1.6, 0.5, 2.0])]
    boxes[1].apply_translation([0, 0.55, -0.2])
    for x in (-0.9, 0.9):
        for z in (-1.3, 1.3):
            wheel = trimesh.creation.cylinder(radius=0.35, height=0.2)
            wheel.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0]))
            wheel.apply_translation([x, -0.3, z])
            boxes.append(wheel)
    return trimesh.util.concatenate(boxes)


def _egg() -> trimesh.Trimesh:
    egg = trimesh.creation.icosphere(4)
    egg.vertices *= [0.75, 1.0, 0.85]
    return egg


def _lumps(seed: int) -> trimesh.Trimesh:
    """A ball with random relief as deep as a face's."""
    ball = trimesh.creation.icosphere(4)
    rng = np.random.default_rng(seed)
    waves = sum(np.sin(ball.vertices @ rng.normal(size=3) * 5 + rng.uniform(0, 6)) for _ in range(8))
    ball.vertices *= (1 + 0.035 * waves)[:, None]
    return ball


THINGS: dict[str, Callable[[], trimesh.Trimesh]] = {
    "cube": trimesh.creation.box, "ball": lambda: trimesh.creation.icosphere(4), "egg": _egg, "chair": _chair,
    "hand": _hand, "car": _car, "lumps 0": lambda: _lumps(0), "lumps 1": lambda: _lumps(1),
    "lumps 2": lambda: _lumps(2),
}  # fmt: skip
"""What is no head."""


def thing(name: str) -> Mesh:
    """One of `THINGS`, far from the origin and large, in grey."""
    solid = THINGS[name]()
    return grey(Mesh(torch.tensor(solid.vertices).float() * 17 + 3, torch.tensor(solid.faces).long()))

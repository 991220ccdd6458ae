"""Splats as a portrait: moved with all they have, their surface, and a scan in other axes through the node."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export.ply import write_splat_ply
from animportrait3d_core.gaussians import Gaussians, rgb_to_sh0
from animportrait3d_core.mesh_queries import closest_points
from animportrait3d_core.portrait.alignment import HandAlignment, align_by_hand
from animportrait3d_core.portrait.head_search import sample_surface
from animportrait3d_core.portrait.protocol import MeshSettings, Portrait
from animportrait3d_core.portrait.splats import SplatPortrait, moved_gaussians, portrait_from_splats, splat_surface
from animportrait3d_core.rotations import matrix_to_quaternion
from tests.head_samples import bare

PLACED = HandAlignment(up="-y", face="-z", turn_degrees=(5.0, -8.0, 3.0), scale=0.4, translation=(0.3, -0.2, 0.1))


@pytest.fixture(scope="module")
def head(mannequin_body):
    return bare(mannequin_body, 0)


@pytest.fixture(scope="module")
def splats(head) -> Gaussians:
    """Flat splats on the surface of a head, red on its left and green on its right."""
    samples = sample_surface(head.mesh, None, 9000)
    normals = torch.from_numpy(samples.normals).float()
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, torch.tensor([[0.37, 0.9, 0.2]])), dim=1)
    axes = torch.stack([first, torch.linalg.cross(normals, first), normals], dim=2)
    means = torch.from_numpy(samples.points).float()
    colors = torch.where(means[:, :1] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.9, 0.1]))
    sh = torch.cat([rgb_to_sh0(colors)[:, None], 0.1 * torch.randn(len(means), 3, 3)], dim=1)
    sizes = torch.tensor([0.012, 0.012, 0.002]).log().expand(len(means), 3)
    return Gaussians(means, matrix_to_quaternion(axes), sizes, torch.full((len(means),), 4.0), sh)


def test_moved_splats_look_the_same_from_moved_cameras(splats):
    """The similarity of scene and camera leaves the picture; view-dependent colours turn with it."""
    alignment = align_by_hand(PLACED)
    camera = orbit_cameras([25.0], [10.0], 48)
    moved = moved_gaussians(splats, alignment)
    rotation, scale = alignment.rotation, alignment.scale
    turned = camera.world_to_camera.clone()
    turned[0, :3, :3] = camera.world_to_camera[0, :3, :3] @ rotation.T
    turned[0, :3, 3] = scale * camera.world_to_camera[0, :3, 3] - turned[0, :3, :3] @ alignment.translation
    other = dataclasses.replace(camera, world_to_camera=turned)
    first, second = (SplatPortrait(g).render(c).images for g, c in ((splats, camera), (moved, other)))
    assert float((first - 1).abs().max()) > 0.5 and float((first - second).abs().max()) < 2e-3


def test_the_surface_lies_on_the_splats_and_has_their_colours(splats, head):
    mesh = splat_surface(splats, MeshSettings(96))
    face = head.landmarks[17:48]
    assert float(closest_points(mesh, face).distances.mean()) < 0.02  # a voxel
    assert float(closest_points(head.mesh, mesh.vertices[mesh.vertices[:, 2] > 0.1]).distances.mean()) < 0.02
    left = mesh.vertices[:, 0] > 0.05
    assert float(mesh.vertex_colors[left, 0].mean()) > 0.85 and float(mesh.vertex_colors[left, 1].mean()) < 0.15
    from animportrait3d_core.meshes import signed_volume

    assert float(signed_volume(mesh.vertices, mesh.faces)) > 0


def test_a_scan_in_other_axes_through_the_node(run_node, mannequin_body, run_context, splats, head):
    """Upside down and larger, with a few splats of a room: the head is found and stands where it was."""
    alignment = align_by_hand(PLACED)
    inverse = np.linalg.inv(alignment.rotation.double().numpy())
    there = dataclasses.replace(
        alignment,
        rotation=torch.from_numpy(inverse).float(),
        scale=1 / alignment.scale,
        translation=-torch.from_numpy(inverse).float() @ alignment.translation / alignment.scale,
    )
    folder = run_context.input_directory
    folder.mkdir(parents=True, exist_ok=True)
    write_splat_ply(moved_gaussians(splats, there), folder / "scan.ply", y_down=False)
    hand = dict(up="+y", face="+z", nod=0.0, turn=0.0, tilt=0.0, scale=1.0, move_x=0.0, move_y=0.0, move_z=0.0)
    made = run_node(
        "AP3D_PortraitFromSplats", file="scan.ply", body=mannequin_body, prompt="a head", alignment="find", **hand
    )
    portrait = made.portrait
    assert isinstance(portrait, Portrait) and portrait.kind == "splats" and made.prompt == "a head"
    back = portrait.alignment.apply(there.apply(head.landmarks))
    assert float((back - head.landmarks).norm(dim=1).mean()) < 0.02
    assert "9000 splats" in made.ui["text"][0] and "placed: up -y, face -z" in made.ui["text"][0]
    assert float(closest_points(made.mesh, back[17:48]).distances.mean()) < 0.015


def test_bad_splats_are_named(splats):
    with pytest.raises(InvalidInput, match="0 of 9000 splats are opaque"):
        splat_surface(dataclasses.replace(splats, logit_opacities=torch.full((9000,), -5.0)))
    with pytest.raises(InvalidInput, match="none of the 9000 splats is in view"):
        portrait_from_splats(splats, align_by_hand(HandAlignment(translation=(9.0, 0.0, 0.0))))

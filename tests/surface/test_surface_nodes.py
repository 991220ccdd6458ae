"""AP3D_EstimateNormals and AP3D_RefineMesh, headless: pictures in, a refined mesh out, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import trimesh

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import AnimPortraitError, InvalidInput, MissingModelFile
from animportrait3d_core.meshes import Mesh, vertex_normals
from animportrait3d_core.render import interpolate, rasterize_mesh
from animportrait3d_core.surface import ViewNormals
from animportrait3d_core.views import Views
from animportrait3d_core.workflow.context import Interrupted


def ball(stretch: float) -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    points = torch.tensor(np.array(solid.vertices) * [1, stretch, 1]).float() + torch.tensor([0.0, 0.2, 0.0])
    return Mesh(points, torch.tensor(np.array(solid.faces)), vertex_colors=torch.full((len(points), 3), 0.25))


def views_of(mesh: Mesh) -> tuple[Views, torch.Tensor]:
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0, 45.0, 225.0], [0.0, 0.0, 0.0, 0.0, 50.0, -40.0], 48)
    image = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    world = interpolate(image, mesh.faces, vertex_normals(mesh.vertices, mesh.faces))
    normals = torch.einsum("bij,bhwj->bhwi", cameras.world_to_camera[:, :3, :3], world) * torch.tensor([1.0, -1, -1])
    masks = (image.face_id >= 0).float()
    images = torch.ones(6, 48, 48, 3)
    return Views(images, masks, cameras, torch.ones(3)), 0.5 * torch.nn.functional.normalize(normals, dim=-1) + 0.5


VIEWS, CODED = views_of(ball(1.3))


@pytest.fixture
def estimate(run_node):
    """Function (inputs) -> what Estimate Normals gives."""
    given = {"views": VIEWS, "network": "normal images", "coding": "OpenGL"}
    return lambda **inputs: run_node("AP3D_EstimateNormals", **{**given, **inputs})


@pytest.fixture
def refine(run_node):
    """Function (normals, inputs) -> what Refine Mesh gives."""
    given = {"mesh": ball(1.0), "views": VIEWS, "iterations": 3, "face_budget": 2000}
    return lambda normals, **inputs: run_node("AP3D_RefineMesh", normals=normals, **{**given, **inputs})


def test_pictures_become_normals_and_a_refined_mesh(estimate, refine) -> None:
    estimated = estimate(normal_images=CODED)
    assert isinstance(estimated.normals, ViewNormals) and estimated.images.shape == (6, 48, 48, 3)
    torch.testing.assert_close(estimated.images[VIEWS.masks > 0], CODED[VIEWS.masks > 0], rtol=0, atol=1e-5)
    refined = refine(estimated.normals)
    mesh, sheet = refined.mesh, refined.image
    assert 1000 < len(mesh.faces) <= 2000 and sheet.shape == (4, 320, 640, 3)
    torch.testing.assert_close(mesh.vertex_colors, torch.full_like(mesh.vertices, 0.25))
    assert torch.equal(refined.mesh_3d.faces[0], mesh.faces)
    assert len(refined.ui["images"]) == 4 and "normal loss" in refined.ui["text"][0]
    left, right = sheet[0, :, :320], sheet[0, :, 320:]
    assert not torch.equal(left, right) and left.min() < 0.9 and right.min() < 0.9


def test_directx_pictures_are_turned(estimate) -> None:
    flipped = CODED * torch.tensor([1.0, -1, 1]) + torch.tensor([0.0, 1, 0])
    wrong, right = (estimate(normal_images=flipped, coding=coding).normals for coding in ("OpenGL", "DirectX"))
    seen = VIEWS.masks > 0
    torch.testing.assert_close(0.5 * right.normals[seen] + 0.5, CODED[seen], rtol=0, atol=1e-5)
    assert not torch.allclose(wrong.normals, right.normals)


def test_a_users_network_is_loaded_from_its_folder(estimate, run_context, node_classes, monkeypatch) -> None:
    """The network itself is tested in `networks`; here: that the choice leads to it and its answer to the socket."""
    import animportrait3d_core.networks as networks

    folder = run_context.models_directory / "ap3d_normals" / "mine"
    folder.mkdir(parents=True)
    (folder / "network.json").write_text("{}", encoding="utf-8")
    choices = node_classes["AP3D_EstimateNormals"].INPUT_TYPES()["required"]["network"][0]
    assert choices == ["embedded", "mine/network.json", "normal images"]
    asked = []
    monkeypatch.setattr(networks, "load_network", lambda path, role, device: asked.append((path, role)) or "loaded")
    facing = torch.zeros_like(VIEWS.images)
    facing[..., 2] = 1.0
    monkeypatch.setattr(networks, "estimate_normals", lambda network, images, masks, bar: facing * masks[..., None])
    normals = estimate(network="mine/network.json").normals
    assert asked == [(folder / "network.json", "normals")]
    assert torch.equal(normals.masks, VIEWS.masks) and torch.equal(normals.normals[..., 2], VIEWS.masks)


def test_inputs_that_contradict_each_other_are_named(estimate) -> None:
    with pytest.raises(InvalidInput, match="AP3D_EstimateNormals: network is 'normal images' and .* not connected"):
        estimate()
    with pytest.raises(InvalidInput, match="network is 'embedded' and normal_images is connected"):
        estimate(network="embedded", normal_images=CODED)
    with pytest.raises(MissingModelFile, match="no file 'gone/network.json'"):
        estimate(network="gone/network.json")
    with pytest.raises(InvalidInput, match=r"pictures have shape \[5, 48, 48, 3\], expected \[6"):
        estimate(normal_images=CODED[:5])


def test_bad_meshes_and_views_are_named(estimate, refine) -> None:
    normals = estimate(normal_images=CODED).normals
    empty = dataclasses.replace(VIEWS, masks=torch.zeros_like(VIEWS.masks))
    with pytest.raises(AnimPortraitError, match="none of the 6 views has a foreground"):
        refine(normals, views=empty)
    with pytest.raises(AnimPortraitError, match="6 pictures of 48 x 48, expected 4 of 48 x 48"):
        refine(normals, views=VIEWS[[0, 1, 2, 3]])
    crumb = ball(1.0)
    apart = Mesh(torch.cat([crumb.vertices, 0.05 * crumb.vertices[crumb.faces[:9]].reshape(-1, 3) + 0.9]),
                 torch.cat([crumb.faces, len(crumb.vertices) + torch.arange(27).view(9, 3)]))  # fmt: skip
    assert "Dropped" in refine(normals, mesh=apart).ui["text"][0]


def test_the_user_can_stop_it(estimate, refine, run_context) -> None:
    normals = estimate(normal_images=CODED).normals

    def stop(step, total, preview):
        raise Interrupted("stopped by the user")

    run_context.progress = stop
    with pytest.raises(Interrupted):
        refine(normals)

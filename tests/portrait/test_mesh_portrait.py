"""Pictures of mesh portraits: right colours in the right places, masks, depth, light, cropping, views."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import trimesh

from animportrait3d_core.cameras import orbit_cameras, project, view_preset
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.mesh_queries import colors_at
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.alignment import crop_to_view
from animportrait3d_core.portrait.mesh import (
    AMBIENT,
    KEY,
    LIGHT_DIRECTION,
    MeshPortrait,
    MeshRenderSettings,
    portrait_from_mesh,
)
from animportrait3d_core.portrait.protocol import Portrait
from animportrait3d_core.portrait.views import render_views
from animportrait3d_core.render import rasterize_mesh

CENTER = torch.tensor([0.0, 0.228, 0.0])
# Colours of the cube's sides, by the yaw and elevation that look at them.
SIDES = {(0, 0): (1, 0, 0), (180, 0): (0, 1, 0), (90, 0): (0, 0, 1), (-90, 0): (1, 1, 0), (0, 89): (0, 1, 1)}


def cube(size: float = 0.5) -> Mesh:
    """A cube around the point the cameras look at, each side of one colour."""
    vertices, faces, colors = [], [], []
    normals = {(0, 0): (0, 0, 1), (180, 0): (0, 0, -1), (90, 0): (1, 0, 0), (-90, 0): (-1, 0, 0), (0, 89): (0, 1, 0)}
    for view, color in SIDES.items():
        normal = torch.tensor(normals[view], dtype=torch.float32)
        first = torch.tensor([0.0, 1, 0]) if abs(normal[1]) < 0.5 else torch.tensor([0.0, 0, 1])
        second = torch.linalg.cross(normal, first)
        start = len(vertices)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            vertices.append(CENTER + 0.5 * size * (normal + a * first + b * second))
            colors.append(torch.tensor(color, dtype=torch.float32))
        faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    return Mesh(torch.stack(vertices), torch.tensor(faces), vertex_colors=torch.stack(colors))


def image_quad() -> Mesh:
    """An upright unit square facing +z with a 2 x 2 picture: red green over blue white."""
    vertices = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [0.5, 1, 0], [-0.5, 1, 0]]) + CENTER - torch.tensor([0, 0.5, 0])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    texture = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]])
    texture = texture.repeat_interleave(16, 0).repeat_interleave(16, 1)
    uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])[faces] * 0.999 + 0.0005
    return Mesh(vertices, faces, corner_uvs=uvs, texture=texture)


def test_every_side_of_a_cube_shows_its_colour():
    views = list(SIDES)
    cameras = orbit_cameras(
        [yaw for yaw, _ in views], [elevation for _, elevation in views], 33, target=CENTER.tolist()
    )
    image = MeshPortrait(cube()).render(cameras)
    for index, color in enumerate(SIDES.values()):
        assert torch.allclose(image.images[index, 16, 16], torch.tensor(color).float(), atol=1e-6)
    assert torch.equal(image.images[:, 0, 0], torch.ones(len(views), 3))


def test_a_texture_is_upright_and_not_mirrored():
    image = MeshPortrait(image_quad()).render(orbit_cameras([0], [0], 64, target=CENTER.tolist())).images[0]
    quarter = {(24, 24): (1, 0, 0), (24, 40): (0, 1, 0), (40, 24): (0, 0, 1), (40, 40): (1, 1, 1)}
    for (row, column), color in quarter.items():
        assert torch.allclose(image[row, column], torch.tensor(color).float(), atol=1e-5), (row, column)


def test_a_texture_is_mirrored_from_behind():
    """Faces have two sides; the picture on the far side is seen through the square."""
    image = MeshPortrait(image_quad()).render(orbit_cameras([180], [0], 64, target=CENTER.tolist())).images[0]
    assert torch.allclose(image[24, 24], torch.tensor([0.0, 1, 0]), atol=1e-5)


@pytest.mark.parametrize("yaw, elevation", [(0, 0), (35, 20), (-120, -10)])
def test_a_small_marker_lands_where_the_camera_projects_it(yaw, elevation):
    cameras = orbit_cameras([yaw], [elevation], 96)
    for point in torch.tensor([[0.1, 0.5, 0.2], [-0.3, 0.0, 0.1], [0.0, 0.42, 0.3]]):
        corners = torch.cat([torch.eye(3), -torch.eye(3)]) * 0.03 + point  # an octahedron, symmetric about the point
        faces = torch.tensor([[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)])
        mesh = Mesh(corners, faces, vertex_colors=torch.zeros(6, 3))
        mask = MeshPortrait(mesh, rendering=MeshRenderSettings(supersampling=4)).render(cameras).masks[0]
        rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
        found = torch.stack([(columns * mask).sum(), (rows * mask).sum()]) / mask.sum()
        expected = project(cameras, point[None])[0][0, 0]
        assert (found - expected).norm() < 0.5


def test_masks_are_the_covered_share_of_each_pixel():
    """The area of a square seen from the front, and the number of levels of its mask's edge."""
    cameras = orbit_cameras([0], [0], 50, target=CENTER.tolist())
    quad = image_quad()
    for samples, levels in ((1, 2), (2, 3), (4, 5)):
        mask = MeshPortrait(quad, rendering=MeshRenderSettings(supersampling=samples)).render(cameras).masks[0]
        corners = project(cameras, quad.vertices)[0][0]
        area = (corners[2, 0] - corners[0, 0]).abs() * (corners[2, 1] - corners[0, 1]).abs()
        assert abs(float(mask.sum() / area) - 1) < 0.06 / samples
        assert len(torch.unique(mask)) <= samples**2 + 1 and len(torch.unique(mask)) >= min(levels, 3) - 1
    assert torch.equal(MeshPortrait(quad).render(cameras).masks, MeshPortrait(quad).render(cameras).masks)


def test_pictures_are_composited_over_the_background():
    cameras = orbit_cameras([20], [10], 40)
    portrait = MeshPortrait(cube())
    over_black = portrait.render(cameras, torch.zeros(3))
    over_color = portrait.render(cameras, torch.tensor([0.2, 0.4, 0.6]))
    expected = over_black.images + (1 - over_black.masks)[..., None] * torch.tensor([0.2, 0.4, 0.6])
    assert torch.allclose(over_color.images, expected, atol=1e-6)
    assert torch.equal(over_color.masks, over_black.masks)


def test_depth_is_camera_z_of_the_nearest_surface():
    """The four samples' rays of one pixel meet the plane z = 0.25 of the cube's front; the nearest one counts."""
    cameras = orbit_cameras([0], [0], 32, target=CENTER.tolist())
    image = MeshPortrait(cube(0.5)).render(cameras)
    places = torch.tensor([[x, y, 1.0] for x in (16.25, 16.75) for y in (18.25, 18.75)])
    rays = places @ torch.linalg.inv(cameras.K[0]).T @ cameras.world_to_camera[0, :3, :3]  # camera z is 1 along each
    depth = (0.25 - cameras.camera_centers[0, 2]) / rays[:, 2]
    assert abs(float(image.depth[0, 18, 16] - depth.min())) < 1e-5
    assert torch.equal(image.depth == 0, image.masks == 0)


@pytest.mark.parametrize("mesh", [cube(), image_quad()], ids=["vertex colours", "texture"])
def test_the_kernel_agrees_with_plain_interpolation(mesh):
    """One sample per pixel: the same as looking up each hit's colour with `colors_at`."""
    cameras = orbit_cameras([0, 30, 200], [5, -20, 30], 48)
    image = MeshPortrait(mesh, rendering=MeshRenderSettings(supersampling=1)).render(cameras)
    raster = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    expected = torch.ones(3, 48, 48, 3)
    expected[raster.mask] = colors_at(mesh, raster.face_id[raster.mask], raster.barycentric[raster.mask])
    assert raster.mask.sum() > 500
    assert torch.allclose(image.images, expected, atol=2e-6)


def test_soft_light_is_lambert_on_the_side_that_is_seen():
    white = dataclasses.replace(cube(), vertex_colors=torch.ones(20, 3))
    settings = MeshRenderSettings(shading="soft")
    light = torch.nn.functional.normalize(torch.tensor(LIGHT_DIRECTION), dim=0)
    for flip in (False, True):  # the winding must not matter
        mesh = dataclasses.replace(white, faces=white.faces.flip(1)) if flip else white
        image = MeshPortrait(mesh, rendering=settings).render(orbit_cameras([0], [0], 33, target=CENTER.tolist()))
        assert abs(float(image.images[0, 16, 16, 0]) - (AMBIENT + KEY * float(light[2]))) < 1e-5


def test_a_mesh_of_one_colour_gets_light_whatever_is_asked():
    """Grey as load_mesh makes it, a texture of one colour, or none; two colours stay as they are."""
    cube = trimesh.creation.box([0.4, 0.4, 0.4])
    vertices, faces = torch.tensor(cube.vertices).float(), torch.tensor(cube.faces).long()
    unlit = MeshRenderSettings(shading="unlit")
    grey = Mesh(vertices, faces, vertex_colors=torch.full((len(vertices), 3), 0.6))
    uvs = torch.rand(len(faces), 3, 2, generator=torch.Generator().manual_seed(0))
    painted = Mesh(vertices, faces, corner_uvs=uvs, texture=torch.full((4, 4, 3), 0.3))
    assert {portrait_from_mesh(mesh, rendering=unlit).rendering.shading for mesh in (grey, painted)} == {"soft"}
    two = Mesh(vertices, faces, vertex_colors=(vertices[:, :1] > 0).float().expand(-1, 3) * 0.5)
    assert portrait_from_mesh(two, rendering=unlit).rendering.shading == "unlit"
    sides = portrait_from_mesh(grey, rendering=unlit).render(orbit_cameras([0, 45], [0, 0], 48), torch.ones(3)).images
    assert float(sides[1][sides[1] < 0.99].std()) > 0.02


def test_crop_drops_what_the_cameras_cannot_see():
    mesh = cube()
    far = dataclasses.replace(mesh, vertices=mesh.vertices + torch.tensor([0.0, -2.0, 0.0]))
    both = Mesh(
        torch.cat([mesh.vertices, far.vertices]),
        torch.cat([mesh.faces, far.faces + len(mesh.vertices)]),
        vertex_colors=torch.cat([mesh.vertex_colors, far.vertex_colors]),
    )
    portrait = portrait_from_mesh(both, prompt="a cube")
    assert len(portrait.mesh().faces) == len(mesh.faces)
    cameras = view_preset("heldout", 32)
    assert torch.equal(portrait.render(cameras).images, MeshPortrait(mesh).render(cameras).images)
    assert portrait.prompt == "a cube" and portrait.kind == "mesh" and isinstance(portrait, Portrait)
    with pytest.raises(InvalidInput, match="no face of the mesh is in view"):
        crop_to_view(far)


def test_views_do_not_depend_on_the_chunk_and_tell_their_progress():
    portrait, cameras = MeshPortrait(cube()), view_preset("heldout", 24)
    told: list[tuple[int, int]] = []
    views = render_views(portrait, cameras, progress=lambda done, total, image: told.append((done, total)), chunk=5)
    assert told == [(5, 12), (10, 12), (12, 12)]
    assert torch.equal(views.images, render_views(portrait, cameras, chunk=1).images)
    assert len(views) == 12 and torch.equal(views.background, torch.ones(3))


def test_views_know_which_way_the_surface_faces():
    """Of a cube seen squarely and from the corner: its sides, and nothing beside them."""
    views = render_views(MeshPortrait(cube()), orbit_cameras([0, 45], [0, 0], 64))
    normals = views.normals
    assert normals is not None and not normals[views.masks == 0].any()
    for view, column, side in ((0, 32, [0.0, 0, 1]), (1, 26, [0.0, 0, 1]), (1, 38, [1.0, 0, 0])):
        seen = views.cameras.world_to_camera[view, :3, :3] @ torch.tensor(side) * torch.tensor([1.0, -1, -1])
        torch.testing.assert_close(normals[view, 32, column], seen, atol=2e-2, rtol=0)


def test_a_cancelled_rendering_stops():
    def cancel(done: int, total: int, image: torch.Tensor | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_views(MeshPortrait(cube()), view_preset("heldout", 8), progress=cancel)


def test_rendering_works_in_inference_mode():
    with torch.inference_mode():
        image = MeshPortrait(cube()).render(orbit_cameras([0], [0], 16))
    assert 0 < float(image.masks.sum()) < 256


def test_bad_input_is_refused():
    mesh = cube()
    with pytest.raises(InvalidInput, match="neither a texture nor vertex colours"):
        MeshPortrait(Mesh(mesh.vertices, mesh.faces))
    with pytest.raises(InvalidInput, match="0 faces"):
        MeshPortrait(Mesh(mesh.vertices, mesh.faces[:0], vertex_colors=mesh.vertex_colors))
    with pytest.raises(InvalidInput, match="shading 'phong'"):
        MeshRenderSettings(shading="phong")
    with pytest.raises(InvalidInput, match="supersampling 9"):
        MeshRenderSettings(supersampling=9)
    with pytest.raises(ShapeMismatch, match="background"):
        MeshPortrait(mesh).render(orbit_cameras([0], [0], 8), torch.ones(4))
    with pytest.raises(InvalidInput, match="outside of 0..1"):
        render_views(MeshPortrait(mesh), orbit_cameras([0], [0], 8), torch.tensor([2.0, 0, 0]))
    with pytest.raises(InvalidInput, match="chunk 0"):
        render_views(MeshPortrait(mesh), orbit_cameras([0], [0], 8), chunk=0)

"""Mesh rasterisers: coverage, watertight edges, depth order, perspective, faces at the camera plane, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import Cameras, intrinsics, orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.meshes import face_normals, signed_volume
from animportrait3d_core.render import interpolate, rasterize_mesh
from tests.render.conformance import backend_parameters, bumpy_head

each_backend = pytest.mark.parametrize("backend", backend_parameters("mesh"))
each_exact_backend = pytest.mark.parametrize("backend", backend_parameters("mesh", exact=True))
ONE_FACE = torch.tensor([[0, 1, 2]])


def camera(size: int = 32, fov: float = 90.0) -> Cameras:
    """At the origin, looking along +z, y down."""
    return Cameras(torch.eye(4)[None].clone(), intrinsics(fov, size, size)[None], size, size)


def at_pixels(pixels, depth, size: int = 32) -> torch.Tensor:
    """Points [V, 3] that `camera(size)` sees at pixels [V, 2] and depths [V]."""
    pixels, depth = torch.as_tensor(pixels, dtype=torch.float32), torch.as_tensor(depth, dtype=torch.float32)
    rays = (pixels - size / 2) / (size / 2)
    return torch.cat([rays * depth[:, None], depth[:, None]], dim=-1)


def exact_hits(corners: torch.Tensor, cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Barycentrics [F, H, W, 3] and depths [F, H, W] of all rays with all camera-space triangles [F, 3, 3], float64.

    Solved as linear systems (v0 l0 + v1 l1 + v2 l2 = ray * depth), not with edge functions.
    """
    K = cameras.K[0].double()
    y, x = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    rays = torch.stack([(x + 0.5 - K[0, 2]) / K[0, 0], (y + 0.5 - K[1, 2]) / K[1, 1], torch.ones_like(x)], dim=-1)
    scaled = torch.linalg.solve(corners.double().transpose(1, 2)[:, None], rays.double().reshape(1, -1, 3, 1))
    scaled = scaled.reshape(len(corners), *x.shape, 3)
    depth = 1.0 / scaled.sum(-1)
    return scaled * depth[..., None], depth


@each_exact_backend
def test_triangle_matches_the_linear_system(backend):
    vertices = at_pixels([[3.2, 4.1], [28.4, 9.7], [11.3, 27.9]], [1.0, 3.0, 0.5])
    weights, depth = exact_hits(vertices[None], camera())
    inside = (weights[0] >= 0).all(-1)
    for faces in (ONE_FACE, ONE_FACE.flip(1)):  # both orientations are drawn
        image = rasterize_mesh(vertices, faces, camera(), backend=backend)
        assert torch.equal(image.mask[0], inside) and int(inside.sum()) > 200
        expected = weights[0] if faces[0, 0] == 0 else weights[0].flip(-1)
        torch.testing.assert_close(image.barycentric[0][inside].double(), expected[inside], atol=2e-6, rtol=0)
        torch.testing.assert_close(image.depth[0][inside].double(), depth[0][inside], atol=0, rtol=2e-6)
    assert (image.face_id[0][~inside] == -1).all()
    assert not image.barycentric[0][~inside].any() and not image.depth[0][~inside].any()


@each_exact_backend
def test_pixel_centres_decide(backend):
    """A triangle whose right angle lies just inside of a pixel centre covers it; just outside, it does not."""
    for shift, covered in ((-0.01, True), (0.01, False)):
        corner = [8.5 + shift, 8.5 + shift]
        vertices = at_pixels([corner, [12.0, corner[1]], [corner[0], 12.0]], [1.0, 1.0, 1.0])
        image = rasterize_mesh(vertices, ONE_FACE, camera(), backend=backend)
        assert bool(image.mask[0, 8, 8]) is covered


def fan(count: int, center, radius: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed fan of triangles around a point, at random depths."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.arange(count) * 2 * math.pi / count + 0.1
    ring = torch.stack([angles.cos(), angles.sin()], dim=-1) * radius + torch.tensor(center)
    depth = 1.0 + torch.rand(count + 1, generator=generator)
    vertices = at_pixels(torch.cat([torch.tensor([center]), ring]), depth)
    k = torch.arange(count)
    return vertices, torch.stack([torch.zeros(count, dtype=torch.long), 1 + k, 1 + (k + 1) % count], dim=-1)


@each_backend
@pytest.mark.parametrize("center", [(16.5, 16.5), (16.0, 16.0), (15.3, 17.8)])
def test_no_pixel_is_lost_between_faces(backend, center):
    """Fans whose hub lies on a pixel centre, on a corner, anywhere: no hole, and each face alone has its part."""
    for seed, count in enumerate((3, 4, 6, 7, 8, 16)):
        vertices, faces = fan(count, center, 12.0, seed)
        image = rasterize_mesh(vertices, faces, camera(), backend=backend)
        y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
        distance = torch.hypot(x - center[0], y - center[1])
        assert image.mask[0][distance < 12.0 * math.cos(math.pi / count) - 0.01].all(), count
        alone = [rasterize_mesh(vertices, faces[k : k + 1], camera(), backend=backend).mask for k in range(count)]
        # A pixel may belong to two faces only if it lies exactly on their edge, here: on a spoke or on the hub.
        doubled = torch.stack(alone).sum(0)[0] > 1
        assert int(doubled.sum()) <= (1 if center == (16.5, 16.5) else 0), count
        assert torch.equal(torch.stack(alone).any(0), image.mask)


@each_backend
def test_grid_with_vertices_on_pixel_centres_has_no_hole(backend):
    n = 24
    y, x = torch.meshgrid(torch.arange(n + 1.0) + 4.5, torch.arange(n + 1.0) + 4.5, indexing="ij")
    generator = torch.Generator().manual_seed(0)
    depth = 1.0 + torch.rand((n + 1) ** 2, generator=generator)
    vertices = at_pixels(torch.stack([x, y], dim=-1).reshape(-1, 2), depth)
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    a = (row * (n + 1) + column).reshape(-1)
    faces = torch.cat([torch.stack([a, a + 1, a + n + 1], -1), torch.stack([a + 1, a + n + 2, a + n + 1], -1)])
    image = rasterize_mesh(vertices, faces, camera(), backend=backend)
    assert image.mask[0, 5:28, 5:28].all()
    assert int(image.mask.sum()) in range(23 * 23, 25 * 25 + 1)


@each_exact_backend
def test_closed_mesh_hides_its_far_side(backend):
    vertices, faces = bumpy_head(4000)
    assert signed_volume(vertices, faces) > 0
    cameras = orbit_cameras([0.0, 120.0], [10.0, -20.0], 64)
    image = rasterize_mesh(vertices, faces, cameras, backend=backend)
    for b in range(2):
        matrix = cameras.world_to_camera[b].double()
        points = vertices.double() @ matrix[:3, :3].T + matrix[:3, 3]
        facing = (face_normals(points, faces) * points[faces].mean(1)).sum(-1) < 0
        hit = image.face_id[b][image.mask[b]]
        assert len(hit) > 500
        assert float(facing[hit].double().mean()) > 0.999  # all but rims, where a pixel grazes the mesh


@each_exact_backend
def test_nearer_face_wins_and_equal_ones_go_to_the_lower_id(backend):
    corners = [[2.0, 2.0], [30.0, 3.0], [10.0, 30.0]]
    vertices = torch.cat([at_pixels(corners, [2.0] * 3), at_pixels(corners, [1.0] * 3)])
    far, near = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    for order, expected in (([far, near], 1), ([near, far], 0), ([near, near, far], 0), ([far, near, near], 1)):
        image = rasterize_mesh(vertices, torch.stack(order), camera(), backend=backend)
        assert (image.face_id[image.mask] == expected).all() and image.mask.any()
        torch.testing.assert_close(image.depth[image.mask], torch.ones(int(image.mask.sum())))


@each_backend
def test_interpenetrating_faces_are_cut_along_their_line(backend):
    wide = [[1.0, 1.0], [31.0, 1.0], [16.0, 31.0]]
    vertices = torch.cat([at_pixels(wide, [1.0, 3.0, 2.0]), at_pixels(wide, [3.0, 1.0, 2.0])])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    image = rasterize_mesh(vertices, faces, camera(), backend=backend)
    _, depth = exact_hits(vertices[faces], camera())
    clear = image.mask[0] & ((depth[0] - depth[1]).abs() > 1e-6)
    assert torch.equal(image.face_id[0][clear], depth.argmin(0)[clear]) and len(image.face_id.unique()) == 3


@each_exact_backend
@pytest.mark.parametrize(
    "corners",
    [
        [[-1.0, 0.5, 1.0], [1.0, 0.5, 1.0], [0.0, 0.5, -2.0]],  # one vertex behind
        [[-1.0, 0.5, -1.0], [1.0, 0.5, -1.0], [0.1, 0.5, 2.0]],  # two behind
        [[-3.0, -1.0, 0.5], [3.0, -1.0, 0.5], [0.2, 4.0, -0.01]],
        [[-1e4, 3.0, 10.0], [1e4, 3.0, 20.0], [0.0, 3.0, -1e4]],
    ],
)
def test_faces_that_cross_the_camera_plane(backend, corners):
    vertices = torch.tensor(corners)
    image = rasterize_mesh(vertices, ONE_FACE, camera(), backend=backend)
    weights, depth = exact_hits(vertices[None], camera())
    sure = (weights[0].abs().amin(-1) > 1e-9) & ((depth[0] - 0.01).abs() > 1e-6)
    expected = (weights[0] >= 0).all(-1) & (depth[0] > 0.01)
    assert torch.equal(image.mask[0][sure], expected[sure]) and bool(expected.any())
    torch.testing.assert_close(image.depth[0][image.mask[0]].double(), depth[0][image.mask[0]], atol=1e-6, rtol=1e-5)


@each_backend
def test_what_covers_nothing(backend):
    size = 32
    cases = {
        "behind": at_pixels([[3.0, 4.0], [28.0, 9.0], [11.0, 27.0]], [-1.0, -1.0, -1.0]),
        "nearer than the near plane": at_pixels([[3.0, 4.0], [28.0, 9.0], [11.0, 27.0]], [0.009] * 3),
        "line": at_pixels([[4.5, 4.5], [16.5, 16.5], [28.5, 28.5]], [1.0] * 3),
        "point": at_pixels([[16.5, 16.5]] * 3, [1.0] * 3),
        "outside": at_pixels([[40.0, 4.0], [60.0, 9.0], [45.0, 27.0]], [1.0] * 3),
    }
    for name, vertices in cases.items():
        image = rasterize_mesh(vertices, ONE_FACE, camera(size), backend=backend)
        assert not image.mask.any(), name
        assert torch.isfinite(image.barycentric).all() and torch.isfinite(image.depth).all(), name


@each_backend
def test_empty_mesh(backend):
    cameras = orbit_cameras([0.0, 90.0], [0.0, 0.0], 8)
    image = rasterize_mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), cameras, backend=backend)
    assert image.face_id.shape == (2, 8, 8) and not image.mask.any() and image.barycentric.shape == (2, 8, 8, 3)
    colors = interpolate(image, torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 5))
    assert colors.shape == (2, 8, 8, 5) and not colors.any()


@each_backend
def test_size_batches_and_per_camera_vertices(backend):
    vertices, faces = bumpy_head(600)
    cameras = orbit_cameras([0.0, 70.0], [0.0, 20.0], 40)
    image = rasterize_mesh(vertices, faces, cameras, size=(50, 21), backend=backend)
    assert image.face_id.shape == (2, 21, 50)
    own = rasterize_mesh(vertices, faces, cameras[1].resized(50, 21), backend=backend)
    assert torch.equal(own.face_id[0], image.face_id[1]) and torch.equal(own.depth[0], image.depth[1])
    moved = torch.stack([vertices, vertices * 0.5])
    posed = rasterize_mesh(moved, faces, cameras, backend=backend)
    alone = rasterize_mesh(vertices * 0.5, faces, cameras[1], backend=backend)
    assert torch.equal(posed.face_id[1], alone.face_id[0])
    colors = interpolate(posed, faces, moved)
    torch.testing.assert_close(colors[1], interpolate(alone, faces, vertices * 0.5)[0])
    one = rasterize_mesh(vertices, faces, cameras, size=1, backend=backend)
    assert one.face_id.shape == (2, 1, 1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))
def test_numba_equals_torch_on_random_triangles(seed, width, height, count):
    """Random soups around the camera: many faces cross its plane or lie behind it."""
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(3 * count, 3, generator=generator) * torch.rand(3, generator=generator) * 3
    faces = torch.arange(3 * count).view(-1, 3)
    cameras = camera().resized(width, height)
    a = rasterize_mesh(vertices, faces, cameras, backend="numba")
    b = rasterize_mesh(vertices, faces, cameras, backend="torch")
    assert int((a.face_id != b.face_id).sum()) <= 1  # a pixel within rounding of an edge
    same = (a.face_id == b.face_id) & a.mask
    torch.testing.assert_close(a.depth[same], b.depth[same], atol=1e-6, rtol=1e-5)


def test_numba_equals_torch_on_a_large_mesh():
    """Enough faces for several chunks, most of them smaller than a pixel: none is lost, the same ones win."""
    pytest.importorskip("numba")
    vertices, faces = bumpy_head(20_000)
    cameras = orbit_cameras([35.0, -140.0], [10.0, -25.0], 96)
    a, b = (rasterize_mesh(vertices, faces, cameras, backend=name) for name in ("numba", "torch"))
    assert int(a.mask.sum()) > 2000 and int((a.face_id != b.face_id).sum()) <= 1
    assert torch.equal(a.mask, b.mask)
    torch.testing.assert_close(a.depth, b.depth, atol=1e-5, rtol=0)


@each_backend
def test_interpolation_is_perspective_correct(backend):
    vertices = at_pixels([[2.0, 2.0], [30.0, 4.0], [9.0, 30.0]], [0.5, 4.0, 1.5])
    image = rasterize_mesh(vertices, ONE_FACE, camera(), backend=backend)
    # The interpolated position of the surface lies on the pixel's own ray, at the depth of the image.
    position = interpolate(image, ONE_FACE, vertices)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    rays = torch.stack([(x - 16) / 16, (y - 16) / 16, torch.ones_like(x)], dim=-1)
    expected = rays * image.depth[0][..., None]
    torch.testing.assert_close(position[0], torch.where(image.mask[0][..., None], expected, 0.0), atol=2e-6, rtol=0)
    recomputed = interpolate(image, ONE_FACE, vertices, vertices, camera())
    torch.testing.assert_close(recomputed, position, atol=5e-6, rtol=0)


def test_interpolation_gradients_match_central_differences():
    vertices, faces = bumpy_head(300)
    vertices = vertices.double()
    cameras = orbit_cameras([20.0, -60.0], [0.0, 15.0], 24)
    image = rasterize_mesh(vertices, faces, cameras)
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(len(vertices), 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 24, 24, 4, generator=generator, dtype=torch.float64)

    def loss(points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return (interpolate(image, faces, values, points, cameras) * weight).sum()

    points, values = vertices.clone().requires_grad_(), colors.clone().requires_grad_()
    loss(points, values).backward()
    for leaf, base, name in ((points, vertices, "vertices"), (values, colors, "attributes")):
        direction = torch.randn(base.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        ahead, behind = base + step * direction, base - step * direction
        pair = (ahead, colors, behind, colors) if name == "vertices" else (vertices, ahead, vertices, behind)
        slope = float((loss(*pair[:2]) - loss(*pair[2:])) / (2 * step))
        assert float((leaf.grad * direction).sum()) == pytest.approx(slope, rel=1e-6), name


@each_backend
def test_inference_mode(backend):
    with torch.inference_mode():
        vertices, faces = bumpy_head(300)
        cameras = orbit_cameras([20.0], [0.0], 24)
        image = rasterize_mesh(vertices, faces, cameras, backend=backend)
        colors = interpolate(image, faces, vertices, vertices, cameras)
    assert colors.abs().sum() > 0
    learned = torch.ones(len(vertices), 1, requires_grad=True)
    interpolate(image, faces, learned).sum().backward()
    assert float(learned.grad.sum()) == pytest.approx(float(image.mask.sum()), rel=1e-5)


@each_backend
def test_bad_meshes_are_refused(backend):
    vertices, faces = bumpy_head(300)
    cameras = orbit_cameras([20.0], [0.0], 8)
    broken = vertices.clone()
    broken[3] = float("nan")
    with pytest.raises(InvalidInput, match="`vertices` holds 3 non-finite values"):
        rasterize_mesh(broken, faces, cameras, backend=backend)
    with pytest.raises(InvalidInput, match=f"points at vertices 0 to {len(vertices)}"):
        rasterize_mesh(vertices, torch.tensor([[0, 1, len(vertices)]]), cameras, backend=backend)
    with pytest.raises(InvalidInput, match="points at vertices -1"):
        rasterize_mesh(vertices, torch.tensor([[0, 1, -1]]), cameras, backend=backend)
    with pytest.raises(InvalidInput, match=r"torch\.float32"):
        rasterize_mesh(vertices, faces.float(), cameras, backend=backend)
    with pytest.raises(ShapeMismatch, match="vertices"):
        rasterize_mesh(vertices[:, :2], faces, cameras, backend=backend)
    with pytest.raises(ShapeMismatch, match="faces"):
        rasterize_mesh(vertices, faces[:, :2], cameras, backend=backend)
    with pytest.raises(ShapeMismatch, match=r"\[1, V, 3\]"):
        rasterize_mesh(vertices.expand(2, -1, -1), faces, cameras, backend=backend)


def test_interpolate_refuses_what_does_not_fit():
    vertices, faces = bumpy_head(300)
    cameras = orbit_cameras([20.0], [0.0], 8)
    image = rasterize_mesh(vertices, faces, cameras)
    with pytest.raises(ShapeMismatch, match="attributes"):
        interpolate(image, faces, vertices.expand(2, -1, -1))
    with pytest.raises(InvalidInput, match="both or neither"):
        interpolate(image, faces, vertices, vertices)
    with pytest.raises(InvalidInput, match="8 x 8, the cameras 16 x 16"):
        interpolate(image, faces, vertices, vertices, cameras.resized(16, 16))


def test_threads_change_nothing():
    pytest.importorskip("numba")
    vertices, faces = bumpy_head(20_000)
    cameras = orbit_cameras([20.0, 200.0], [0.0, 30.0], 65)
    before = torch.get_num_threads()
    images = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            images.append(rasterize_mesh(vertices, faces, cameras, backend="numba"))
    finally:
        torch.set_num_threads(before)
    for other in images[1:]:
        assert torch.equal(other.face_id, images[0].face_id) and torch.equal(other.depth, images[0].depth)
        assert torch.equal(other.barycentric, images[0].barycentric)

"""Antialiasing: coverage in closed form, silhouette gradients against a supersampled render, agreement of the twins."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.cameras import Cameras, intrinsics, orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.render import antialias, interpolate, rasterize_mesh
from animportrait3d_core.render import silhouettes as torch_silhouettes
from animportrait3d_core.render.antialias import mesh_edges
from tests.render.conformance import bumpy_head

SQUARE = torch.tensor([[0, 1, 2], [1, 3, 2]])


def square(left: float, right: float, top: float, bottom: float, depth: float = 1.0) -> torch.Tensor:
    """Four vertices that the 16-pixel camera at the origin sees as an axis-aligned rectangle, in pixels."""
    pixels = torch.tensor([[left, top], [right, top], [left, bottom], [right, bottom]], dtype=torch.float64)
    return torch.cat([(pixels - 8) / 8 * depth, torch.full((4, 1), depth, dtype=torch.float64)], dim=-1)


def origin_camera() -> Cameras:
    return Cameras(torch.eye(4)[None].clone(), intrinsics(90.0, 16, 16)[None], 16, 16)


def coverage(vertices: torch.Tensor, faces: torch.Tensor = SQUARE) -> torch.Tensor:
    """Antialiased silhouette [H, W] of a mesh."""
    image = rasterize_mesh(vertices.detach(), faces, origin_camera())
    color = image.mask[..., None].to(vertices.dtype)
    return antialias(color, image, vertices, faces, origin_camera())[0, ..., 0]


@pytest.mark.parametrize("right", [9.1, 9.4, 9.5001, 9.9])
def test_a_straight_edge_covers_the_fraction_of_its_pixels(right):
    rows = coverage(square(4.0, right, 2.0, 14.0))[4:12]
    torch.testing.assert_close(rows[:, 9], torch.full((8,), right - 9.0, dtype=torch.float64), atol=1e-5, rtol=0)
    assert (rows[:, 5:9] == 1).all() and (rows[:, 11:] == 0).all()


def test_moving_an_edge_changes_coverage_by_its_length():
    for position in (9.2, 9.7):
        vertices = square(4.0, position, 2.0, 14.0).requires_grad_()
        coverage(vertices)[4:12].sum().backward()
        # 8 rows; one world unit at depth 1 is 8 pixels. Both right vertices move together.
        assert float(vertices.grad[[1, 3], 0].sum()) == pytest.approx(8.0 * 8.0, rel=1e-5)
        assert abs(float(vertices.grad[[0, 2], 0].sum() + 8.0 * 8.0)) < 1e-3


def test_background_surface_is_blended_too():
    """A near square before a far one: the pixel on its edge mixes both colours, and the far one keeps its own rim."""
    vertices = torch.cat([square(1.0, 15.0, 1.0, 15.0, 3.0), square(4.0, 9.25, 4.0, 12.0, 1.0)])
    faces = torch.cat([SQUARE, SQUARE + 4])
    image = rasterize_mesh(vertices, faces, origin_camera())
    color = torch.where(image.face_id >= 2, 1.0, 0.25)[..., None].double() * image.mask[..., None]
    mixed = antialias(color, image, vertices, faces, origin_camera())[0, 6:10, :, 0]
    expected = torch.full((4,), 0.25 + 0.25 * 0.75, dtype=torch.float64)
    torch.testing.assert_close(mixed[:, 9], expected, atol=1e-5, rtol=0)
    assert (mixed[:, 5:9] == 1.0).all() and (mixed[:, 10:14] == 0.25).all()


def test_inner_edges_leave_a_smooth_surface_alone():
    vertices, faces = bumpy_head(5000)
    cameras = orbit_cameras([30.0], [5.0], 128)
    image = rasterize_mesh(vertices, faces, cameras)
    inner = image.mask[0]
    for _ in range(2):  # two pixels away from the outline, and away from depth steps
        inner = -torch.nn.functional.max_pool2d(-inner[None, None].float(), 3, 1, 1)[0, 0] > 0
    z = image.depth[:, None]
    steep = (torch.nn.functional.max_pool2d(z, 3, 1, 1) + torch.nn.functional.max_pool2d(-z, 3, 1, 1))[0, 0] > 0.02
    color = interpolate(image, faces, vertices)
    smooth = antialias(color, image, vertices, faces, cameras)
    calm = inner & ~steep
    assert int(calm.sum()) > 200
    assert torch.equal(smooth[0][calm], color[0][calm])
    assert not torch.equal(smooth, color)


def weighted(image: torch.Tensor) -> torch.Tensor:
    """A loss that weighs pixels by a smooth pattern and channels differently."""
    size = image.shape[0]
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    x, y = x * 256 / size, y * 256 / size
    pattern = torch.sin(x / 17.3) + torch.cos(y / 23.1) + 0.01 * x
    return (image * image.new_tensor([1.0, 0.7, -0.5]) * pattern.to(image)[..., None]).sum()


@pytest.mark.parametrize(
    ("faces_wanted", "yaw"),
    [(600, 0.0), (600, 50.0), (20_000, 0.0), (20_000, 50.0), pytest.param(200_000, 50.0, marks=pytest.mark.slow)],
)
def test_silhouette_gradients_within_ten_percent_of_a_supersampled_render(faces_wanted, yaw):
    """Shift in x, in y and growth of a non-convex closed head (nose, ears, sockets), against central differences.

    The loss sees the outline, outlines within the image (ears and nose before the head) and shading that moves along.
    """
    size, samples, step = 256, 8, 2e-3
    vertices, faces = bumpy_head(faces_wanted)
    vertices = vertices.double()
    cameras, edges, middle = orbit_cameras([yaw], [10.0], size), mesh_edges(faces), vertices.mean(0)
    colors = torch.stack(
        [torch.ones(len(vertices)), (vertices[:, 0] * 4).sin(), (vertices[:, 1] * 5 + vertices[:, 2] * 6).cos()], dim=-1
    ).double()

    def moved(parameters: torch.Tensor) -> torch.Tensor:
        shift = torch.stack([parameters[0], parameters[1], parameters[0] * 0])
        return (vertices - middle) * (1 + parameters[2]) + middle + shift

    def supersampled(parameters: torch.Tensor) -> float:
        image = rasterize_mesh(moved(parameters), faces, cameras, size=size * samples)
        fine = interpolate(image, faces, colors.float()).view(size, samples, size, samples, 3)
        return float(weighted(fine.mean((1, 3)).double()))

    parameters = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    image = rasterize_mesh(moved(parameters).detach(), faces, cameras)
    color = interpolate(image, faces, colors, moved(parameters), cameras)
    smooth = antialias(color, image, moved(parameters), faces, cameras, edges)
    gradient = torch.autograd.grad(weighted(smooth[0]), parameters)[0]
    for k, axis in enumerate(torch.eye(3, dtype=torch.float64)):
        slope = (supersampled(step * axis) - supersampled(-step * axis)) / (2 * step)
        assert float(gradient[k]) == pytest.approx(slope, rel=0.1), f"parameter {k}"


def test_numba_and_torch_find_the_same_crossings():
    pytest.importorskip("numba")
    from animportrait3d_core.render import numba_silhouettes

    for count, size in ((600, 96), (20_000, 64)):
        vertices, faces = bumpy_head(count)
        cameras, edges = orbit_cameras([50.0], [10.0], size), mesh_edges(faces)
        image = rasterize_mesh(vertices, faces, cameras)
        pixels, depth = project(cameras.to(dtype=torch.float64), vertices.double())
        arguments = (pixels[0], depth[0], edges, image.face_id[0], image.depth[0])
        pairs = zip(torch_silhouettes.find_crossings(*arguments), numba_silhouettes.find_crossings(*arguments))
        for axis, (a, b) in enumerate(pairs):
            assert len(a.u) > 20, axis
            assert all(torch.equal(x, y) for x, y in zip(a, b)), axis


def test_edges_of_a_closed_mesh_have_two_faces():
    _, faces = bumpy_head(300)
    edges = mesh_edges(faces)
    assert len(edges) == len(faces) * 3 // 2 and (edges >= 0).all()
    corners = {frozenset(face) for face in faces.tolist()}
    for u, v, a, b in edges.tolist():
        assert {u, v, a} in corners and {u, v, b} in corners and a != b
    border = mesh_edges(torch.tensor([[0, 1, 2]]))
    assert border[:, 3].tolist() == [-1, -1, -1]
    assert mesh_edges(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 4)


def test_batches_edges_behind_the_camera_and_empty_meshes():
    vertices, faces = bumpy_head(600)
    cameras = orbit_cameras([0.0, 70.0], [0.0, 20.0], 40)
    image = rasterize_mesh(vertices, faces, cameras)
    color = interpolate(image, faces, vertices)
    both = antialias(color, image, vertices, faces, cameras)
    alone = rasterize_mesh(vertices, faces, cameras[1])
    torch.testing.assert_close(both[1:], antialias(color[1:], alone, vertices, faces, cameras[1]), atol=1e-6, rtol=0)
    crossing = torch.tensor([[-1.0, 0.5, 1.0], [1.0, 0.5, 1.0], [0.0, 0.5, -2.0]], requires_grad=True)
    image = rasterize_mesh(crossing.detach(), torch.tensor([[0, 1, 2]]), origin_camera())
    smooth = antialias(image.mask[..., None].float(), image, crossing, torch.tensor([[0, 1, 2]]), origin_camera())
    smooth.sum().backward()
    assert torch.isfinite(smooth).all() and torch.isfinite(crossing.grad).all()
    nothing = torch.zeros(0, 3, dtype=torch.long)
    image = rasterize_mesh(vertices, nothing, cameras)
    assert torch.equal(antialias(color, image, vertices, nothing, cameras), color)


def test_antialias_refuses_what_does_not_fit():
    vertices, faces = bumpy_head(300)
    cameras = orbit_cameras([0.0], [0.0], 16)
    image = rasterize_mesh(vertices, faces, cameras)
    color = torch.zeros(1, 16, 16, 3)
    with pytest.raises(ShapeMismatch, match="color"):
        antialias(color[0], image, vertices, faces, cameras)
    with pytest.raises(InvalidInput, match="1 x 16 x 16, the cameras 1 x 32 x 32"):
        antialias(color, image, vertices, faces, cameras.resized(32, 32))
    with pytest.raises(InvalidInput, match="`vertices` holds 1 non-finite value"):
        antialias(
            color,
            image,
            vertices.index_fill(0, torch.tensor([0]), 0.0)
            + torch.tensor([[float("inf"), 0, 0]] + [[0.0, 0, 0]] * (len(vertices) - 1)),
            faces,
            cameras,
        )

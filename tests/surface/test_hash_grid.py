"""The hash-grid encoding against a literal loop in double precision, published formulas and central differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput, MissingExtension, ShapeMismatch
from animportrait3d_core.surface.hash_grid import available_backends, hash_encode, initial_table, torch_hash_encode
from animportrait3d_core.surface.hash_grid_settings import HashGridSettings

SMALL = HashGridSettings(levels=5, base_resolution=4, max_resolution=40, log2_table_size=12)
"""Three dense levels and two hashed ones."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(count: int, grid: HashGridSettings = SMALL, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(seed)
    return torch.rand(count, 3, generator=generator), torch.randn(grid.rows, 2, generator=generator)


def published_hash(x: int, y: int, z: int, size: int) -> int:
    """Mueller et al., equation 4, in wrapping 32-bit arithmetic as on a GPU."""
    with np.errstate(over="ignore"):
        factors = (np.uint32(1), np.uint32(2654435761), np.uint32(805459861))
        a, b, c = (np.uint32(value) * factor for value, factor in zip((x, y, z), factors, strict=True))
        return int((a ^ b ^ c) % np.uint32(size))


def literal_encoding(point: list[float], table: np.ndarray, grid: HashGridSettings) -> list[float]:
    """One point, corner by corner, level by level, straight from the formulas."""
    result = []
    start, size = 0, 2**grid.log2_table_size
    growth = (grid.max_resolution / grid.base_resolution) ** (1 / (grid.levels - 1))
    for level in range(grid.levels):
        scale = grid.base_resolution * growth**level - 1
        resolution = math.ceil(round(scale, 9)) + 1
        rows = min(math.ceil(resolution**3 / 8) * 8, size)
        position = [value * scale + 0.5 for value in point]
        cell = [math.floor(value) for value in position]
        total = np.zeros(2)
        for corner in range(8):
            bits = [corner & 1, (corner >> 1) & 1, (corner >> 2) & 1]
            x, y, z = (cell[axis] + bits[axis] for axis in range(3))
            weight = 1.0
            for axis in range(3):
                fraction = position[axis] - cell[axis]
                weight *= fraction if bits[axis] else 1 - fraction
            if resolution**3 <= size:
                row = (x + y * resolution + z * resolution**2) % rows
            else:
                row = published_hash(x, y, z, size)
            total += weight * table[start + row]
        result += total.tolist()
        start += rows
    return result


def test_layout_is_the_authors() -> None:
    grid = HashGridSettings()
    assert grid.growth == pytest.approx(1.2866, abs=1e-4)
    resolutions = [level[0] for level in grid.layout]
    assert resolutions == [16, 21, 27, 35, 44, 57, 73, 94, 121, 155, 199, 256]
    assert [level[3] for level in grid.layout] == [False] * 7 + [True] * 5
    assert all(rows == 2**19 for _, _, rows, hashed in grid.layout if hashed)
    assert all(rows % 8 == 0 and rows >= side**3 for side, _, rows, hashed in grid.layout if not hashed)
    starts = np.cumsum([0] + [level[2] for level in grid.layout])
    assert [level[1] for level in grid.layout] == starts[:-1].tolist()
    assert grid.rows == starts[-1]


@pytest.mark.parametrize("corner", [False, True])
def test_encoding_equals_the_literal_loop(corner: bool) -> None:
    points, table = some(40)
    if corner:  # sides of the cube, where dense levels wrap around
        points = points.round()
    wanted = torch.tensor([literal_encoding(point, table.double().numpy(), SMALL) for point in points.tolist()])
    torch.testing.assert_close(torch_hash_encode(points.double(), table.double(), SMALL), wanted.double())
    torch.testing.assert_close(hash_encode(points, table, SMALL, "numba"), wanted.float(), rtol=0, atol=2e-5)


def test_backends_agree_at_full_size() -> None:
    grid = HashGridSettings()
    points, table = some(3000, grid, 1)
    torch.testing.assert_close(
        hash_encode(points, table, grid, "numba"), hash_encode(points, table, grid, "torch"), rtol=0, atol=2e-4
    )


def gradients(backend: str, points: torch.Tensor, table: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    table = table.clone().requires_grad_()
    return torch.autograd.grad((hash_encode(points, table, SMALL, backend) * weights).sum(), table)[0]


def test_table_gradient_equals_the_twins_and_central_differences() -> None:
    points, table = some(500)
    weights = torch.randn(500, 2 * SMALL.levels, generator=seeded(1))
    found = gradients("numba", points, table, weights)
    torch.testing.assert_close(found, gradients("torch", points, table, weights), rtol=1e-4, atol=2e-4)

    # The encoding is linear in the table: a central difference is exact, however wide its step.
    def value(changed: torch.Tensor) -> float:
        return float((torch_hash_encode(points.double(), changed, SMALL) * weights.double()).sum())

    rows = torch.cat([found.abs().sum(dim=1).argsort(descending=True)[:12], torch.arange(0, SMALL.rows, 977)])
    for row in rows.tolist():
        for column in range(2):
            step = torch.zeros(SMALL.rows, 2, dtype=torch.float64)
            step[row, column] = 0.5
            difference = value(table.double() + step) - value(table.double() - step)
            assert float(found[row, column]) == pytest.approx(difference, rel=1e-3, abs=1e-3)


def test_weights_of_the_corners_sum_to_one() -> None:
    points, _ = some(2000)
    ones = torch.ones(SMALL.rows, 2)
    torch.testing.assert_close(hash_encode(points, ones, SMALL), torch.ones(2000, 2 * SMALL.levels))


def test_at_a_grid_vertex_the_encoding_is_its_row() -> None:
    _, table = some(1)
    for level, (resolution, start, rows, hashed) in enumerate(SMALL.layout):
        vertex = [1, resolution // 2, resolution - 2]
        point = torch.tensor([[(value - 0.5) / SMALL.scales[level] for value in vertex]], dtype=torch.float64)
        row = published_hash(*vertex, rows) if hashed else vertex[0] + resolution * (vertex[1] + resolution * vertex[2])
        found = hash_encode(point.float(), table, SMALL)[0, 2 * level : 2 * level + 2]
        torch.testing.assert_close(found, table[start + row], rtol=0, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 0.8125, width=32), min_size=3, max_size=3), st.integers(0, 2))
def test_a_dense_level_reproduces_linear_functions(point: list[float], level: int) -> None:
    resolution, start, rows, hashed = SMALL.layout[level]
    assert not hashed
    index = torch.arange(resolution**3)
    x, y, z = index % resolution, index // resolution % resolution, index // resolution**2
    table = torch.zeros(SMALL.rows, 2)
    table[start : start + resolution**3] = torch.stack([x + 2.0 * y, 3.0 * z - x], dim=1)
    px, py, pz = (value * SMALL.scales[level] + 0.5 for value in point)
    found = hash_encode(torch.tensor([point]), table, SMALL)[0, 2 * level : 2 * level + 2]
    torch.testing.assert_close(found, torch.tensor([px + 2 * py, 3 * pz - px]), rtol=1e-4, atol=1e-4)


def test_points_that_keep_the_edge_do_not_wrap_around() -> None:
    """A row at the far end of the table's dense levels is not touched by points at the near side, nor vice versa."""
    limit = 1 - SMALL.edge - 1e-4
    points = torch.rand(4000, 3, generator=seeded(3)) * limit
    points[:, 0] = limit
    for resolution, start, rows, hashed in SMALL.layout:
        if not hashed:
            # A wrapped x of `resolution` would land on x = 0 of the next line.
            x = torch.arange(rows) % resolution
            table = torch.zeros(SMALL.rows, 2)
            table[start : start + rows][x == 0] = 1.0
            assert float(hash_encode(points, table, SMALL).abs().max()) == 0.0


def test_points_outside_take_the_nearest_side() -> None:
    points, table = some(50)
    outside = points.clone()
    outside[:, 1] += 2
    points[:, 1] = 1
    assert torch.equal(hash_encode(outside, table, SMALL), hash_encode(points, table, SMALL))


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    points, table = some(5000)
    weights = torch.randn(5000, 2 * SMALL.levels, generator=seeded(1))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append((hash_encode(points, table, SMALL), gradients("numba", points, table, weights)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_a_fresh_table_is_small_and_decided_by_the_seed() -> None:
    table = initial_table(SMALL, seeded(4))
    assert table.shape == (SMALL.rows, 2) and float(table.abs().max()) <= 1e-4 and float(table.std()) > 5e-5
    assert torch.equal(table, initial_table(SMALL, seeded(4)))
    assert not torch.equal(table, initial_table(SMALL, seeded(5)))


def test_no_points_give_no_rows() -> None:
    assert hash_encode(torch.zeros(0, 3), some(1)[1], SMALL).shape == (0, 2 * SMALL.levels)


def test_bad_input_is_named() -> None:
    points, table = some(4)
    with pytest.raises(ShapeMismatch, match=r"`table` has shape \[7, 2\]"):
        hash_encode(points, table[:7], SMALL)
    with pytest.raises(ShapeMismatch, match="`points` has shape"):
        hash_encode(points[:, :2], table, SMALL)
    with pytest.raises(InvalidInput, match="`points` holds 12 non-finite values"):
        hash_encode(points * float("nan"), table, SMALL)
    with pytest.raises(InvalidInput, match="only the table gets one"):
        hash_encode(points.clone().requires_grad_(), table, SMALL)
    with pytest.raises(InvalidInput, match="unknown backend 'cuda'"):
        hash_encode(points, table, SMALL, "cuda")
    with pytest.raises(MissingExtension, match="it takes float32 on the CPU, got torch.float64"):
        hash_encode(points.double(), table.double(), SMALL, "numba")
    with pytest.raises(InvalidInput, match="`base_resolution` 300"):
        HashGridSettings(base_resolution=300)
    with pytest.raises(InvalidInput, match="`levels` is 1"):
        HashGridSettings(levels=1)
    with pytest.raises(InvalidInput, match="`log2_table_size` is 40"):
        HashGridSettings(log2_table_size=40)


def test_the_optional_backend_is_listed_with_what_it_lacks() -> None:
    by_name = {backend.name: backend for backend in available_backends()}
    assert by_name["hash grid/torch"].usable
    optional = by_name["hash grid/tinycudann"]
    assert not optional.verified and "has not been run on a GPU" in optional.reason
    if not torch.cuda.is_available():
        assert not optional.usable
        with pytest.raises(MissingExtension, match="torch sees no CUDA GPU"):
            hash_encode(*some(4), SMALL, "tinycudann")

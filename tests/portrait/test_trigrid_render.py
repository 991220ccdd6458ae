"""The renderer against closed forms, and the fast path against the dense one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.portrait.protocol import Portrait
from animportrait3d_core.portrait.trigrid import (
    SAMPLING_PRESETS,
    RaySamples,
    TrigridPortrait,
    TrigridRenderSettings,
    constant_background,
    density_grid,
    density_normals,
    query_density,
    render_normals,
    render_trigrid,
)
from animportrait3d_core.portrait.trigrid.memory import chunk_rays
from animportrait3d_core.portrait.trigrid.rays import camera_rays

ONE_LEVEL_OF_255 = 2 / 255  # raw colours run from -1 to 1
AXES = torch.tensor([0.5, 0.6, 0.55]) * 1.05
SURFACE = 0.8  # x0 = 0.2, where the hidden unit's input is zero


def using(portrait: TrigridPortrait, **changes) -> TrigridPortrait:
    return dataclasses.replace(portrait, rendering=dataclasses.replace(portrait.rendering, **changes))


def random_portrait(template: TrigridPortrait, seed: int, levels: tuple[int, ...], scale: float) -> TrigridPortrait:
    """A portrait of noise, whose density is neither smooth nor clear of the cube's borders.

    Finer levels are weaker, as in any picture: white noise at 256 texels is so steep that the dense path itself is
    1/255 away from its float64 twin.
    """
    generator = torch.Generator().manual_seed(seed)
    grids = {r: scale * 8 / r * torch.randn(3, 12, 3, r, r, generator=generator) for r in levels}
    return dataclasses.replace(template, levels=grids)


@pytest.mark.parametrize(
    ("levels", "preset"),
    [((32, 64), "draft"), ((64,), "paper"), ((8, 16, 32, 64, 128), "paper"), ((64, 256), "standard")],
)
def test_fast_path_equals_dense_path(make_ellipsoid, levels, preset: str) -> None:
    portrait = make_ellipsoid(levels)
    cameras = orbit_cameras([20.0, 200.0], [10.0, -30.0], 16)
    fast = render_trigrid(dataclasses.replace(portrait, rendering=SAMPLING_PRESETS[preset]), cameras)
    dense = render_trigrid(
        dataclasses.replace(portrait, rendering=dataclasses.replace(SAMPLING_PRESETS[preset], backend="dense")), cameras
    )
    assert 0.2 < dense.coverage.mean() < 0.8
    torch.testing.assert_close(fast.rgb, dense.rgb, rtol=0, atol=0.1 * ONE_LEVEL_OF_255)
    torch.testing.assert_close(fast.coverage, dense.coverage, rtol=0, atol=1e-4)
    seen = dense.coverage > 0.1
    torch.testing.assert_close(fast.depth[seen], dense.depth[seen], rtol=0, atol=1e-3)


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sets(st.sampled_from([8, 16, 32, 256]), min_size=1),
    scale=st.floats(0.01, 6.0),
    yaw=st.floats(-180, 180),
    radius=st.floats(0.5, 4.0),
    samples=st.sampled_from([24, 96]),
)
def test_fast_path_equals_dense_path_on_noise(make_ellipsoid, seed, levels, scale, yaw, radius, samples) -> None:
    portrait = random_portrait(make_ellipsoid((8,)), seed, tuple(levels), scale)
    cameras = orbit_cameras([yaw], [5.0], 6, radius=radius)
    sampling = TrigridRenderSettings(depth_samples=samples, importance_samples=16)
    fast = render_trigrid(dataclasses.replace(portrait, rendering=sampling), cameras)
    dense = render_trigrid(
        dataclasses.replace(portrait, rendering=dataclasses.replace(sampling, backend="dense")), cameras
    )
    torch.testing.assert_close(fast.rgb, dense.rgb, rtol=0, atol=ONE_LEVEL_OF_255)
    torch.testing.assert_close(fast.coverage, dense.coverage, rtol=0, atol=1 / 255)


def test_bounds_hold_everywhere(make_ellipsoid) -> None:
    """No point's density exceeds the bound of its block, inside the cube and beyond it."""
    from animportrait3d_core.portrait.trigrid.fast import prepare

    generator = torch.Generator().manual_seed(0)
    for levels in ((8, 32), (16, 256)):
        portrait = random_portrait(make_ellipsoid((8,)), 5, levels, 2.0)
        prepared = prepare(portrait)
        side, extent = len(prepared.bounds), prepared.extent
        points = torch.rand(100_000, 3, generator=generator) * 2.8 - 1.4
        points = points[(points[:, [0, 2]].abs() <= 0.8).all(dim=1)]
        block = ((points + extent) * (side / (2 * extent))).long().clamp(0, side - 1)
        bound = torch.from_numpy(prepared.bounds)[block[:, 0], block[:, 1], block[:, 2]]
        density = query_density(portrait, points * portrait.field.half_cube)
        assert (density <= bound + 1e-3).all()
        assert (bound - density).median() < 0.5 * density.std() + 25  # and the bounds say something


def test_bounds_hold_on_the_ridge_of_a_slice(make_ellipsoid) -> None:
    """The density has a crease at the middle of a depth slice, which lies inside a block."""
    from animportrait3d_core.portrait.trigrid.fast import prepare

    grid = torch.zeros(3, 12, 3, 8, 8)
    grid[:, 0, 0] = 3.0
    prepared = prepare(dataclasses.replace(make_ellipsoid((8,)), levels={8: grid}))
    portrait = dataclasses.replace(make_ellipsoid((8,)), levels={8: grid})
    point = torch.tensor([[-2 / 3, -2 / 3, -2 / 3]])
    side, extent = len(prepared.bounds), prepared.extent
    i, j, k = ((point[0] + extent) * (side / (2 * extent))).long().tolist()
    density = query_density(portrait, point * portrait.field.half_cube)
    assert density > 500
    assert density <= prepared.bounds[i, j, k]


def test_coverage_and_depth_of_an_ellipsoid(make_ellipsoid) -> None:
    """Against the closed-form density integrated finely along every ray, in float64."""
    portrait = make_ellipsoid((64, 128))
    cameras = orbit_cameras([30.0], [20.0], 32)
    image = render_trigrid(portrait, cameras)
    origins, directions = camera_rays(cameras)
    depths = torch.linspace(1.6, 3.85, 6000, dtype=torch.float64)
    points = (origins[0] + depths[:, None, None] * directions[0]) / AXES
    raw = 10 * torch.nn.functional.softplus(40 * (1 - points.square().sum(-1)) - 8) - 15
    optical = torch.cumsum(torch.nn.functional.softplus(raw - 1) * (depths[1] - depths[0]), dim=0)
    passed = torch.exp(-optical)
    weights = torch.cat([1 - passed[:1], passed[:-1] - passed[1:]])
    coverage, depth = 1 - passed[-1], (weights * depths[:, None]).sum(0) / (1 - passed[-1])
    inside = coverage > 0.99
    assert 0.2 < inside.float().mean() < 0.8
    difference = (image.coverage.flatten().double() - coverage).abs()
    assert difference.max() < 0.05 and difference.mean() < 2e-3
    torch.testing.assert_close(image.depth.flatten().double()[inside], depth[inside], rtol=0, atol=0.01)


def test_normals_of_an_ellipsoid(make_ellipsoid) -> None:
    portrait = make_ellipsoid((64, 128))
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    points = directions * AXES * SURFACE**0.5
    expected = torch.nn.functional.normalize(points / AXES**2, dim=-1)
    assert (density_normals(portrait, points) * expected).sum(-1).min() > 0.998
    cameras = orbit_cameras([0.0, 90.0], [0.0, 0.0], 32)
    normals = render_normals(portrait, cameras, render_trigrid(portrait, cameras))
    assert (normals.camera[:, 16, 16, 2] > 0.9).all()  # towards the viewer
    assert normals.camera[0, 16, 22, 0] > 0.3  # the right half of the picture looks right
    assert normals.camera[0, 11, 16, 1] > 0.2  # the upper half looks up
    assert (normals.world[1, 14:24, 14:18, 0] > 0.8).all()  # seen from +x
    assert (normals.world[0, 0, 0] == 0).all()


def test_density_grid_is_the_field_at_its_points(make_ellipsoid) -> None:
    portrait = make_ellipsoid((32,))
    grid = density_grid(portrait, 17)
    index = torch.tensor([[8, 8, 8], [0, 16, 3], [12, 5, 9]])
    points = torch.tensor(grid.start) + grid.spacing * index
    expected = query_density(portrait, points)
    torch.testing.assert_close(grid.values[tuple(index.T)], expected, rtol=0, atol=1e-3)
    dense = density_grid(using(portrait, backend="dense"), 17)
    torch.testing.assert_close(grid.values, dense.values, rtol=0, atol=2e-3)


def test_same_input_gives_the_same_bits(make_ellipsoid) -> None:
    cameras = orbit_cameras([10.0], [0.0], 40)
    first = render_trigrid(make_ellipsoid((32, 64)), cameras)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = render_trigrid(make_ellipsoid((32, 64)), cameras)
            assert torch.equal(first.rgb, again.rgb)
            assert torch.equal(first.depth, again.depth)
    finally:
        torch.set_num_threads(threads)


def test_chunk_size_of_the_dense_path_changes_nothing_visible(make_ellipsoid) -> None:
    cameras = orbit_cameras([10.0], [0.0], 8)
    portrait = using(make_ellipsoid((32,), backend="dense"), depth_samples=16, importance_samples=16)
    whole = render_trigrid(portrait, cameras)
    for chunk in (5, 37):
        part = render_trigrid(using(portrait, chunk_rays=chunk), cameras)
        torch.testing.assert_close(part.rgb, whole.rgb, rtol=0, atol=1e-4)


def test_chunks_follow_the_free_memory() -> None:
    assert chunk_rays(1 << 20, free_bytes=1 << 30) == 128
    assert chunk_rays(1 << 20, free_bytes=1 << 20) < chunk_rays(1 << 10, free_bytes=1 << 30)


def test_order_of_explicit_quantiles_does_not_matter(make_ellipsoid) -> None:
    cameras = orbit_cameras([0.0], [0.0], 6)
    quantiles = torch.rand(36, 24, generator=torch.Generator().manual_seed(2))
    for backend in ("dense", "fast"):
        portrait = using(make_ellipsoid((32,), backend), importance_samples=24)
        mixed = render_trigrid(portrait, cameras, samples=RaySamples(quantiles=quantiles))
        rising = render_trigrid(portrait, cameras, samples=RaySamples(quantiles=quantiles.sort(dim=1).values))
        torch.testing.assert_close(mixed.rgb, rising.rgb, rtol=0, atol=1e-4)


def test_portrait_protocol_over_a_colour(make_ellipsoid) -> None:
    portrait = make_ellipsoid((32, 64))
    assert isinstance(portrait, Portrait)
    cameras = orbit_cameras([0.0], [0.0], 32)
    color = torch.tensor([0.1, 0.6, 0.9])
    image = portrait.render(cameras, color)
    corner = image.images[0, 0, 0]
    torch.testing.assert_close(corner, color, rtol=0, atol=1e-3)
    assert image.masks[0, 0, 0] == 0 and image.depth[0, 0, 0] == 0
    assert image.masks[0, 16, 16] == 1
    # Camera z, not the distance along the ray; the camera looks up by 4.9 degrees and passes the centre's side.
    assert 1.9 < image.depth[0, 20, 16] < 2.3
    painted = constant_background(color, portrait.to_rgb, portrait.ws)
    own = dataclasses.replace(portrait, background_features=painted).render(cameras)
    torch.testing.assert_close(own.images, image.images, rtol=0, atol=2e-3)


def test_full_quality_is_that_of_the_paper(make_ellipsoid) -> None:
    coarse = dataclasses.replace(make_ellipsoid((8, 16)), rendering=TrigridRenderSettings(8, 8, backend="dense"))
    full = coarse.at_full_quality()
    assert full.rendering == TrigridRenderSettings(96, 96, backend="dense")
    assert full.levels is coarse.levels and full.decoder is coarse.decoder


def test_refuses_bad_settings(make_ellipsoid) -> None:
    portrait = make_ellipsoid((8,))
    cameras = orbit_cameras([0.0], [0.0], 4)
    with pytest.raises(InvalidInput, match="depth_samples is 2"):
        using(portrait, depth_samples=2)
    with pytest.raises(InvalidInput, match="backend 'gpu'"):
        using(portrait, backend="gpu")
    with pytest.raises(ShapeMismatch, match="jitter"):
        render_trigrid(portrait, cameras, samples=RaySamples(jitter=torch.zeros(3, 96)))
    with pytest.raises(ShapeMismatch, match="background"):
        render_trigrid(portrait, cameras, background=torch.zeros(4))
    wide = dataclasses.replace(
        portrait,
        levels={8: torch.zeros(3, 20, 3, 8, 8)},
        decoder=dataclasses.replace(portrait.decoder, hidden_weight=torch.zeros(32, 20)),
    )
    with pytest.raises(InvalidInput, match="20 channels"):
        render_trigrid(wide, cameras)

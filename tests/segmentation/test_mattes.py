"""Mattes: the background is composited once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.segmentation import matte_views
from animportrait3d_core.segmentation.mattes import straight_colors
from animportrait3d_core.views import Views


def some_views(seed: int, background: float) -> tuple[Views, torch.Tensor]:
    """Two views of known straight colours, and these colours."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(2, 6, 6, 3, generator=generator)
    masks = torch.rand(2, 6, 6, generator=generator)
    masks[:, 0], masks[:, 1] = 0.0, 1.0
    behind = torch.full((3,), background)
    images = colors * masks[..., None] + behind * (1 - masks[..., None])
    return Views(images, masks, orbit_cameras([0, 90], [0, 0], 6), behind), colors


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), background=st.sampled_from([0.0, 0.5, 1.0]))
def test_straight_colors_come_back(seed, background) -> None:
    views, colors = some_views(seed, background)
    sure = views.masks > 0.05
    torch.testing.assert_close(straight_colors(views)[sure], colors[sure], rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), background=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_same_masks_change_nothing(seed, background) -> None:
    views, _ = some_views(seed, background)
    again = matte_views(views, views.masks)
    torch.testing.assert_close(again.images, views.images, rtol=0, atol=1 / 64)
    sure = views.masks > 0.05
    torch.testing.assert_close(again.images[sure], views.images[sure], rtol=0, atol=1e-5)


def test_a_new_mask_composites_the_straight_colors() -> None:
    views, colors = some_views(3, 1.0)
    masks = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(9))
    masks[0, 0, 0] = 1.0
    matted = matte_views(views, masks)
    expected = colors * masks[..., None] + (1 - masks[..., None])
    sure = views.masks > 0.05
    torch.testing.assert_close(matted.images[sure], expected[sure], rtol=0, atol=1e-4)
    assert torch.equal(matted.masks, masks)
    assert matted.cameras is views.cameras


def test_a_doubled_background_would_be_seen() -> None:
    """At half coverage over white, the authors' way (picture x mask + white) is lighter than the truth by a quarter."""
    half = torch.full((1, 4, 4), 0.5)
    views = Views(torch.full((1, 4, 4, 3), 0.5), half, orbit_cameras([0], [0], 4), torch.ones(3))
    torch.testing.assert_close(matte_views(views, half).images, torch.full((1, 4, 4, 3), 0.5))
    doubled = views.images * half[..., None] + (1 - half[..., None])
    assert float(doubled.mean()) == pytest.approx(0.75)


def test_where_nothing_was_before_the_picture_speaks() -> None:
    """Retouched pictures may show something outside of the old masks."""
    views = Views(torch.full((1, 4, 4, 3), 0.3), torch.zeros(1, 4, 4), orbit_cameras([0], [0], 4), torch.ones(3))
    torch.testing.assert_close(matte_views(views, torch.ones(1, 4, 4)).images, views.images)


def test_bad_masks_are_refused() -> None:
    views, _ = some_views(0, 1.0)
    with pytest.raises(ShapeMismatch):
        matte_views(views, torch.ones(1, 6, 6))
    with pytest.raises(InvalidInput, match="none of the 2 mattes has a foreground .largest value 0.30"):
        matte_views(views, torch.full((2, 6, 6), 0.3))
    with pytest.raises(InvalidInput, match="non-finite"):
        matte_views(views, torch.full((2, 6, 6), torch.nan))

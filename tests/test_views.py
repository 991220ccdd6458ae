"""Views with other pictures, contact sheets and the other pictures that nodes show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from animportrait3d_core import previews
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.views import Views, concatenate_views, replace_images


def some_views(count: int = 3, size: int = 16) -> Views:
    generator = torch.Generator().manual_seed(0)
    cameras = orbit_cameras([0.0, 100.0, 180.0][:count], [0.0] * count, size)
    images = torch.rand(count, size, size, 3, generator=generator)
    return Views(images, torch.rand(count, size, size, generator=generator), cameras, torch.ones(3))


def test_replaced_pictures_bring_their_size_and_keep_the_cameras_view() -> None:
    views = some_views()
    images = torch.rand(3, 48, 48, 4, generator=torch.Generator().manual_seed(1))
    replaced = replace_images(views, images)
    torch.testing.assert_close(replaced.images, images[..., :3])
    point = torch.tensor([[0.1, 0.3, 0.2]])
    torch.testing.assert_close(project(replaced.cameras, point)[0], 3 * project(views.cameras, point)[0])
    assert replaced.masks.shape == (3, 48, 48)
    assert float((replaced.masks.mean() - views.masks.mean()).abs()) < 0.01
    assert views.images.shape[1] == 16  # the input is as it was


def test_replaced_masks_are_taken() -> None:
    views = some_views()
    masks = torch.zeros(3, 16, 16)
    torch.testing.assert_close(replace_images(views, views.images, masks).masks, masks)


def test_replacing_refuses_what_does_not_fit() -> None:
    views = some_views()
    with pytest.raises(InvalidInput, match=r"\[2, 16, 16, 3\], expected \[3,"):
        replace_images(views, views.images[:2])
    with pytest.raises(InvalidInput, match="32 x 16"):
        replace_images(views, torch.zeros(3, 16, 32, 3))
    with pytest.raises(InvalidInput, match="non-finite"):
        replace_images(views, views.images * float("nan"))
    with pytest.raises(ShapeMismatch, match="masks"):
        replace_images(views, views.images, torch.zeros(3, 8, 8))


def test_view_words_and_selection() -> None:
    views = some_views()
    assert views.view_words == ("front view", "side view", "back view")
    assert views[[2, 0]].view_words == ("back view", "front view")
    torch.testing.assert_close(views[1].images[0], views.images[1])


def test_views_are_concatenated_in_order() -> None:
    views = some_views()
    both = concatenate_views([views[2], views[:2]])
    torch.testing.assert_close(both.images, views.images[[2, 0, 1]])
    torch.testing.assert_close(both.cameras.world_to_camera, views.cameras.world_to_camera[[2, 0, 1]])
    with pytest.raises(InvalidInput, match="image sizes"):
        concatenate_views([views, replace_images(views, torch.zeros(3, 32, 32, 3))])
    with pytest.raises(InvalidInput, match="backgrounds"):
        concatenate_views([views, Views(views.images, views.masks, views.cameras, torch.zeros(3))])


def test_tiles_lie_in_rows() -> None:
    images = torch.stack([torch.full((2, 3, 3), value) for value in (0.1, 0.2, 0.3)])
    sheet = previews.tile(images, columns=2, padding=1)
    assert sheet.shape == (5, 7, 3)
    assert [round(float(sheet[row, column, 0]), 1) for row, column in ((0, 0), (0, 4), (3, 0), (3, 4))] == [
        0.1, 0.2, 0.3, 1.0,
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="0 columns"):
        previews.tile(images, columns=0)


def test_contact_sheet_takes_first_and_last_and_wraps(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 1, 11)[:, None, None, None].expand(11, 8, 8, 3)
    sheet = previews.contact_sheet([ramp], [], columns=2, size=8, rows_per_batch=2)
    assert sheet.shape == (20, 20, 3)
    shown = [float(sheet[row, column, 0]) for row in (4, 16) for column in (4, 16)]
    assert shown == pytest.approx([0.0, 0.3, 0.7, 1.0], abs=1e-6)
    captioned = previews.contact_sheet([ramp], ["a ramp"], columns=2, size=8, rows_per_batch=2)
    assert captioned.shape == (20 + previews.LABEL_HEIGHT, 20, 3)
    previews.write_png(sheet, tmp_path / "sheet.png")
    stored = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert stored.shape == (20, 20, 3) and stored[16, 16, 0] == 255 and stored[4, 4, 0] == 0


def test_contact_sheet_keeps_proportions() -> None:
    """Two pictures twice as high as wide stand on white; a lone wide one fills the row."""
    high, wide = torch.zeros(2, 16, 8, 3), torch.zeros(1, 4, 12, 3)
    sheet = previews.contact_sheet([high], [], columns=2, size=8)
    assert sheet.shape == (8, 20, 3)
    assert sheet[4, :8, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    filled = previews.contact_sheet([wide], [], columns=3, size=8)
    assert filled.shape == (8, 24, 3) and float(filled.max()) == 0
    assert previews.contact_sheet([wide.expand(3, -1, -1, -1)], [], columns=3, size=8).shape == (8, 32, 3)


def triangle() -> Mesh:
    vertices = torch.tensor([[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.5, 0.0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2]]))


def test_pictures_of_meshes_and_points_show_them_in_place() -> None:
    mesh, cameras = triangle(), orbit_cameras([0.0], [0.0], 64)
    (column, row), _ = (value[0, 0] for value in project(cameras, mesh.vertices.mean(0, keepdim=True)))
    inside = (0, int(row), int(column))
    clay = previews.shaded_mesh(mesh.vertices, mesh.faces, cameras)
    assert 0.2 < float(clay[inside][0]) < 0.9 and float(clay[0, 0, 0, 0]) == 1.0
    red = previews.colored_faces(mesh, torch.tensor([[0.8, 0.0, 0.0]]), cameras)
    assert float(red[inside][0]) > 0.3 and float(red[inside][1]) == 0.0
    center, blue = mesh.vertices.mean(0, keepdim=True), torch.tensor([[0.0, 0.0, 1.0]])
    points = previews.points_image(center, blue, cameras, torch.tensor([0.05]))
    assert float(points[inside][2]) > 0.9 > 0.3 > float(points[inside][0])
    views = Views(torch.zeros(1, 64, 64, 3), torch.ones(1, 64, 64), cameras, torch.ones(3))
    overlay = previews.body_overlay(views, mesh.vertices, mesh.faces)
    assert float(overlay[inside][2]) > 0.2 and float(overlay[0, 0, 0].sum()) == 0.0
    dots = previews.draw_points(views.images, torch.tensor([[[column, row], [-5.0, 900.0]]]), (1.0, 0.0, 0.0))
    assert float(dots[inside][0]) == 1.0 and float(views.images.sum()) == 0.0 and float(dots.sum()) == 9.0

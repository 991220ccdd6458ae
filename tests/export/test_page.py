"""The page's file: numbers there and back, its size, what is refused, what it is made of."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.animation.arkit import arkit_map
from animportrait3d_core.avatar import pose_avatar
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.export import read_avatar_page, write_avatar_page
from animportrait3d_core.export.budget import contributions, within_budget
from animportrait3d_core.export.html import PAGE_FOLDER, SCRIPTS, WIDGET_SCRIPTS
from animportrait3d_core.export.page_data import pose_vectors
from animportrait3d_core.export.quantized import half, pack, stepped, unpack, whole
from animportrait3d_core.render import render_gaussians
from animportrait3d_core.similarity import psnr


def test_numbers_come_back_within_half_a_step() -> None:
    values = np.random.default_rng(0).normal(size=(500, 3, 4)).astype(np.float32)
    values[:, 1, 2] = 0
    arrays = {
        "half": half("half", values),
        "all": stepped(values, "i16"),
        "columns": stepped(values, "i8", per_column=True),
        "share": stepped(np.abs(values) / 9, "u16"),
        "whole": whole(np.array([[0, 70000]])),
        "small": whole(np.array([7])),
    }
    layout, text = pack(arrays)
    found = {name: array.values for name, array in unpack(layout, text).items()}
    assert all(entry["offset"] % 8 == 0 for entry in layout.values())
    assert np.allclose(found["half"], values, rtol=2**-11, atol=1e-7)
    assert np.abs(found["all"] - values).max() <= 0.501 * np.abs(values).max() / 32767
    steps = np.abs(values).reshape(500, 12).max(axis=0).reshape(3, 4) / 127
    assert (np.abs(found["columns"] - values) <= 0.501 * steps).all()
    assert np.abs(found["share"] - np.abs(values) / 9).max() < 1e-5
    assert found["whole"].tolist() == [[0, 70000]] and layout["small"]["kind"] == "u16"
    with pytest.raises(InvalidInput, match="`far` goes up to 1e"):
        half("far", np.array([1e9]))
    with pytest.raises(InvalidInput, match="cut off"):
        unpack(layout, text[: len(text) // 8 * 4])


def test_a_page_holds_the_avatar(make_avatar, tmp_path) -> None:
    avatar = make_avatar(800, sh_degree=3)
    clip = stress_clip(avatar.body, avatar.parameters)[:30]
    write_avatar_page(avatar, tmp_path / "a.html", {"<b>": clip}, arkit=torch.rand(52, 18))
    header, arrays = read_avatar_page(tmp_path / "a.html")
    assert (header["splats"], header["coefficients"], header["clips"][0]["name"]) == (800, 16, "<b>")
    carriers = torch.unique(avatar.binding)
    faces, template = arrays["faces"].values.astype(int), arrays["template"].values
    shaped = avatar.body.shape(avatar.parameters.betas).vertices[0]
    corners = shaped[avatar.body.faces[carriers]].numpy()
    assert np.array_equal(template[faces], corners)
    assert np.array_equal(carriers.numpy()[arrays["binding"].values], avatar.binding.numpy())
    assert np.array_equal(arrays["means"].values, avatar.gaussians.means.numpy())
    assert np.abs(arrays["clip0"].values - pose_vectors(clip.parameters).numpy()).max() < 1e-4
    assert arrays["arkit"].values.shape == (52, 18)


def test_quantised_pictures_are_the_pictures(make_avatar, tmp_path) -> None:
    avatar = make_avatar(4000, sh_degree=3)
    write_avatar_page(avatar, tmp_path / "a.html")
    _, arrays = read_avatar_page(tmp_path / "a.html")
    read = {name: torch.from_numpy(np.array(array.values)) for name, array in arrays.items()}
    sh = torch.cat([read["sh0"][:, None], read["sh"]], dim=1)
    stored = dataclasses.replace(
        avatar.gaussians, means=read["means"], quats=read["quats"], log_scales=read["log_scales"],
        logit_opacities=torch.logit(read["opacities"], 1e-6), sh=sh,
    )  # fmt: skip
    cameras = orbit_cameras([0, 120], [0, 0], 192)
    wanted, found = (
        render_gaussians(pose_avatar(each, avatar.parameters), cameras)
        for each in (avatar, dataclasses.replace(avatar, gaussians=stored))
    )
    assert psnr(found.color.clamp(0, 1), wanted.color.clamp(0, 1)) > 45


@pytest.mark.parametrize("degree, most", [(0, 5e6), (3, 8e6)])
def test_a_page_of_40k_is_small(make_avatar, tmp_path, degree: int, most: float) -> None:
    avatar = make_avatar(40000, sh_degree=degree)
    motion = stress_clip(avatar.body, avatar.parameters)
    report = write_avatar_page(avatar, tmp_path / "a.html", {"stress": motion})
    assert report.size == (tmp_path / "a.html").stat().st_size < most


def test_the_renderer_is_small_and_asks_for_nothing() -> None:
    files = [PAGE_FOLDER / name for name in (*SCRIPTS, "page.html")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert sorted(file.name for file in PAGE_FOLDER.iterdir()) == sorted([*WIDGET_SCRIPTS, "page.html"])
    assert sum(len(text.encode()) for text in texts) < 60_000
    assert sum(text.count("\n") for text in texts[:-1]) < 1000, "the scripts; page.html is markup and style"
    for text in (file.read_text(encoding="utf-8") for file in PAGE_FOLDER.iterdir()):
        assert not re.search(
            r"\bimport\b|\bfetch\(|https?://|XMLHttpRequest|SharedArrayBuffer|</script", text.replace("</script>\n", "")
        )


def test_a_budget_keeps_what_is_seen(make_avatar, tmp_path) -> None:
    avatar = make_avatar(3000)
    hidden = torch.zeros(3000, dtype=torch.bool)
    hidden[::2] = True
    faint = dataclasses.replace(
        avatar.gaussians, logit_opacities=torch.where(hidden, -9.0, avatar.gaussians.logit_opacities)
    )
    avatar = dataclasses.replace(avatar, gaussians=faint)
    weights = contributions(avatar)
    assert float(weights[hidden].max()) == 0 < float(weights[~hidden].median())
    seen = weights > 0
    kept = within_budget(avatar, int(seen.sum()))
    assert torch.equal(kept.binding, avatar.binding[seen])
    assert torch.equal(kept.gaussians.means, avatar.gaussians.means[seen])
    report = write_avatar_page(avatar, tmp_path / "a.html", budget=1000)
    assert (report.splats, report.left_out) == (1000, 2000)
    with pytest.raises(InvalidInput, match="a budget of 0"):
        within_budget(avatar, 0)


def test_a_budget_is_spent_on_the_face_before_the_clothes(make_avatar, monkeypatch) -> None:
    """What is seen from near weighs more: the face, and still more teeth and eyes."""
    avatar = make_avatar(4000)
    regions = avatar.body.assets.face_regions
    face = (regions["face"] | regions["eye_region"] | regions["lips"])[avatar.binding]
    details = (regions["teeth"] | regions["left_eyeball"] | regions["right_eyeball"])[avatar.binding]
    every = contributions(avatar)
    monkeypatch.setattr("animportrait3d_core.export.budget.DETAILS", ())
    close = contributions(avatar)
    monkeypatch.setattr("animportrait3d_core.export.budget.CLOSE_YAWS", (180.0,))  # nothing of the face is seen
    far = contributions(avatar)

    def gain(after, before, chosen):
        return float(after[chosen].sum() / before[chosen].sum())

    assert gain(close, far, face) > 1.5 and gain(close, far, face) > gain(close, far, ~face)
    assert gain(every, close, details) > 1.2 and gain(every, close, details) > gain(every, close, ~details)


def test_what_a_page_refuses(make_avatar, tmp_path) -> None:
    avatar = make_avatar(100)
    clip = stress_clip(avatar.body, avatar.parameters)[:3]
    with pytest.raises(InvalidInput, match="expected .html"):
        write_avatar_page(avatar, tmp_path / "a.txt")
    write_avatar_page(avatar, tmp_path / "a.html")
    before = (tmp_path / "a.html").read_bytes()
    with pytest.raises(InvalidInput, match="exists; choose another name"):
        write_avatar_page(avatar, tmp_path / "a.html")
    other = dataclasses.replace(clip, parameters=clip.parameters.replace(betas=clip.parameters.betas + 1))
    with pytest.raises(InvalidInput, match="'walk' is of a body of another shape"):
        write_avatar_page(avatar, tmp_path / "a.html", {"walk": other}, overwrite=True)
    wide = clip.parameters.replace(expression=torch.zeros(3, 50))
    with pytest.raises(InvalidInput, match="'walk' has 50 expression"):
        write_avatar_page(
            avatar, tmp_path / "a.html", {"walk": dataclasses.replace(clip, parameters=wide)}, overwrite=True
        )
    with pytest.raises(ShapeMismatch, match="`arkit`"):
        write_avatar_page(avatar, tmp_path / "a.html", arkit=torch.zeros(52, 9), overwrite=True)
    assert (tmp_path / "a.html").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "b.html").write_text("<html></html>")
    with pytest.raises(InvalidInput, match="no page of an avatar"):
        read_avatar_page(tmp_path / "b.html")
    (tmp_path / "b.html").write_text(before.decode()[:-40].replace('"offset":0', '"offset":-8'))
    with pytest.raises(InvalidInput, match="cut off"):
        read_avatar_page(tmp_path / "b.html")


def test_a_licensed_body_leaves_only_when_asked(make_avatar, tmp_path) -> None:
    avatar = make_avatar(50)
    assets = dataclasses.replace(avatar.body.assets, redistributable=False)
    licensed = type(avatar.body)(avatar.body._tensors, assets)
    avatar = dataclasses.replace(avatar, body=licensed)
    with pytest.raises(InvalidInput, match="is licensed .* `include_licensed_body`"):
        write_avatar_page(avatar, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())
    write_avatar_page(avatar, tmp_path / "a.html", include_licensed_body=True)
    assert read_avatar_page(tmp_path / "a.html")[0]["splats"] == 50


def test_a_title_cannot_break_the_page(make_avatar, tmp_path) -> None:
    evil = "</title><script>alert(1)</script> %DATA%"
    avatar = dataclasses.replace(make_avatar(20), prompt=evil)
    write_avatar_page(avatar, tmp_path / "a.html", {"</script><b>": stress_clip(avatar.body, avatar.parameters)[:2]})
    text = (tmp_path / "a.html").read_text()
    assert "alert(1)</script>" not in text and text.count("</script>") == 2 + len(SCRIPTS) + 1
    assert "%DATA%" in text.split("</title>")[0]
    assert read_avatar_page(tmp_path / "a.html")[0]["clips"][0]["name"] == "</script><b>"


def test_the_node_writes_and_tells(make_avatar, run_node) -> None:
    avatar = make_avatar(300)
    result = run_node("AP3D_ExportPage", avatar=avatar, filename="head", budget=200)
    header, arrays = read_avatar_page(result.path)
    np.testing.assert_allclose(arrays["arkit"].values, arkit_map(avatar.body).matrix.numpy(), atol=1e-6)
    assert header["splats"] == 200 and result.path.endswith("head.html")

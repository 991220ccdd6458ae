"""Curves of a log: what is read of it, and that falling values fall in the picture."""

from __future__ import annotations

import json

import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.training.curves import curves_picture, read_curves


def test_steps_that_were_done_twice_count_once(tmp_path) -> None:
    lines = [
        {"step": 50, "v": 0.5, "lr": 1.0},
        {"step": 100, "v": 0.4, "w": 2.0, "psnr_face": 20.0},
        {"step": 50, "v": 0.3, "seconds": 9.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_curves(tmp_path) == {"v": [(50, 0.3), (100, 0.4)], "w": [(100, 2.0)]}


def test_a_falling_curve_falls() -> None:
    picture = curves_picture({"loss": [(0, 1.0), (50, 0.1), (100, 0.01)]}, "a training")
    blue = (picture - torch.tensor([0x3F, 0x78, 0x9E]) / 255).abs().amax(2) < 0.02
    rows = {column: float(blue[:, column].nonzero().float().mean()) for column in (70, 405, 740)}
    assert rows[70] < rows[405] < rows[740]
    assert rows[405] == pytest.approx(0.5 * (rows[70] + rows[740]), abs=4)  # a straight line over powers of ten
    with pytest.raises(InvalidInput, match="'nothing' has no values"):
        curves_picture({"loss": [(0, 0.0)]}, "nothing")

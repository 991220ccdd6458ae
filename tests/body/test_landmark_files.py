"""Landmark files: what is read, and what is said of files that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from animportrait3d_core.body.landmark_files import read_landmarks
from animportrait3d_core.errors import AnimPortraitError, InvalidInput, MissingModelFile

POINTS = [[0.01 * index, 1.0, -0.5] for index in range(68)]


def test_points_are_read(tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    path.write_text(json.dumps({"prompt": "a man", "landmarks": POINTS}))
    torch.testing.assert_close(read_landmarks(path).points_3d, torch.tensor(POINTS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"landmarks": [[1, 2, 3]]}', r"shape \[1, 3\]"),
        ("[1, 2]", "no 'landmarks': it seems to be of another program"),
        ('{"points": []}', r"no 'landmarks' \(its keys: 'points'\): it seems to be of another program"),
        ('{"landmarks": [["a", 2, 3]]}', "numbers"),
        (json.dumps({"landmarks": POINTS[:-1] + [[1.0, 2.0]]}), "numbers"),
        (json.dumps({"landmarks": POINTS[:-1] + [[1.0, 2.0, float("nan")]]}), "non-finite"),
        ('{"landmarks": ', "not JSON"),
        ("\xff", "not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "head.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidInput, match=message):
        read_landmarks(path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"landmarks": POINTS}).encode())
    assert read_landmarks(path).positions.tolist() == torch.tensor(POINTS).tolist()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingModelFile, match="none.json"):
        read_landmarks(tmp_path / "none.json")
    assert issubclass(MissingModelFile, AnimPortraitError)

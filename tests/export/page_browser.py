"""Pages in headless Chromium, opened from disk by `open_page.js`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import Cameras
from animportrait3d_core.export.page_data import pose_vectors

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "open_page.js"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the browser said. pictures: premultiplied RGBA [H, W, 4] in 0..1.  means: [N, 3] each."""

    said: dict[str, Any]
    pictures: list[np.ndarray]
    means: list[np.ndarray]


def picture_job(pose: BodyParameters, cameras: Cameras, index: int) -> dict[str, Any]:
    """The page's words for one pose seen by one square camera."""
    K = cameras.K[index].tolist()
    camera = {
        "rows": cameras.world_to_camera[index, :3].tolist(),
        "eye": cameras.camera_centers[index].tolist(),
        "pinhole": [K[0][0], K[1][1], K[0][2], K[1][2]],
    }
    return {"pose": pose_vectors(pose)[0].tolist(), "camera": camera, "size": cameras.width}


def open_page(page: Path, folder: Path, environment: dict[str, str], **jobs: Any) -> Answer:
    """Opens a page and does the jobs of `open_page.js`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = ["node", str(SCRIPT), str(page), str(folder / "jobs.json"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = json.loads((folder / "answer.json").read_text())
    pictures = []
    for index, job in enumerate(jobs.get("pictures", [])):
        raw = np.fromfile(folder / f"picture{index}.rgba", np.uint8)
        pictures.append(raw.reshape(job["size"], job["size"], 4).astype(np.float32) / 255)
    means = [np.fromfile(folder / f"means{index}.f32", np.float32).reshape(-1, 3) for index in range(len(pictures))]
    return Answer(said, pictures, means)

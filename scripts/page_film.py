#!/usr/bin/env python3
"""Makes the README's moving picture: the page of an avatar (`export --format html`) while its sliders are moved.

    scripts/page_film.py AVATAR.safetensors [MORE ...]      # one after the other, into docs/images/page.webp

Needs node, Chromium and playwright-core, as the tests of the page do (`scripts/test.sh --all` installs it). Each frame
is a screenshot of the page after its sliders have been set, so that the film is the same at every speed of the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animportrait3d_core.avatar.io import load_avatar  # noqa: E402  (needs the path above)
from animportrait3d_core.export import write_avatar_page  # noqa: E402
from tests.export.page_browser import open_page  # noqa: E402
from tests.host.browser import node_modules  # noqa: E402

FRAMES, FPS = 40, 12
SIZE = {"width": 720, "height": 405}
MOST_BYTES = 2_000_000
MOVE = """page.evaluate(async (values) => {
    for (const box of document.querySelectorAll("input[type=checkbox]:checked")) box.click();
    for (const [name, value] of Object.entries(values)) {
        const input = document.querySelector(`input[data-name="${name}"]`);
        input.value = value;
        input.dispatchEvent(new Event("input"));
    }
    await AP3D.view.snapshot();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}, %s)"""


def bump(share: float, first: float, last: float) -> float:
    """0 outside of first..last, 1 in its middle, smooth between."""
    return math.sin(math.pi * (share - first) / (last - first)) ** 2 if first < share < last else 0.0


def sliders(share: float) -> dict[str, float]:
    """Where the sliders stand at a share of one person's time: looks around, speaks, smiles, blinks."""
    around = math.sin(2 * math.pi * share)
    return {
        "Head left": 22 * around,
        "Head up": 5 * bump(share, 0.3, 0.7),
        "Head tilt": 6 * math.sin(4 * math.pi * share),
        "Gaze left": -14 * around,
        "Jaw": 16 * bump(share, 0.08, 0.28) + 9 * bump(share, 0.28, 0.42) + 20 * bump(share, 0.7, 0.94),
        "Lids": bump(share, 0.0, 0.12) + bump(share, 0.48, 0.62),
        "Expression 1": 1.6 * bump(share, 0.45, 0.8),
    }


def film_of(avatar: Path, folder: Path) -> list[Image.Image]:
    """Screenshots of one avatar's page."""
    page = folder / "avatar.html"
    write_avatar_page(load_avatar(avatar), page)
    steps = []
    for index in range(FRAMES):
        steps.append(MOVE % json.dumps(sliders(index / FRAMES)))
        steps.append(f"page.screenshot({{ path: path.join(folder, 'frame{index:03d}.png') }}).then(() => true)")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
    environment = {**os.environ, "NODE_PATH": str(node_modules()), "CHROMIUM": chromium}
    answer = open_page(page, folder, environment, steps=steps, viewport=SIZE)
    if answer.said["errors"]:
        raise SystemExit(f"{avatar}: the page complains: {answer.said['errors']}")
    return [Image.open(folder / f"frame{index:03d}.png").convert("RGB") for index in range(FRAMES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatars", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "page.webp")
    options = parser.parse_args()
    frames: list[Image.Image] = []
    for number, avatar in enumerate(options.avatars, start=1):
        print(f"{avatar} ({number} of {len(options.avatars)})", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            frames += film_of(avatar, Path(folder))
    milliseconds = round(1000 / FPS)
    kept = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0, "method": 6}
    for quality in (80, 65, 50, 35):
        frames[0].save(options.output, quality=quality, minimize_size=True, **kept)
        size = options.output.stat().st_size
        if size <= MOST_BYTES:
            break
    print(f"{options.output}: {len(frames)} frames, {size / 1e6:.2f} MB at quality {quality}")


if __name__ == "__main__":
    main()

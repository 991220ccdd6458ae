#!/usr/bin/env python3
"""Fit the portraits that the pack ships, and draw their sheet: docs/images/portraits.jpg.

usage: make_portraits.py [NAME ...] [--folder DIR] [--sheet FILE] [--only-sheet]
Files go to animportrait3d_core/embedded/portraits/files: NAME.safetensors and its report NAME.json. An interrupted fit
goes on where it was. The sheet shows one turn of each portrait in six pictures, and its face from two sides.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animportrait3d_core.cameras import orbit_cameras  # noqa: E402
from animportrait3d_core.embedded.portraits import SHIPPED_PORTRAITS, fit_portrait, portrait_identity  # noqa: E402
from animportrait3d_core.files import atomic_write  # noqa: E402
from animportrait3d_core.head_frame import FACE_CENTER  # noqa: E402
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait  # noqa: E402
from animportrait3d_core.previews import tile  # noqa: E402
from animportrait3d_core.workflow.console import ProgressBar  # noqa: E402

FOLDER = ROOT / "animportrait3d_core" / "embedded" / "portraits" / "files"
TILE, TURN, FACE_FOV = 256, 6, 13.0
MAX_BYTES = 400_000


def portrait_tiles(name: str, folder: Path) -> Tensor:
    """Tiles [8, TILE, TILE, 3] of one portrait: a turn in six pictures, then the face from the front and the side."""
    portrait = load_trigrid_portrait(folder / f"{name}.safetensors")
    turn = orbit_cameras([360.0 / TURN * index for index in range(TURN)], [4.0] * TURN, TILE)
    face = orbit_cameras([0.0, 40.0], [3.0, 3.0], TILE, target=FACE_CENTER, fov_degrees=FACE_FOV)
    return torch.cat([portrait.render(cameras, torch.ones(3)).images for cameras in (turn, face)])


def write_jpeg(image: Tensor, path: Path) -> int:
    """Write the picture at the best quality that stays below the limit; returns the file's size."""
    from PIL import Image

    pixels = Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    for quality in range(94, 40, -3):
        with atomic_write(path) as temporary:
            pixels.save(temporary, quality=quality, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"which to fit (default: {' '.join(SHIPPED_PORTRAITS)})")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sheet", type=Path, default=ROOT / "docs" / "images" / "portraits.jpg")
    parser.add_argument("--only-sheet", action="store_true", help="draw the sheet of what was fitted before")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in [] if options.only_sheet else options.names or SHIPPED_PORTRAITS:
        with ProgressBar() as bar:
            report = fit_portrait(portrait_identity(name), options.folder / f"{name}.safetensors", stages=bar.stage)
        print(f"{name}: {report.summary()}", flush=True)
    fitted = [name for name in SHIPPED_PORTRAITS if (options.folder / f"{name}.safetensors").is_file()]
    tiles = torch.cat([portrait_tiles(name, options.folder) for name in fitted])
    size = write_jpeg(tile(tiles, TURN + 2), options.sheet)
    print(f"{options.sheet}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

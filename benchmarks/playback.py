"""Frames a second at which an avatar moves and is drawn, by number of Gaussians.

    python benchmarks/playback.py avatar.safetensors
    python benchmarks/playback.py avatar.safetensors --counts 20000 100000 --size 512 --device cuda
    python benchmarks/playback.py avatar.safetensors --cpu-time      # seconds of one thread's work, for busy machines

Each frame of the stress clip is posed and rendered; the medians are printed in Markdown. More Gaussians than the avatar
has are its own several times over, fewer are its first ones: that changes the picture, not the work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages import of_count  # noqa: E402

from animportrait3d_core.animation import stress_clip  # noqa: E402
from animportrait3d_core.avatar import AvatarRig, RiggedAvatar  # noqa: E402
from animportrait3d_core.avatar.io import load_avatar  # noqa: E402
from animportrait3d_core.cameras import view_preset  # noqa: E402
from animportrait3d_core.render import render_gaussians  # noqa: E402

COUNTS = (20_000, 40_000, 100_000, 500_000)


def frame_times(
    avatar: RiggedAvatar, size: int, frames: int, device: str, clock: Callable[[], float]
) -> tuple[float, float]:
    """Median seconds of posing and of rendering, over frames of the stress clip; the first two are warm-up."""
    clip = stress_clip(avatar.body, avatar.parameters).parameters
    avatar, camera = avatar.to(device), view_preset("heldout", size)[[0]]
    rig, background = AvatarRig(avatar), torch.ones(3, device=device)
    posing, rendering = [], []
    for frame in torch.linspace(0, len(clip) - 1, frames + 2).long().tolist():
        begun = _now(device, clock)
        gaussians = rig.pose(clip[[frame]].to(device))
        posed = _now(device, clock)
        render_gaussians(gaussians, camera, background=background)
        posing.append(posed - begun)
        rendering.append(_now(device, clock) - posed)
    return median(posing[2:]), median(rendering[2:])


def _now(device: str, clock: Callable[[], float]) -> float:
    """The clock, once the device has done what it was asked for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of Gaussians")
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--frames", type=int, default=20, help="that are measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, CPU time instead of wall time")
    options = parser.parse_args()
    if options.cpu_time and options.device != "cpu":
        parser.error("--cpu-time is of the CPU; leave --device out")
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
    avatar = load_avatar(options.avatar)
    threads = f"{torch.get_num_threads()} threads, {clock.__name__}"
    print(f"{options.size} x {options.size} pixels, {options.device}, {threads}\n")
    print("| Gaussians | pose, ms | render, ms | frames/s |")
    print("|---|---|---|---|")
    with torch.no_grad():
        for count in options.counts:
            crowd = of_count(avatar, count)
            posing, rendering = frame_times(crowd, options.size, options.frames, options.device, clock)
            print(
                f"| {count:,} | {1e3 * posing:.1f} | {1e3 * rendering:.1f} | {1 / (posing + rendering):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

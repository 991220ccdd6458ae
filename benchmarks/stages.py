"""Where the time of the dynamic stages goes on this machine: networks, and everything else.

    python benchmarks/stages.py avatar.safetensors                      # the embedded prior, preset standard
    python benchmarks/stages.py avatar.safetensors --count 40000 --steps 10

Some steps of each stage are carried out. Prints, in Markdown: seconds a step, crops of it, milliseconds a crop inside
the networks (the encoder's way back among them) and outside, evaluations a second, and the time of the whole stage.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _device_stages import Timed, paces, times_of  # noqa: E402
from _device_work import Place  # noqa: E402

from animportrait3d_core.avatar import RiggedAvatar  # noqa: E402
from animportrait3d_core.avatar.io import load_avatar  # noqa: E402
from animportrait3d_core.diffusion.diffusers_adapter import (  # noqa: E402
    CONTROLNET_FOLDER,
    GuidanceFiles,
    load_guidance,
)
from animportrait3d_core.embedded.weights import embedded_prior_folder  # noqa: E402
from animportrait3d_core.optimization.presets import PRESETS, dynamic_stage  # noqa: E402

STAGES = ("eyes", "mouth", "full", "refine")


def of_count(avatar: RiggedAvatar, count: int) -> RiggedAvatar:
    """The avatar with so many of its Gaussians, each as often as it takes."""
    return avatar[torch.arange(count) % len(avatar)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--prior", type=Path, help="pipeline folder with a ControlNet (default: the embedded prior)")
    parser.add_argument("--preset", choices=PRESETS, default="standard")
    parser.add_argument("--count", type=int, help="Gaussians (default: the avatar's)")
    parser.add_argument("--steps", type=int, default=10, help="of each stage that are measured")
    options = parser.parse_args()
    prior = options.prior or embedded_prior_folder()
    guidance = Timed(load_guidance(GuidanceFiles(prior, controlnet=prior / CONTROLNET_FOLDER)), "cpu")
    avatar = load_avatar(options.avatar)
    avatar = of_count(avatar, options.count or len(avatar))
    place = Place("cpu", False, time.monotonic() + 1e9)
    print(f"{len(avatar):,} Gaussians, crops of {guidance.image_size} pixels, {torch.get_num_threads()} threads\n")
    print("| stage | work | s a step | crops | networks, ms a crop | outside, ms a crop | evaluations/s | all, s |")
    print("|---|---|---|---|---|---|---|---|")
    total = 0.0
    for stage in STAGES:
        for one in dynamic_stage(stage, options.preset, guidance.guidance_scale, guidance.regions):
            for kind, pace in paces(one, avatar, guidance, place, options.steps).items():
                whole = times_of(one, kind) * pace.seconds
                total += whole
                outside = 1e3 * (pace.seconds - pace.network) / one.crops
                rate = pace.evaluations / pace.network if pace.network else 0.0
                print(
                    f"| {one.stage.name} | {kind} | {pace.seconds:.3f} | {one.crops:.2f} | "
                    f"{1e3 * pace.network / one.crops:.0f} | {outside:.0f} | {rate:.1f} | {whole:.0f} |",
                    flush=True,
                )
    print(f"\nall stages: {total:.0f} s")


if __name__ == "__main__":
    main()

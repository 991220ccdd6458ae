"""How alike the gradients of the score rules are, per timestep: what `fast` may stand for, and what the others ask.

    python benchmarks/score_rules.py avatar.safetensors                     # with the embedded prior
    python benchmarks/score_rules.py avatar.safetensors --prior FOLDER --scale 7.5 --scenes 8

For timesteps along the schedules of the mouth stage and of the full stage, crops of the avatar in random poses get the
gradient of each rule, with the same noise and the stage's own guidance scale. Prints the cosine to `ism` at the latents
(median over crops) and the relative length, in Markdown. A rule may stand for `ism` in a preset where its cosine is at
least 0.98.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.avatar import AvatarRig, RiggedAvatar  # noqa: E402
from animportrait3d_core.avatar.io import load_avatar  # noqa: E402
from animportrait3d_core.cameras import yaw_of  # noqa: E402
from animportrait3d_core.conditioning import Prompts  # noqa: E402
from animportrait3d_core.diffusion import Guidance, NoiseSchedule  # noqa: E402
from animportrait3d_core.diffusion.diffusers_adapter import (  # noqa: E402
    CONTROLNET_FOLDER,
    GuidanceFiles,
    load_guidance,
)
from animportrait3d_core.diffusion.score import ScoreSettings, ScoreText, score  # noqa: E402
from animportrait3d_core.embedded.weights import embedded_prior_folder  # noqa: E402
from animportrait3d_core.optimization.dynamic import RegionPass, scenes_of  # noqa: E402
from animportrait3d_core.optimization.presets import dynamic_stage  # noqa: E402
from animportrait3d_core.optimization.region_guidance import RegionGuidance  # noqa: E402
from animportrait3d_core.optimization.scenes import Scene, render_scene  # noqa: E402
from animportrait3d_core.optimization.score_matching import ScoreMatchingSettings  # noqa: E402

RULES: dict[str, ScoreSettings] = {
    "ism": ScoreSettings("ism"),
    "fast": ScoreSettings("fast"),
    "csd": ScoreSettings("csd"),
    "sds": ScoreSettings("sds"),
    "ism, ControlNet in the inversion": ScoreSettings("ism", condition_in_inversion=True),
}


def gradients(
    asked: RegionGuidance, scene: Scene, latents: Tensor, one: ScoreMatchingSettings, step: int, rule: ScoreSettings
) -> Tensor:
    """[C, ...] of all crops of a scene at a step of the stage."""
    found = torch.zeros_like(latents)
    noise = asked.noise(scene, 0, "noise", step)
    rule = dataclasses.replace(rule, guidance_scale=one.score.guidance_scale)
    assert scene.rows is not None and scene.conditions is not None  # `RegionScenes` has both
    for part, controlled in asked.parts(scene.rows.tolist()):
        rows, yaws = scene.rows[part].tolist(), yaw_of(scene.cameras[part]).tolist()
        text = ScoreText(asked.text(rows, yaws), asked.negative, asked.empty)
        condition = scene.conditions[part] if controlled else None
        answer = score(
            asked.guidance, NoiseSchedule.stable_diffusion(), latents[part], noise[part], condition, text,
            one.intervals.at(step), rule,
        )  # fmt: skip
        found[part] = answer.gradient
    return found


def measure(
    avatar: RiggedAvatar, guidance: Guidance, prompts: Prompts, one: RegionPass, steps: list[int], scenes: int
) -> list[tuple[int, dict[str, tuple[float, float]]]]:
    """(t, {rule: (median cosine to ism, median relative length)}) of some steps of a stage."""
    assert isinstance(one.asks, ScoreMatchingSettings)
    made = scenes_of(one, avatar, guidance.image_size)
    asked, rig, rows = RegionGuidance(guidance, prompts, one.uses), AvatarRig(avatar), []
    with torch.no_grad():
        shown = [made.at(number, 0) for number in range(scenes)]
        encoded = [guidance.encode(render_scene(rig, scene)) for scene in shown]
    for step in steps:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
        for scene, latents in zip(shown, encoded, strict=True):
            every = {
                name: gradients(asked, scene, latents, one.asks, step, rule).flatten(1) for name, rule in RULES.items()
            }
            for name, values in every.items():
                cosine = torch.nn.functional.cosine_similarity(values, every["ism"], dim=1)
                length = values.norm(dim=1) / every["ism"].norm(dim=1)
                found[name] += list(zip(cosine.tolist(), length.tolist()))
        medians = {
            name: (median(cosine for cosine, _ in values), median(length for _, length in values))
            for name, values in found.items()
        }
        rows.append((one.asks.intervals.at(step)[0], medians))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--prior", type=Path, help="pipeline folder with a ControlNet (default: the embedded prior)")
    parser.add_argument("--prompt", help="of the person (default: the avatar's)")
    parser.add_argument("--scale", type=float, help="guidance scale (default: the model's own)")
    parser.add_argument("--scenes", type=int, default=6, help="poses that are looked at")
    parser.add_argument("--points", type=int, default=7, help="timesteps of each stage")
    options = parser.parse_args()
    prior = options.prior or embedded_prior_folder()
    guidance = load_guidance(GuidanceFiles(prior, controlnet=prior / CONTROLNET_FOLDER))
    avatar = load_avatar(options.avatar)
    prompts = Prompts.of(options.prompt or avatar.prompt)
    for stage in ("mouth", "full"):
        (one,) = dynamic_stage(stage, "standard", options.scale or guidance.guidance_scale, guidance.regions)
        last = one.stage.iterations - 1
        steps = sorted({round(last * point / (options.points - 1)) for point in range(options.points)})
        print(f"\n{stage}: cosine to ism (relative length)\n\n| t | " + " | ".join(RULES) + " |")
        print("|---" * (len(RULES) + 1) + "|")
        for t, medians in measure(avatar, guidance, prompts, one, steps, options.scenes):
            cells = [f"{cosine:.3f} ({length:.2f})" for cosine, length in medians.values()]
            print(f"| {t} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

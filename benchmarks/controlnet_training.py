"""Training of a ControlNet of Stable Diffusion 1.5's true shape, on random weights: seconds, memory, bytes on the disk.

    python benchmarks/controlnet_training.py --folder DIR                       # four steps, stopped after the second
    python benchmarks/controlnet_training.py --folder DIR --size 512 --precision fp16 --steps 20      # on a GPU

Makes a base (2.2 GB) and a data set of noise in DIR if they are not there, trains, is stopped half way, goes on, loads
the result as a guidance, and prints one line of JSON. Weights and pictures mean nothing; time and memory are real.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance  # noqa: E402
from animportrait3d_core.diffusion.sampling import SamplingSettings  # noqa: E402
from animportrait3d_core.training import FIELDS, Manifest, write_manifest, write_shard  # noqa: E402
from animportrait3d_core.training.controlnet import PAPER_SETTINGS, ControlNetRun, train_controlnet  # noqa: E402
from animportrait3d_core.training.controlnet_samples import ValidationSettings  # noqa: E402
from animportrait3d_core.training.shards import TEXTS  # noqa: E402

SAMPLES, SIDE = 16, 64


def make_base(folder: Path) -> None:
    """A pipeline folder with the architecture of Stable Diffusion 1.5 and random weights in bfloat16."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    unet: Any = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    unet.to(torch.bfloat16).save_pretrained(str(folder / "unet"))
    del unet
    widths = (128, 256, 512, 512)
    vae: Any = AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    vae.to(torch.bfloat16).save_pretrained(str(folder / "vae"))
    text: Any = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    )
    text.save_pretrained(str(folder / "text_encoder"))
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "noise": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    scheduler: Any = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_pretrained(str(folder / "scheduler"))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}), encoding="utf-8")


def make_data(folder: Path) -> None:
    """A data set of noise, of four persons and all regions."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (dtype, shape) in FIELDS.items():
        full = [SAMPLES, *(SIDE if side == "S" else side for side in shape)]
        tensors[name] = torch.randint(0, 256, full, generator=generator).to(dtype)
    tensors["region"] = torch.arange(SAMPLES).remainder(4).to(torch.uint8)
    tensors["identity"] = torch.arange(SAMPLES, dtype=torch.int32) // 4
    entry = write_shard(folder, 0, tensors, {name: ["noise"] * SAMPLES for name in TEXTS})
    write_manifest(folder, Manifest(SIDE, ("background",), 1, SAMPLES, {"noise": True}, (entry,)))


def memory() -> dict[str, float]:
    """GB: peak of the process's memory (Linux), its private part now, and the peak on the GPU."""
    found = {}
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssAnon"):
            found[{"VmHWM": "peak_gb", "RssAnon": "private_gb"}[name]] = round(int(value.split()[0]) / 1e6, 2)
    if torch.cuda.is_available():
        found["gpu_peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where base, data set and training are written")
    parser.add_argument("--size", type=int, default=64, help="pixels of the pictures")
    parser.add_argument("--precision", default="bf16", help="no, fp16 or bf16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--ema-decay", type=float, default=0.9999)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args()
    base, data, output = (options.folder / name for name in ("base", "data", "training"))
    if not (base / "model_index.json").is_file():
        make_base(base)
    if not (data / "manifest.json").is_file():
        make_data(data)
    loop = dataclasses.replace(
        PAPER_SETTINGS, steps=options.steps, batch_size=options.batch_size, ema_decay=options.ema_decay, log_interval=1
    )
    validation = ValidationSettings(interval=0, per_region=1, sampling=SamplingSettings(2, 2.0))
    run = ControlNetRun(
        loop=loop, precision=options.precision, size=options.size, validation=validation, held_out_share=0.3,
        gradient_checkpointing=options.gradient_checkpointing, resume=True,
    )  # fmt: skip
    stop, times, processor, used = max(1, options.steps // 2), [], [], []

    def report(step: int, steps: int, values: Any) -> None:
        times.append(time.perf_counter())
        processor.append(time.process_time())
        used.append(memory())
        if step == stop and len(times) == stop:
            raise KeyboardInterrupt

    begun = time.perf_counter()
    try:
        train_controlnet(base, data, output, run, report)
    except KeyboardInterrupt:
        stopped = time.perf_counter()
    gc.collect()  # accelerate's wrapping makes circles
    result = train_controlnet(base, data, output, run, report)
    ended = time.perf_counter()
    guidance = load_guidance(GuidanceFiles(base, controlnet=output / "controlnet"), dtype=torch.bfloat16)
    print(
        json.dumps(
            {
                "step": result.step, "finished": result.finished,
                "parameters": sum(value.numel() for value in guidance.controlnet.parameters()),
                "seconds_to_first_step": round(times[0] - begun, 1),
                "seconds_to_save": round(stopped - times[stop - 1], 1),
                "seconds_to_go_on": round(times[stop] - stopped, 1), "seconds": round(ended - begun, 1),
                "seconds_of_last_step": round(times[-1] - times[-2], 2),
                "processor_seconds_of_last_step": round(processor[-1] - processor[-2], 2),
                "while_training": used[-1], **memory(),
                "state_gb": round((output / "state.safetensors").stat().st_size / 1e9, 2),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()

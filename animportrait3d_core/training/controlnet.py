"""Training of the method's ControlNet on a base of one's own (paper A1.5), from a data set to a diffusers folder.

The output folder holds state and log (`runs`), `validation/` with one picture per validation, and `controlnet/`: a
plain folder of diffusers with a model card, written at every validation. Under `accelerate launch` several processes
share each batch; the samples, their order and all that is drawn for them do not depend on how many there are.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ..diffusion.components import controlnet_from_unet, load_controlnet
from ..diffusion.diffusers_adapter import DiffusersGuidance, GuidanceFiles, load_guidance
from ..diffusion.model_files import CONFIG_FILE, Model, build_empty
from ..diffusion.sampling import SamplingSettings
from ..errors import IncompatibleCheckpoint, InvalidInput, MissingExtension
from ..files import atomic_write, write_safetensors
from ..fingerprints import fingerprint
from ..progress import Report
from ..randomness import seed_at
from ..runs import STATE_FILE, Processes, Run
from .controlnet_card import controlnet_card
from .controlnet_data import ControlNetData, Dropout, data_fingerprint
from .controlnet_samples import ValidationSettings, validate
from .controlnet_trainer import ControlNetTrainer
from .images import Split, split_dataset
from .loop import LoopSettings, Sitting
from .shards import open_dataset

CONTROLNET_FOLDER, VALIDATION_FOLDER, CARD_FILE = "controlnet", "validation", "README.md"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
PAPER_SETTINGS = LoopSettings(
    # One round of the paper's 453,385 pairs; batch and rate are the paper's, which says nothing of the rest.
    steps=113_346, batch_size=4, lr=1e-4, warmup_steps=500, final_share=1.0, weight_decay=1e-2, clip_norm=1.0,
    ema_decay=0.9999, log_interval=50,
)  # fmt: skip
_WHERE = "train-controlnet"
_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class ControlNetRun:
    """What the caller may choose.

    loop: schedule, optimiser and seed (but neither `precision` nor `eval_interval`); `batch_size` counts the samples of
    one step, of all processes together.  parts: how many pieces of its share of a batch each process goes through one
    after the other.  dropout: of conditions and words.  precision: of the frozen networks and of autocast; None takes
    what `accelerate launch` says, else "no".  size: pixels of the pictures; None for the base's own.  vae, tokenizer:
    as for a guidance.  start_from: a ControlNet whose weights are the first ones, in place of the U-Net's.
    gradient_checkpointing: compute parts of the networks twice and keep less.  held_out_share: of the persons.
    resume: go on from the folder's state.  minutes: of this sitting at most.  verify: compare every shard with its
    SHA-256 first.
    """

    loop: LoopSettings = PAPER_SETTINGS
    parts: int = 1
    dropout: Dropout = Dropout()
    precision: Literal["no", "fp16", "bf16"] | None = None
    size: int | None = None
    vae: Path | None = None
    tokenizer: Path | None = None
    start_from: Path | None = None
    gradient_checkpointing: bool = False
    validation: ValidationSettings = ValidationSettings()
    held_out_share: float = 0.05
    resume: bool = False
    minutes: float | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise InvalidInput(f"{_WHERE}: {self.parts} accumulated parts, expected at least 1.")
        if self.precision not in (None, *_DTYPES):
            raise InvalidInput(f"{_WHERE}: precision '{self.precision}', expected {', '.join(_DTYPES)}.")

    def key(self, precision: str, size: int) -> str:
        """The settings that a resumed run must keep. How it is divided among processes may change."""
        loop = json.loads(self.loop.key())
        del loop["precision"]
        kept = {**loop, "precision": precision, "size": size, "held_out_share": self.held_out_share}
        return json.dumps({**kept, "dropout": dataclasses.asdict(self.dropout)}, sort_keys=True)


def controlnet_run(chosen: Mapping[str, Any]) -> ControlNetRun:
    """A run of the command line's options by name; None keeps a setting."""
    names = ("steps", "batch_size", "lr", "ema_decay", "seed")
    loop = {name: chosen[name] for name in names if chosen[name] is not None}
    files, how = ("vae", "tokenizer", "start_from"), ("precision", "size", "gradient_checkpointing")
    sitting = ("resume", "minutes", "verify")
    return ControlNetRun(
        loop=dataclasses.replace(PAPER_SETTINGS, **loop),
        parts=chosen["accumulate"],
        dropout=Dropout(chosen["condition_dropout"], chosen["prompt_dropout"]),
        validation=ValidationSettings(
            interval=chosen["validate_every"], sampling=SamplingSettings(guidance_scale=chosen["guidance_scale"])
        ),
        **{name: chosen[name] for name in (*files, *how, *sitting)},
    )


@dataclasses.dataclass(frozen=True)
class ControlNetResult:
    """What a sitting left behind. step: steps done.  finished: all of them.  seconds: of all sittings.  metrics: of the
    last validation.  is_first: whether this process is the one that speaks.
    """

    step: int
    finished: bool
    seconds: float
    metrics: dict[str, float]
    is_first: bool = True


def train_controlnet(
    base: str | Path, dataset: str | Path, output: str | Path, run: ControlNetRun | None = None,
    report: Report | None = None,
) -> ControlNetResult:  # fmt: skip
    """Train a ControlNet of 4 condition channels for the base, a diffusers folder or a single file (SD1.5's family).

    Raises what `load_guidance` and `open_dataset` raise, `MissingExtension` without accelerate, and `InvalidInput` for
    settings that do not fit, a full disk, a loss that is not finite, or a folder whose state is of another training.
    """
    run, output = run or ControlNetRun(), Path(output)
    if (output / STATE_FILE).is_file() and not run.resume:
        raise InvalidInput(
            f"{_WHERE}: '{output}' holds a training; pass --resume to go on with it, or choose another folder."
        )
    # The libraries draw first weights, which are then replaced, from the global generator: it is lent to them.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        accelerator = _accelerator(run.precision)
        processes = Processes(accelerator.is_main_process, lambda own: _first_answer(accelerator, own))
        split = _open(dataset, run, processes.is_first)
        guidance = _load_base(base, run, accelerator)
        size = _checked_size(guidance, run.size)
        # Settings first: the precision also changes the base's hash.
        key = {
            "settings": run.key(accelerator.mixed_precision, size), "data": data_fingerprint(split.training),
            "base": _base_fingerprint(guidance),
        }  # fmt: skip
        controlnet = _first_controlnet(guidance, run, key)
        folder = Run(output, _WHERE, key, run.loop.save_seconds, processes)
        trainer = _trainer(accelerator, guidance, controlnet, split, size, run)
        if processes.is_first:
            _check_disk(output, trainer, folder.has_state)
        accelerator.wait_for_everyone()
        results = _Results(trainer, folder, split, run, Path(base).resolve().name)
        sitting = Sitting(trainer, folder, results.write, run.validation.interval)
        sitting.carry_out(report, run.minutes)
        if sitting.evaluated_at != sitting.step_index:
            sitting.evaluate()
        accelerator.wait_for_everyone()
        finished = sitting.step_index == sitting.steps
        return ControlNetResult(sitting.step_index, finished, folder.seconds, sitting.metrics, processes.is_first)


class _Results:
    """What a training leaves in its folder whenever it is evaluated: pictures, and the ControlNet that drew them."""

    def __init__(self, trainer: ControlNetTrainer, run: Run, split: Split, chosen: ControlNetRun, base: str) -> None:
        self.trainer, self._run, self._split, self._chosen, self._base = trainer, run, split, chosen, base

    def write(self) -> dict[str, float]:
        """Draw held-out pictures and write the ControlNet; the first process does it for all. The picture's metrics."""
        if not self._run.processes.is_first:
            return {}
        try:
            return self._write(self._run.folder)
        except OSError as error:
            step = self.trainer.step_index
            raise InvalidInput(
                f"{_WHERE}: cannot write the ControlNet of step {step} into '{self._run.folder}' ({error}). "
                "Make room on the disk and run again with --resume."
            ) from error

    def _write(self, output: Path) -> dict[str, float]:
        trainer, held_out, settings = self.trainer, self._split.held_out, self._chosen.validation
        controlnet = averaged_controlnet(trainer)
        write_controlnet(output / CONTROLNET_FOLDER, controlnet)
        picture = output / VALIDATION_FOLDER / f"{trainer.step_index:08d}.png"
        metrics = validate(trainer.guidance, controlnet, held_out, trainer.data.size, settings, picture)
        with atomic_write(output / CONTROLNET_FOLDER / CARD_FILE) as temporary:
            card = controlnet_card(self._facts(metrics), self._split.training, held_out)
            temporary.write_text(card, encoding="utf-8")
        return metrics

    def _facts(self, metrics: Mapping[str, float]) -> Mapping[str, Any]:
        loop, chosen, trainer = self._chosen.loop, self._chosen, self.trainer
        planned = "" if trainer.step_index == trainer.steps else f"; {trainer.steps:,} steps are planned"
        begin = "the base's own" if chosen.start_from is None else f"those of `{chosen.start_from.name}`"
        return {
            "family": trainer.guidance.family, "base": self._base, "base_hash": self._run.key["base"],
            "begin": begin, "size": trainer.data.size,
            "steps": f"{trainer.step_index:,}", "state": planned, "minutes": self._run.seconds / 60,
            "settings": f"{loop.batch_size} pictures, learning rate {loop.lr:g}, average {loop.ema_decay:g}, precision "
            f"{trainer.accelerator.mixed_precision}, without condition {chosen.dropout.condition:.0%}, without words "
            f"{chosen.dropout.prompt:.0%}, seed {loop.seed}",
            "psnr": f"{metrics['psnr']:.2f}", "sampling_steps": chosen.validation.sampling.num_inference_steps,
            "guidance_scale": chosen.validation.sampling.guidance_scale,
        }  # fmt: skip


def averaged_controlnet(trainer: ControlNetTrainer) -> Model:
    """A copy of the ControlNet in training with the averaged weights, float32 on the CPU."""
    weights = {name: value.detach().to("cpu", copy=True) for name, value in trainer.adam.averaged().items()}
    copied = build_empty(type(trainer.controlnet), trainer.controlnet.config, _WHERE, len(weights))
    copied.load_state_dict(weights, assign=True)
    return copied


def write_controlnet(folder: Path, controlnet: Model) -> None:
    """Write a plain ControlNet folder of diffusers; each file in one piece."""
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(controlnet.to_json_string(), encoding="utf-8")
    write_safetensors(folder / WEIGHTS_FILE, controlnet.state_dict(), {"format": "pt"})


def _accelerator(precision: str | None) -> Any:
    """accelerate's view of this process; precision: None for the launcher's."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise MissingExtension(
            f"{_WHERE}: the package accelerate cannot be imported ({error}). Install it with 'pip install accelerate'; "
            "without it no ControlNet can be trained, and everything else works."
        ) from error
    # A process may train more than once; accelerate would insist on the first one's precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision)
    known = [name for name in _DTYPES if name != "fp16" or accelerator.device.type != "cpu"]
    if accelerator.mixed_precision not in known:
        raise InvalidInput(
            f"{_WHERE}: precision '{accelerator.mixed_precision}' on '{accelerator.device.type}', expected "
            f"{' or '.join(known)}; choose it with --precision."
        )
    kind = accelerator.distributed_type.value
    if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise InvalidInput(
            f"{_WHERE}: accelerate was launched with {kind}, expected one process, or several that each hold the "
            "networks (MULTI_GPU, MULTI_CPU). Run 'accelerate config' again without it."
        )
    return accelerator


def _first_answer(accelerator: Any, own: bool) -> bool:
    """The first process's answer in all of them."""
    if accelerator.num_processes == 1:
        return own
    from accelerate.utils import broadcast

    return bool(broadcast(torch.tensor([int(own)], device=accelerator.device))[0])


def _open(dataset: str | Path, run: ControlNetRun, is_first: bool) -> Split:
    samples = open_dataset(dataset, verify=run.verify and is_first)
    if not samples.has("condition"):
        raise InvalidInput(
            f"{_WHERE}: shards of the data set '{dataset}' have no condition maps; build it with --preset prior."
        )
    return split_dataset(samples, run.held_out_share)


def _load_base(base: str | Path, run: ControlNetRun, accelerator: Any) -> DiffusersGuidance:
    dtype = _DTYPES[accelerator.mixed_precision]
    files = GuidanceFiles(Path(base), vae=run.vae, tokenizer=run.tokenizer)
    guidance = load_guidance(files, accelerator.device, dtype)
    if run.gradient_checkpointing:
        guidance.unet.enable_gradient_checkpointing()
    return guidance


def _checked_size(guidance: DiffusersGuidance, size: int | None) -> int:
    size = guidance.image_size if size is None else size
    stride = guidance.latent_factor * 2 ** (len(guidance.unet.config["block_out_channels"]) - 1)
    if size < stride or size % stride:
        raise InvalidInput(f"{_WHERE}: pictures of {size} pixels, expected a multiple of {stride} for this base.")
    return size


def _base_fingerprint(guidance: DiffusersGuidance) -> str:
    """Hash of all that is frozen."""
    networks = (guidance.unet, guidance.vae, guidance.text_encoder)
    words = dict(guidance.tokenizer.get_vocab())
    rest = (guidance.alphas_cumprod, guidance.prediction_type, words)
    return fingerprint(([network.state_dict() for network in networks], rest))[:16]


def _first_controlnet(guidance: DiffusersGuidance, run: ControlNetRun, key: dict[str, str]) -> Model:
    """The ControlNet before the first step; one from a file belongs to the key."""
    factor = guidance.latent_factor
    if run.start_from is None:
        controlnet = controlnet_from_unet(_WHERE, guidance.unet, factor, seed_at(run.loop.seed, "controlnet"))
    else:
        controlnet = load_controlnet(_WHERE, Path(run.start_from), guidance.unet)
        controlnet = torch.nn.Module.to(controlnet, dtype=torch.float32)
        found = 2 ** (len(controlnet.config["conditioning_embedding_out_channels"]) - 1)
        if found != factor:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: the ControlNet '{run.start_from}' shrinks conditions by {found}, the base's autoencoder "
                f"pictures by {factor}. Choose a ControlNet made for this base, or start without one."
            )
        key["start"] = fingerprint(controlnet)[:16]
    if run.gradient_checkpointing:
        controlnet.enable_gradient_checkpointing()
    return controlnet


def _trainer(
    accelerator: Any, guidance: DiffusersGuidance, controlnet: Model, split: Split, size: int, run: ControlNetRun
) -> ControlNetTrainer:
    latents = (guidance.latent_channels, size // guidance.latent_factor, size // guidance.latent_factor)
    steps = len(guidance.schedule)
    data = ControlNetData(split.training, size, latents, steps, run.dropout, run.loop.seed)
    return ControlNetTrainer(accelerator, guidance, controlnet, data, run.loop, run.parts)


def _check_disk(output: Path, trainer: ControlNetTrainer, has_state: bool) -> None:
    """Refuse to begin where state and ControlNet will not fit: a file is written whole before the old one goes."""

    def size(tensors: Mapping[str, torch.Tensor]) -> int:
        return sum(value.numel() * value.element_size() for value in tensors.values())

    try:
        output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output).free
    except OSError as error:
        raise InvalidInput(f"{_WHERE}: cannot write into '{output}' ({error.strerror}); choose another.") from error
    needed = (1 if has_state else 2) * size(trainer.adam.tensors()) + 2 * size(trainer.controlnet.state_dict())
    if free < needed:
        raise InvalidInput(
            f"{_WHERE}: '{output}' has {free / 1e9:.3g} GB free, expected {needed / 1e9:.3g} GB for the state and the "
            "ControlNet. Make room, or choose a folder on another disk."
        )

"""AP3D_LoadGuidance, AP3D_SampleGuidance: a diffusion model, and what it is worth before an hour is spent with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from animportrait3d_core.conditioning import Prompts
    from animportrait3d_core.diffusion import Guidance
    from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles

WHERE = "AP3D_LoadGuidance"
EMBEDDED = "embedded prior"
OF_MODEL = "(of the model)"
NONE = "(none)"
FOUND = "(found by itself)"
PIPELINE_FILE = "model_index.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
TOKENIZER_FILE = "tokenizer_config.json"
CONTROLNET_FOLDER = "controlnet"
CHECKPOINT_SUFFIXES = (".safetensors", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
LORA_SUFFIXES = (".safetensors", ".pt", ".bin")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
# Names on a node's choices that are no files.
_WORDS = (EMBEDDED, OF_MODEL, NONE, FOUND)


def _named(key: str, file: str) -> list[str]:
    """The files of exactly that name under a model key: each stands for the folder in which it lies."""
    return [name for name in host.model_files(key, (".json",)) if name.rsplit("/", 1)[-1] == file]


def model_path(model: str) -> Path:
    """The folder or the single file of a choice of `model`."""
    if model == EMBEDDED:
        from animportrait3d_core.embedded.weights import embedded_prior_folder

        return embedded_prior_folder()
    if Path(model).name == PIPELINE_FILE:
        return host.model_file(WHERE, "diffusers", model).parent
    return host.model_file(WHERE, "checkpoints", model)


def lora_path(lora: str) -> Path:
    """The file of a choice of `lora`."""
    if lora.startswith(host.EMBEDDED_PREFIX):
        from animportrait3d_core.embedded.weights import embedded_style_file

        return embedded_style_file(lora.removeprefix(host.EMBEDDED_PREFIX))
    return host.model_file(WHERE, "loras", lora)


def guidance_files(
    model: str,
    controlnet: str,
    vae: str,
    lora: str,
    tokenizer: str,
    controlnet_strength: float = 1.0,
    lora_strength: float = 1.0,
) -> GuidanceFiles:
    """The files of all choices."""
    from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles

    path = model_path(model)
    own = path / CONTROLNET_FOLDER
    control = own if controlnet == OF_MODEL and own.is_dir() else None
    words = host.clip_tokenizer_folder()
    if controlnet not in _WORDS:
        control = host.model_file(WHERE, "controlnet", controlnet)
    if tokenizer != FOUND:
        words = host.model_file(WHERE, "diffusers", tokenizer).parent
    return GuidanceFiles(
        checkpoint=path,
        vae=None if vae == OF_MODEL else host.model_file(WHERE, "vae", vae),
        controlnet=control,
        conditioning_scale=controlnet_strength,
        loras=() if lora == NONE else ((lora_path(lora), lora_strength),),
        tokenizer=words,
    )


def _paths(files: GuidanceFiles) -> list[Path]:
    """All files and folders that a guidance is read from."""
    chosen = [files.checkpoint, files.vae, files.controlnet, files.tokenizer, *(path for path, _ in files.loras)]
    return [Path(path) for path in chosen if path is not None]


def chosen_dtype(precision: str, device: str) -> torch.dtype:
    """The type of the weights; `auto` is half precision on GPUs."""
    import torch

    if precision == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    return getattr(torch, precision)


class LoadGuidance:
    """A diffusion model from files."""

    CATEGORY = "AnimPortrait3D/guidance"
    DESCRIPTION = (
        "Loads a latent diffusion model of the shape of Stable Diffusion 1.5: the pack's own prior, a diffusers "
        "folder, or a single checkpoint file; with a VAE, a ControlNet of 4 channels (normals and labels) and a LoRA "
        "of your own. Models of other families are refused by name. Nothing is downloaded."
    )
    SEARCH_ALIASES = [
        "stable diffusion",
        "checkpoint loader",
        "ControlNet",
        "LoRA",
        "prior",
        "diffusers",
        "SD1.5",
        "score distillation",
        "load model",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_GUIDANCE", "STRING")
    RETURN_NAMES = ("guidance", "description")
    OUTPUT_TOOLTIPS = (
        "The model, ready to predict.",
        "Its family, type of prediction, latent channels, ControlNet and device.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.embedded.styles import STYLES

        styles = [host.EMBEDDED_PREFIX + style for style in STYLES]
        models = [EMBEDDED, *_named("diffusers", PIPELINE_FILE), *host.model_files("checkpoints", CHECKPOINT_SUFFIXES)]
        strength = {"default": 1.0, "step": 0.05, "round": False}
        return {
            "required": {
                "model": (
                    models,
                    {
                        "default": EMBEDDED,
                        "tooltip": "The pack's own prior, a diffusers folder in models/diffusers (by its "
                        "model_index.json), or a single file in models/checkpoints.",
                        **host.model_file_option(
                            ("diffusers", "checkpoints"), (".json", *CHECKPOINT_SUFFIXES), inner=PIPELINE_FILE
                        ),
                    },
                ),
                "controlnet": (
                    [OF_MODEL, NONE, *host.model_files("controlnet", WEIGHT_SUFFIXES)],
                    {
                        "default": OF_MODEL,
                        "tooltip": "A ControlNet of 4 channels in models/controlnet. (of the model): the folder "
                        "'controlnet' beside the model's other parts, if there is one.",
                        **host.model_file_option("controlnet", WEIGHT_SUFFIXES, inner=WEIGHTS_FILE),
                    },
                ),
                "controlnet_strength": (
                    "FLOAT",
                    {**strength, "min": 0.0, "max": 2.0, "tooltip": "How much the ControlNet is heard."},
                ),
                "vae": (
                    [OF_MODEL, *host.model_files("vae", WEIGHT_SUFFIXES)],
                    {
                        "default": OF_MODEL,
                        "tooltip": "A file in models/vae in place of the model's own VAE.",
                        **host.model_file_option("vae", WEIGHT_SUFFIXES, inner=WEIGHTS_FILE),
                    },
                ),
                "lora": (
                    [NONE, *styles, *host.model_files("loras", LORA_SUFFIXES)],
                    {
                        "default": NONE,
                        "tooltip": "A LoRA in models/loras, added to the weights once. embedded: a style of the "
                        "embedded prior.",
                        **host.model_file_option("loras", LORA_SUFFIXES),
                    },
                ),
                "lora_strength": (
                    "FLOAT",
                    {**strength, "min": -4.0, "max": 4.0, "tooltip": "How much of the LoRA is added."},
                ),
                "tokenizer": (
                    [FOUND, *_named("diffusers", TOKENIZER_FILE)],
                    {
                        "default": FOUND,
                        "advanced": True,
                        "tooltip": "Only for single files, which hold none: a CLIP tokenizer's folder (by its "
                        "tokenizer_config.json). Inside ComfyUI its own is found.",
                        **host.model_file_option("diffusers", (".json",), inner=TOKENIZER_FILE),
                    },
                ),
                "precision": (
                    list(PRECISIONS),
                    {
                        "default": "auto",
                        "advanced": True,
                        "tooltip": "Of the weights. auto: float16 on GPUs, float32 on CPUs.",
                    },
                ),
            }
        }

    @classmethod
    def IS_CHANGED(cls, model: str, controlnet: str, vae: str, lora: str, tokenizer: str, **inputs: Any) -> str:
        return host.stamp_of(lambda: _paths(guidance_files(model, controlnet, vae, lora, tokenizer)))

    @host.plain_torch
    def execute(
        self,
        model: str,
        controlnet: str,
        controlnet_strength: float,
        vae: str,
        lora: str,
        lora_strength: float,
        tokenizer: str,
        precision: str,
    ) -> dict[str, Any]:
        from animportrait3d_core.diffusion.diffusers_adapter import load_guidance
        from animportrait3d_core.progress import behind

        files = guidance_files(model, controlnet, vae, lora, tokenizer, controlnet_strength, lora_strength)
        device = host.device_with_room(_paths(files))
        guidance = behind(lambda: load_guidance(files, device, chosen_dtype(precision, device)))
        lines = [f"{model}: {guidance.summary()}"]
        if tokenizer != FOUND and Path(files.checkpoint).is_dir():
            lines.append(f"'{tokenizer}' was not read: the model's folder has its own tokenizer.")
        text = "\n".join(lines)
        return host.node_result(guidance, text, ui={"text": [text]})


class SampleGuidance:
    """Pictures of a guidance."""

    CATEGORY = "AnimPortrait3D/guidance"
    DESCRIPTION = (
        "Draws pictures from a guidance, as the optimization will ask it: the text of a region seen from a side, with "
        "the ControlNet and without. What is bad here will be bad on the avatar."
    )
    SEARCH_ALIASES = ["KSampler", "text to image", "test prompt", "ControlNet preview", "preview model"]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("The pictures.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.conditioning.crops import CROP_REGIONS
        from animportrait3d_core.diffusion.samplers import DDIM, SCHEDULERS
        from animportrait3d_core.diffusion.sampling import PictureSettings, SamplingSettings

        usual = SamplingSettings()
        return {
            "required": {
                "guidance": ("AP3D_GUIDANCE", {"tooltip": "The diffusion model."}),
                "prompts": ("AP3D_PROMPTS", {"tooltip": "What the person looks like."}),
                "region": (list(CROP_REGIONS), {"default": "face", "tooltip": "Whose text is asked for."}),
                "yaw": (
                    "FLOAT",
                    {
                        "default": 0.0, "min": -180.0, "max": 180.0, "step": 1.0, "round": False,
                        "tooltip": "Degrees; chooses the view word: 0 is the front, 90 the subject's left.",
                    },
                ),
                "steps": (
                    "INT",
                    {"default": usual.num_inference_steps, "min": 1, "max": 1000, "tooltip": "Steps of the sampler."},
                ),
                "guidance_scale": (
                    "FLOAT",
                    {
                        "default": usual.guidance_scale, "min": 1.0, "max": 100.0, "step": 0.5, "round": False,
                        "tooltip": "How closely the text is followed; 1 asks without the negative prompt. The embedded "
                        "prior wants 2, Stable Diffusion 1.5 7.5.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Of the noise. The n-th picture begins with the same, whatever the count.",
                    },
                ),
                "count": (
                    "INT",
                    {"default": PictureSettings.count, "min": 1, "max": 64, "tooltip": "Number of pictures."},
                ),
                "controlnet": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Off: the condition gives only the size of the pictures."},
                ),
                "scheduler": (list(SCHEDULERS), {"default": DDIM, "tooltip": "Of diffusers; LCM's wants few steps."}),
            },
            "optional": {
                "condition": (
                    "IMAGE",
                    {"tooltip": "`packed` of Condition Maps (4 channels): one for all pictures, or one for each."},
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        guidance: Guidance,
        prompts: Prompts,
        region: str,
        yaw: float,
        steps: int,
        guidance_scale: float,
        seed: int,
        count: int,
        controlnet: bool,
        scheduler: str,
        condition: Tensor | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.conditioning import CROP_REGIONS
        from animportrait3d_core.diffusion.sampling import PictureSettings, SamplingSettings, sample_pictures

        size = None if condition is None else (condition.shape[1], condition.shape[2])
        sampling = SamplingSettings(steps, guidance_scale, scheduler=scheduler)
        settings = PictureSettings(sampling, count, seed, size)
        asked, negative = prompts.text(CROP_REGIONS[region], yaw), prompts.negative_prompt
        given = condition if controlnet else None
        images = sample_pictures(guidance, settings, asked, negative, given, host.ProgressBar())
        why = "no condition is connected" if controlnet else "it is off"
        control = f"without ControlNet: {why}" if given is None else "with ControlNet"
        text = "\n".join([asked, f"negative: {negative or '(none)'}", control])
        return host.node_result(images, ui={**host.preview_images(images, "samples"), "text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_LoadGuidance": LoadGuidance, "AP3D_SampleGuidance": SampleGuidance}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_LoadGuidance": "Load Guidance", "AP3D_SampleGuidance": "Sample Guidance"}

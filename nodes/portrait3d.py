"""AP3D_LoadPortrait3D, AP3D_TextToPortrait, AP3D_ExtractMesh: trigrid portraits, and the surface of any portrait."""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.portrait.protocol import Portrait
    from animportrait3d_core.portrait.trigrid import Generator, TrigridPortrait

INPUT_PREFIX = "input: "
MODEL_KEY = "portrait3d"
PORTRAIT_SUFFIXES = (".pth", ".pt", ".safetensors")
GENERATOR_SUFFIXES = (".pkl", ".safetensors")
INSIDE_THE_FILE = "(inside the file)"
UPLOAD_FOLDER = "portrait3d"
UPLOAD = host.Upload("upload portrait", UPLOAD_FOLDER, (".txt",), INPUT_PREFIX)
UPLOAD_GENERATOR = host.Upload("upload generator", UPLOAD_FOLDER, (), INPUT_PREFIX)
PREVIEW_SIZE, BACKGROUND_SIZE = 256, 512
SAMPLING_TOOLTIP = (
    "Samples per ray of every picture that is rendered of it. draft: for a first look. standard: for two CPU cores. "
    "paper: as the authors render."
)


def embedded_portraits() -> list[str]:
    """The choices that every installation has."""
    from animportrait3d_core.embedded.portraits import SHIPPED_PORTRAITS

    return [host.EMBEDDED_PREFIX + name for name in SHIPPED_PORTRAITS]


def user_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names of what lies in models/portrait3d, then of what was uploaded."""
    uploaded = [name for name in host.input_files(suffixes) if name.startswith(f"{UPLOAD_FOLDER}/")]
    return [*host.model_files(MODEL_KEY, suffixes), *(INPUT_PREFIX + name for name in uploaded)]


def user_file(name: str) -> Path:
    """The file of one of these names."""
    where = "AP3D_LoadPortrait3D"
    if name.startswith(INPUT_PREFIX):
        return host.input_file(where, name[len(INPUT_PREFIX) :])
    return host.model_file(where, MODEL_KEY, name)


def _one(name: str) -> list[Path]:
    return [user_file(name)]


def sampling_choice(default: str = "standard") -> tuple[list[str], dict[str, str]]:
    """The widget of the sampling presets."""
    from animportrait3d_core.portrait.trigrid.settings import SAMPLING_PRESETS

    return (list(SAMPLING_PRESETS), {"default": default, "tooltip": SAMPLING_TOOLTIP})


def four_sides(portrait: Portrait) -> Tensor:
    """Pictures [4, 256, 256, 3] of a portrait, with progress."""
    import torch

    from animportrait3d_core import previews
    from animportrait3d_core.portrait.views import render_views

    cameras = previews.preview_cameras(PREVIEW_SIZE)
    return render_views(portrait, cameras, torch.ones(3), progress=host.ProgressBar(len(cameras)), chunk=1).images


def read_portrait(path: Path, sampling: str, weights: Generator | None = None, prompt: str = "") -> TrigridPortrait:
    """The portrait of a file, to be rendered as finely as the preset says."""
    import dataclasses

    from animportrait3d_core.portrait.trigrid import SAMPLING_PRESETS, load_trigrid_portrait

    portrait = load_trigrid_portrait(path, weights, prompt)
    return dataclasses.replace(portrait, rendering=SAMPLING_PRESETS[sampling])


class LoadPortrait3D:
    """A static portrait in Portrait3D's trigrid format."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Loads a static portrait of Portrait3D: one of those that come with this pack, or a file of your own in "
        "models/portrait3d ({id}.pth with its generator model_512.pkl, or a safetensors portrait). Nothing inside a "
        "pickle is run."
    )
    SEARCH_ALIASES = [
        "trigrid",
        "3DPortraitGAN",
        "static portrait",
        "NeRF head",
        "pth",
        "Portrait3D",
        "head",
        "avatar",
        "EG3D",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PORTRAIT", "STRING", "IMAGE", "IMAGE")
    RETURN_NAMES = ("portrait", "prompt", "image", "background")
    OUTPUT_TOOLTIPS = ("The portrait.", "Its description.", "It from four sides.", "What stands behind it.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = [*embedded_portraits(), *user_files(PORTRAIT_SUFFIXES)]
        generators = [INSIDE_THE_FILE, *user_files(GENERATOR_SUFFIXES)]
        return {
            "required": {
                "file": (
                    files,
                    {
                        "tooltip": "A portrait of the pack itself, or a file in models/portrait3d or uploaded.",
                        **host.model_file_option(MODEL_KEY, PORTRAIT_SUFFIXES, upload=UPLOAD),
                    },
                ),
                "generator": (
                    generators,
                    {
                        "default": INSIDE_THE_FILE,
                        "tooltip": "Only for a .pth: the model it belongs to (model_512.pkl, or its safetensors copy).",
                        **host.model_file_option(MODEL_KEY, GENERATOR_SUFFIXES, upload=UPLOAD_GENERATOR),
                    },
                ),
                "sampling": sampling_choice(),
                "prompt": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "Words in place of the file's own, which are in it or in the .txt beside it.",
                    },
                ),
            }
        }

    @classmethod
    def IS_CHANGED(cls, file: str, generator: str, **inputs: Any) -> str:
        names = [] if file.startswith(host.EMBEDDED_PREFIX) else [file, str(PurePosixPath(file).with_suffix(".txt"))]
        names += [] if generator == INSIDE_THE_FILE else [generator]
        return "\n".join([file, *(host.stamp_of(functools.partial(_one, name)) for name in names)])

    @host.plain_torch
    def execute(self, file: str, generator: str, sampling: str, prompt: str) -> dict[str, Any]:
        from animportrait3d_core.embedded.portraits import shipped_portrait_file
        from animportrait3d_core.portrait.trigrid import carries_decoder, read_generator, render_background, to_uint8

        if file.startswith(host.EMBEDDED_PREFIX):
            path = shipped_portrait_file(file[len(host.EMBEDDED_PREFIX) :])
        else:
            path = user_file(file)
        weights, unused = None, []
        if generator != INSIDE_THE_FILE and carries_decoder(path):
            unused.append(f"'{generator}' was not read: this file carries its own decoder.")
        elif generator != INSIDE_THE_FILE:
            weights = read_generator(user_file(generator))
        portrait = read_portrait(path, sampling, weights, prompt)
        image = four_sides(portrait)
        ui = {**host.preview_images(image, "portrait"), "text": ["\n".join([portrait.summary(), *unused])]}
        host.warn("AP3D_LoadPortrait3D", unused)
        background = to_uint8(render_background(portrait, BACKGROUND_SIZE, BACKGROUND_SIZE)) / 255
        return host.node_result(portrait, portrait.prompt, image, background[None], ui=ui)


class TextToPortrait:
    """Words become a person of the embedded world, and that person a portrait."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Makes a static portrait from a description, without any model file: the pack's own world draws a person who "
        "fits the words, and a portrait is fitted to pictures of that person. It takes minutes once; afterwards the "
        "same words and seed are there at once. It knows sex, age, skin, hair, eyes, brows, lips, beards, freckles "
        "and clothes."
    )
    SEARCH_ALIASES = [
        "text to 3D",
        "prompt",
        "identity",
        "generate head",
        "text to avatar",
        "character",
        "face generator",
        "avatar",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PORTRAIT", "STRING", "IMAGE")
    RETURN_NAMES = ("portrait", "prompt", "image")
    OUTPUT_TOOLTIPS = ("The portrait.", "Its whole description, what was drawn included.", "It from four sides.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.embedded.portraits import PORTRAIT_PRESETS

        return {
            "required": {
                "prompt": (
                    "STRING",
                    {
                        "default": "an old man, short grey hair, blue eyes, fair skin, full beard, navy shirt",
                        "multiline": True,
                        "tooltip": "Who it is, in plain words; what they leave open is drawn from the seed.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 2**32 - 1,
                        "tooltip": "Draws the face, and what the words leave open.",
                    },
                ),
                "preset": (
                    list(PORTRAIT_PRESETS),
                    {"default": "standard", "tooltip": "How long the portrait is fitted. draft: for a first look."},
                ),
                "sampling": sampling_choice(),
            }
        }

    @host.plain_torch
    def execute(self, prompt: str, seed: int, preset: str, sampling: str) -> dict[str, Any]:
        from animportrait3d_core.embedded.portraits import PORTRAIT_PRESETS, portrait_from_prompt

        bar = host.ProgressBar()
        made = portrait_from_prompt(prompt, seed, PORTRAIT_PRESETS[preset], lambda stage: bar)
        portrait = read_portrait(made.path, sampling)
        image = four_sides(portrait)
        unknown = [f"Not understood: {', '.join(made.unknown)}"] if made.unknown else []
        host.warn("AP3D_TextToPortrait", unknown)
        seconds = f"{made.report.psnr:.1f} dB to the person; fitted once, in {made.report.seconds:.0f} s"
        text = "\n".join([f"Made: {made.prompt}", *unknown, seconds])
        ui = {**host.preview_images(image, "portrait"), "text": [text]}
        return host.node_result(portrait, made.prompt, image, ui=ui)


class ExtractMesh:
    """The surface of a portrait."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Takes the surface out of a portrait's density field by marching cubes, cleans it, and colours it "
        "as the portrait looks (paper, section 3.1). A portrait that is a mesh gives its own, as it is."
    )
    SEARCH_ALIASES = ["marching cubes", "isosurface", "trigrid to mesh", "geometry", "mesh", "to mesh", "NeRF to mesh"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MESH", "IMAGE", "MESH")
    RETURN_NAMES = ("mesh", "image", "mesh_3d")
    OUTPUT_TOOLTIPS = (
        "The surface in the head frame, with colours.",
        "It from four sides, in clay and in colours.",
        "The same for ComfyUI's own 3D nodes: preview, save as GLB, bake.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.portrait.protocol import MESH_PRESETS
        from animportrait3d_core.surface import SurfaceSettings

        usual = SurfaceSettings()
        return {
            "required": {
                "portrait": ("AP3D_PORTRAIT", {"tooltip": "The portrait."}),
                "preset": (
                    list(MESH_PRESETS),
                    {
                        "default": "standard",
                        "tooltip": "How fine the density grid is. "
                        + ", ".join(f"{name}: {entry.resolution}" for name, entry in MESH_PRESETS.items())
                        + " points per side.",
                    },
                ),
                "density": (
                    "FLOAT",
                    {
                        "default": usual.level, "min": -100.0, "max": 1000.0, "step": 0.5, "round": False,
                        "tooltip": "Raw density at which the surface lies; higher is further inside.",
                    },
                ),
                "smoothing": (
                    "INT",
                    {
                        "default": usual.smoothing_steps, "min": 0, "max": 1000,
                        "tooltip": "Passes of Laplacian smoothing. Refine Mesh has its own; without it two or three "
                        "take the steps of the grid away, more shrink noses and ears.",
                    },
                ),
                "smallest_piece": (
                    "FLOAT",
                    {
                        "default": usual.min_component_share, "min": 0.0, "max": 1.0, "step": 0.01, "round": False,
                        "tooltip": "Pieces with a smaller share of the largest one's faces are dropped.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self, portrait: Portrait, preset: str, density: float, smoothing: int, smallest_piece: float
    ) -> dict[str, Any]:
        import dataclasses

        import torch

        from animportrait3d_core import previews
        from animportrait3d_core.portrait.mesh import render_colored_mesh
        from animportrait3d_core.portrait.protocol import MESH_PRESETS
        from animportrait3d_core.surface import SurfaceSettings

        surface = SurfaceSettings(level=density, smoothing_steps=smoothing, min_component_share=smallest_piece)
        settings = dataclasses.replace(MESH_PRESETS[preset], surface=surface)
        mesh = portrait.mesh(settings, host.ProgressBar())
        cameras = previews.preview_cameras(PREVIEW_SIZE)
        clay = previews.shaded_mesh(mesh.vertices, mesh.faces, cameras)
        image = torch.cat([clay, render_colored_mesh(mesh, cameras).images])
        text = f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"
        ui = {**host.preview_images(image, "mesh"), "text": [text]}
        return host.node_result(mesh, image, host.host_mesh(mesh), ui=ui)


NODE_CLASS_MAPPINGS = {
    "AP3D_LoadPortrait3D": LoadPortrait3D,
    "AP3D_TextToPortrait": TextToPortrait,
    "AP3D_ExtractMesh": ExtractMesh,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_LoadPortrait3D": "Load Portrait3D",
    "AP3D_TextToPortrait": "Text to Portrait",
    "AP3D_ExtractMesh": "Extract Mesh",
}

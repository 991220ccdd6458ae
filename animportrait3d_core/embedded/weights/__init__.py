"""Weights of the embedded world's networks, one folder per role, made by `animportrait3d train-network`.

`prior` is the diffusion prior, made by `animportrait3d embedded train-prior`; `styles` are LoRAs of it, made by
`animportrait3d embedded train-style`. Each folder has a README.md (model card): data, command, duration, metrics,
limits.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InvalidInput, MissingModelFile
from ...networks.roles import check_role
from ..styles import STYLES

ON_SURFACES = {"parts": "parts_on_surfaces"}
"""Roles with a second network, for pictures that come with the surface they show, as those of meshes do."""


def embedded_network_folder(role: str, on_surfaces: bool = False) -> Path:
    """Folder of the shipped network for `role` ("parts", "normals", "landmarks").

    on_surfaces: of two, the one that looks at the surface beside the picture (docs/networks.md says why there are two).
    Raises `MissingModelFile` when this copy of the pack has no weights for it.
    """
    check_role("embedded_network_folder", role)
    folder = Path(__file__).parent / (ON_SURFACES.get(role, role) if on_surfaces else role)
    if not (folder / "model.safetensors").is_file():
        raise MissingModelFile(
            f"embedded_network_folder: the embedded network for {role} is not in this copy of the pack: '{folder}' "
            "has no model.safetensors. Make it with 'scripts/train_networks.sh', or with 'animportrait3d "
            f"train-network {role} --dataset DIR --output OUT' and copy OUT/network into that folder; or choose a "
            "network of your own (docs/networks.md)."
        )
    return folder


def embedded_prior_folder() -> Path:
    """Folder of the shipped diffusion prior: a pipeline of diffusers, with its ControlNet in `controlnet`.

    Raises `MissingModelFile` when this copy of the pack has no weights for it.
    """
    folder = Path(__file__).parent / "prior"
    if not (folder / "model_index.json").is_file():
        raise MissingModelFile(
            f"embedded_prior_folder: the embedded diffusion prior is not in this copy of the pack: '{folder}' has no "
            "model_index.json. Make it with 'scripts/train_prior.sh' and copy its folder 'pipeline' there; or choose a "
            "checkpoint of your own (docs/diffusion.md)."
        )
    return folder


def embedded_style_file(style: str) -> Path:
    """The LoRA of the embedded prior for one of `STYLES`.

    Raises `InvalidInput` for another name, `MissingModelFile` when this copy of the pack has no weights for it.
    """
    if style not in STYLES:
        raise InvalidInput(f"embedded_style_file: style '{style}', expected one of {', '.join(STYLES)}.")
    file = Path(__file__).parent / "styles" / f"{style}.safetensors"
    if not file.is_file():
        raise MissingModelFile(
            f"embedded_style_file: the embedded style '{style}' is not in this copy of the pack: '{file}' does not "
            "exist. Make it with 'animportrait3d embedded train-style' and copy it there; or choose a LoRA of your own "
            "(docs/diffusion.md)."
        )
    return file

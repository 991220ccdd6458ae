"""Weights of the embedded world's networks, one folder per role, made by `animportrait3d train-network`.

`prior` is the diffusion prior, made by `animportrait3d embedded train-prior`. Each folder has a README.md (model
card): data, command, duration, metrics, limits.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import MissingModelFile
from ...networks.roles import check_role


def embedded_network_folder(role: str) -> Path:
    """Folder of the shipped network for `role` ("parts", "normals", "landmarks").

    Raises `MissingModelFile` when this copy of the pack has no weights for it.
    """
    check_role("embedded_network_folder", role)
    folder = Path(__file__).parent / role
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

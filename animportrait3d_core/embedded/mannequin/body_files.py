"""The mannequin as files: SMPLX_NEUTRAL.npz in SMPL-X's own layout, and the body assets beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import atomic_write, cache_directory, made_files
from ...fingerprints import source_fingerprint
from .model import Mannequin, build_mannequin

if TYPE_CHECKING:
    from ...body.assets import BodyAssets

MODEL_NAME = "SMPLX_NEUTRAL.npz"
ASSETS_NAME = "body_assets.safetensors"
_NO_PARENT = 2**32 - 1


def code_version() -> str:
    """Short hash of the source that makes the mannequin: the cache key of everything made from it."""
    return source_fingerprint("embedded.mannequin")


def smplx_arrays(mannequin: Mannequin) -> dict[str, np.ndarray]:
    """Arrays of an SMPL-X model file; hands are flat and there are no pose blend shapes."""
    kinematic_tree = np.stack([mannequin.parents, np.arange(len(mannequin.parents))]).astype(np.int64)
    kinematic_tree[0, 0] = _NO_PARENT
    static = slice(17, 68)
    jaw_line = slice(0, 17)
    turns = 79  # head angles of SMPL-X's moving jaw line; ours does not move
    directions = np.concatenate([mannequin.shape_directions, mannequin.expression_directions], axis=-1)
    return {
        "v_template": mannequin.vertices,
        "f": mannequin.faces.astype(np.uint32),
        "weights": mannequin.skinning_weights,
        "kintree_table": kinematic_tree,
        "J_regressor": mannequin.joint_regressor,
        "shapedirs": directions,
        "posedirs": np.zeros((len(mannequin.vertices), 3, 486), dtype=np.float32),
        "lmk_faces_idx": mannequin.landmark_faces[static],
        "lmk_bary_coords": mannequin.landmark_barycentric[static],
        "dynamic_lmk_faces_idx": np.tile(mannequin.landmark_faces[jaw_line], (turns, 1)),
        "dynamic_lmk_bary_coords": np.tile(mannequin.landmark_barycentric[jaw_line], (turns, 1, 1)),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
    }


def mannequin_assets(mannequin: Mannequin) -> BodyAssets:
    """The mannequin's `BodyAssets`: every vertex is kept, faces stay wound outward."""
    import torch

    from ...body.assets import BodyAssets

    return BodyAssets(
        vertex_ids=torch.arange(len(mannequin.vertices)),
        faces=torch.from_numpy(mannequin.faces.copy()),
        eyelid_offsets=torch.from_numpy(mannequin.eyelid_offsets.astype(np.float32)),
        landmark_faces=torch.from_numpy(mannequin.landmark_faces.copy()),
        landmark_barycentric=torch.from_numpy(mannequin.landmark_barycentric.astype(np.float32)),
        face_regions={name: torch.from_numpy(mask.copy()) for name, mask in mannequin.face_regions.items()},
        vertex_labels=torch.from_numpy(mannequin.vertex_labels.astype(np.float32)),
        winding_outward=True,
        name="mannequin",
        redistributable=True,
    )


def mannequin_body_files(cache_dir: str | Path | None = None) -> tuple[Path, Path]:
    """Paths of the mannequin's SMPLX_NEUTRAL.npz and body assets file; written on first use, then reused while whole.

    cache_dir: folder for the files; default `cache_directory()`. They lie in a subfolder named by the versions of the
    code that makes them and of the assets' format, so an older file is never mistaken for a current one.
    """
    from ...body.assets import SCHEMA_VERSION, save_body_assets

    folder = Path(cache_dir) if cache_dir is not None else cache_directory()
    folder = folder / "mannequin" / f"{code_version()}-{SCHEMA_VERSION}"

    def make() -> None:
        mannequin = build_mannequin()
        with atomic_write(folder / MODEL_NAME) as temporary, open(temporary, "wb") as stream:
            arrays: dict[str, Any] = smplx_arrays(mannequin)
            np.savez_compressed(stream, **arrays)
        save_body_assets(mannequin_assets(mannequin), folder / ASSETS_NAME)

    model_path, assets_path = made_files(folder, (MODEL_NAME, ASSETS_NAME), make)
    return model_path, assets_path

"""A small made-up body in SMPL-X's layout: random numbers where a body has meaning, so that nothing cancels by luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animportrait3d_core.body.assets import BodyAssets, save_body_assets
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.body.mouth_shapes import SACK_RINGS
from animportrait3d_core.body.shape_grids import grid_faces
from animportrait3d_core.embedded.mannequin import build_mannequin, smplx_arrays
from animportrait3d_core.regions import BODY_REGIONS

NUM_VERTICES, NUM_FACES = 10_475, 20_908  # of SMPL-X
ROWS, COLUMNS = 96, 104  # 9,984 vertices, just over what the smplx package needs
SMPLX_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
SMPLX_PARENTS += [20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38]
SMPLX_PARENTS += [21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53]


def make_body_arrays(shape_columns: int = 20, correctives: bool = True) -> dict[str, np.ndarray]:
    """Arrays of a body file: a tall ellipsoid with random directions, weights and joints."""
    rng = np.random.default_rng(7)
    polar, turn = np.meshgrid(np.linspace(0.02, np.pi - 0.02, ROWS), np.linspace(0, 2 * np.pi, COLUMNS), indexing="ij")
    points = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], -1).reshape(-1, 3)
    vertices = points * [0.09, 0.14, 0.1] + [0, 0.25, 0.02]
    corner = (np.arange(ROWS - 1)[:, None] * COLUMNS + np.arange(COLUMNS - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + COLUMNS, corner + 1], -1),
            np.stack([corner + 1, corner + COLUMNS, corner + COLUMNS + 1], -1),
        ]
    )
    count = len(vertices)
    weights = rng.random((count, 55)) ** 8
    regressor = rng.random((55, count)) ** 16
    correct = rng.normal(0, 1e-3, (count, 3, 486)).astype(np.float32)
    return {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *SMPLX_PARENTS[1:]], range(55)]),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "shapedirs": rng.normal(0, 3e-3, (count, 3, shape_columns)),
        "posedirs": correct if correctives else np.zeros_like(correct),
        "lmk_faces_idx": rng.integers(0, len(faces), 51),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
        "dynamic_lmk_faces_idx": np.zeros((79, 17), np.int64),
        "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "hands_meanl": rng.normal(0, 0.1, 45),
        "hands_meanr": rng.normal(0, 0.1, 45),
    }


def make_body_assets(arrays: dict[str, np.ndarray], arm_angle_degrees: float = 60.0, **changes) -> BodyAssets:
    """A crop of the upper part, shuffled, with random lids and landmarks."""
    generator = torch.Generator().manual_seed(3)
    vertices = torch.from_numpy(arrays["v_template"])
    kept = torch.nonzero(vertices[:, 1] > 0.15).squeeze(1)
    kept = kept[torch.randperm(len(kept), generator=generator)]
    position = torch.full((len(vertices),), -1)
    position[kept] = torch.arange(len(kept))
    faces = position[torch.from_numpy(arrays["f"].astype(np.int64))]
    faces = faces[(faces >= 0).all(1)]
    barycentric = torch.rand(70, 3, generator=generator) + 0.1
    fields = {
        "vertex_ids": kept,
        "faces": faces,
        "eyelid_offsets": 1e-3 * torch.randn(2, len(kept), 3, generator=generator),
        "landmark_faces": torch.randint(0, len(faces), (70,), generator=generator),
        "landmark_barycentric": barycentric / barycentric.sum(1, keepdim=True),
        "face_regions": {name: torch.rand(len(faces), generator=generator) < 0.1 for name in BODY_REGIONS},
        "vertex_labels": torch.rand(len(kept), generator=generator),
        "arm_angle_degrees": arm_angle_degrees,
    }
    return BodyAssets(**(fields | changes))


@pytest.fixture(scope="session")
def body_arrays():
    return make_body_arrays()


@pytest.fixture(scope="session")
def body_files(body_arrays, tmp_path_factory):
    """Paths of a body file and its assets."""
    folder = tmp_path_factory.mktemp("body")
    np.savez(folder / "SMPLX_NEUTRAL.npz", **body_arrays)
    save_body_assets(make_body_assets(body_arrays), folder / "assets.safetensors")
    return folder / "SMPLX_NEUTRAL.npz", folder / "assets.safetensors"


@pytest.fixture(scope="session")
def body(body_files):
    return load_body_model(*body_files)


@pytest.fixture(scope="session")
def make_arrays():
    return make_body_arrays


@pytest.fixture(scope="session")
def make_assets():
    return make_body_assets


@pytest.fixture(scope="session")
def mannequin_arrays():
    """The mannequin as a file of SMPL-X's layout; of its assets only the landmarks, which such a file holds."""
    return smplx_arrays(build_mannequin())


def without_vertices(arrays: dict[str, np.ndarray], dropped: np.ndarray) -> dict[str, np.ndarray]:
    """A body file that lacks the vertices `dropped` [V] bool and all faces at them."""
    kept = np.flatnonzero(~dropped)
    position = np.full(len(dropped), -1)
    position[kept] = np.arange(len(kept))
    faces = position[arrays["f"].astype(np.int64)]
    whole = (faces >= 0).all(axis=1)
    number = np.cumsum(whole) - 1
    cut = {name: arrays[name][kept] for name in ("v_template", "weights", "shapedirs", "posedirs")}
    cut |= {name: number[arrays[name]] for name in ("lmk_faces_idx", "dynamic_lmk_faces_idx")}
    return {**arrays, **cut, "f": faces[whole].astype(np.uint32), "J_regressor": arrays["J_regressor"][:, kept]}


def toothless_body(arrays: dict[str, np.ndarray], sack_rings: int = SACK_RINGS) -> dict[str, np.ndarray]:
    """The mannequin without teeth, gums and tongue, and with so many rings of the sack behind its lips."""
    mannequin = build_mannequin()
    dropped = np.zeros(len(mannequin.vertices), dtype=bool)
    for name in ("upper_teeth", "lower_teeth", "upper_gum", "lower_gum", "tongue"):
        dropped[mannequin.part_vertices[name]] = True
    sack = mannequin.part_vertices["mouth_bag"]
    dropped[sack.start + sack_rings * (sack.stop - sack.start) // SACK_RINGS : sack.stop] = True
    return without_vertices(arrays, dropped)


@pytest.fixture(scope="session")
def make_toothless():
    return toothless_body


def smplx_sized_body(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A made-up body with the sizes of SMPL-X 1.1: 10,475 vertices, 20,908 faces, 300 + 100 coefficients, correctives.

    The mannequin's head of other proportions, its mouth open behind a fold of the lips and empty, without ears; under
    the crop a tube that follows the hips, faces on both sides, makes up the numbers.
    """
    rng = np.random.default_rng(11)
    head = toothless_body(arrays, sack_rings=2)
    dropped = np.zeros(len(head["v_template"]), dtype=bool)
    ears = build_mannequin().part_vertices
    dropped[-sum(ears[name].stop - ears[name].start for name in ("left_ear", "right_ear")) :] = True
    head = without_vertices(head, dropped)
    count, around = len(head["v_template"]), 19
    rows = (NUM_VERTICES - count) // around
    turn, y = np.meshgrid(np.linspace(0, 2 * np.pi, around, endpoint=False), np.linspace(-0.3, -1.2, rows))
    tube = np.stack([0.1 * np.sin(turn), y, 0.1 * np.cos(turn)], axis=-1).reshape(-1, 3)
    sheet, _ = grid_faces(count + np.arange(len(tube)).reshape(rows, around), wrap=True)
    missing = NUM_FACES - len(head["f"]) - len(sheet)
    sizes = np.array([0.95, 0.93, 0.97])
    template = np.concatenate([head["v_template"], tube]) * sizes
    directions = 1e-5 * rng.standard_normal((NUM_VERTICES, 3, 400), dtype=np.float32)
    directions[:count, :, :10] = head["shapedirs"][..., :10] * sizes[:, None]
    directions[:count, :, 300:310] = head["shapedirs"][..., 10:] * sizes[:, None]
    return {
        **head,
        "v_template": template,
        "f": np.concatenate([head["f"], sheet, sheet[:missing, ::-1]]).astype(np.uint32),
        "weights": np.concatenate([head["weights"], np.eye(55)[rng.integers(1, 3, len(tube))]]),
        "shapedirs": directions,
        "posedirs": 1e-5 * rng.standard_normal((NUM_VERTICES, 3, 486), dtype=np.float32),
        "J_regressor": np.concatenate([head["J_regressor"], np.zeros((55, len(tube)))], axis=1),
    }


@pytest.fixture(scope="session")
def smplx_sized(mannequin_arrays):
    return smplx_sized_body(mannequin_arrays)


@pytest.fixture(scope="session")
def smplx_file(smplx_sized, tmp_path_factory):
    """It as SMPLX_NEUTRAL.npz with all the keys of version 1.1."""
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    others = {
        "ft": np.zeros((NUM_FACES, 3), np.uint32),
        "vt": np.zeros((11313, 2)),
        "hands_coeffsl": np.zeros((1554, 45)),
        "hands_coeffsr": np.zeros((1554, 45)),
        "joint2num": np.array({"Pelvis": 0, "Jaw": 22}, dtype=object),
        "part2num": np.array({"Global": 0}, dtype=object),
    }
    np.savez(path, **smplx_sized, **others)
    return path

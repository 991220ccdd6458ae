"""Small whole files of bodies, avatars, portraits, networks and landmarks."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pickle
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.avatar.io import save_avatar
from animportrait3d_core.body.assets import BodyAssets, assets_to_tensors, save_body_assets
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.export.ply import write_rigged_ply
from animportrait3d_core.portrait.trigrid import TrigridPortrait, save_generator, save_trigrid_portrait
from animportrait3d_core.regions import BODY_REGIONS
from animportrait3d_core.surface.color_field import new_color_field, save_color_field
from animportrait3d_core.surface.hash_grid_settings import HashGridSettings
from tests.avatar_samples import random_avatar
from tests.fuzz.format import Seed
from tests.portrait.trigrid_samples import checkpoint_of, ellipsoid_portrait, generator_of

VERTICES = 24
PARENTS = [-1, *range(54)]


def written(name: str, write: Callable[[Path], Any]) -> bytes:
    """The bytes of a file that `write` makes at a path of this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


@functools.cache
def body_arrays() -> dict[str, np.ndarray]:
    """A body file's arrays, with fewer vertices than a body has."""
    rng = np.random.default_rng(3)
    regressor = rng.random((55, VERTICES))
    return {
        "v_template": rng.normal(0, 1, (VERTICES, 3)),
        "f": rng.integers(0, VERTICES, (30, 3)).astype(np.uint32),
        "weights": np.eye(55)[rng.integers(0, 55, VERTICES)],
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(55)]),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "shapedirs": rng.normal(0, 1e-3, (VERTICES, 3, 20)),
        "posedirs": np.zeros((VERTICES, 3, 486), np.int8),
        "lmk_faces_idx": rng.integers(0, 30, 51),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
        "dynamic_lmk_faces_idx": np.zeros((3, 17), np.int64),
        "dynamic_lmk_bary_coords": np.full((3, 17, 3), 1 / 3),
        **{f"hands_{name}": np.zeros((6, 45)) for name in ("componentsl", "componentsr")},
        **{f"hands_{name}": np.zeros(45) for name in ("meanl", "meanr")},
    }


@contextmanager
def classes_of_others(*names: str) -> Iterator[list[type]]:
    """Empty classes that pickle under the names of packages that are not needed ('chumpy.ch.Ch')."""
    made, modules = [], {}
    for name in names:
        module, _, own = name.rpartition(".")
        kind = type(own, (), {"__module__": module})
        for part in (module.partition(".")[0], module):
            modules.setdefault(part, types.ModuleType(part))
        setattr(modules[module], own, kind)
        made.append(kind)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield made
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def npz_of(arrays: dict[str, Any], compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def body_npz_seeds() -> list[Seed]:
    arrays = body_arrays()
    held = np.empty((), dtype=object)
    held[()] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    named = np.array({"Pelvis": 0, "Head": 15}, dtype=object)
    return [
        Seed({"b.npz": npz_of(arrays)}),
        Seed({"b.npz": npz_of(arrays, compressed=True)}),
        Seed({"b.npz": npz_of(dict(arrays, J_regressor=held, joint2num=named))}),
    ]


def body_pickle_seeds() -> list[Seed]:
    arrays = body_arrays()
    with classes_of_others("chumpy.ch.Ch", "chumpy.reordering.Select") as (constant, select):
        template, weights = constant(), select()
        template.__dict__.update(x=arrays["v_template"], _dirty_vars=set(), _itr=None)
        order = np.random.default_rng(0).permutation(arrays["weights"].size)
        shuffled = constant()
        shuffled.__dict__.update(x=np.empty(len(order)))
        shuffled.x[order] = arrays["weights"].ravel()
        weights.__dict__.update(a=shuffled, idxs=order, preferred_shape=arrays["weights"].shape)
        odd = dict(arrays, v_template=template, weights=weights)
        odd["J_regressor"] = scipy.sparse.csr_matrix(arrays["J_regressor"])
        dumped = [pickle.dumps(odd, 2), pickle.dumps(odd, 4), pickle.dumps(arrays, 2), pickle.dumps(arrays, 5)]
    return [Seed({"b.pkl": data}) for data in dumped]


def body_zip_seeds() -> list[Seed]:
    seeds = []
    for name, content in (("SMPLX_NEUTRAL.npz", body_npz_seeds()[1]), ("SMPLX_NEUTRAL.pkl", body_pickle_seeds()[1])):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("models/smplx/version.txt"), "1.1")
            archive.writestr(zipfile.ZipInfo(f"models/smplx/{name}"), next(iter(content.files.values())), 8)
        seeds.append(Seed({"b.zip": stream.getvalue()}))
    return seeds


def body_assets(**changes: Any) -> BodyAssets:
    """Assets of a body of few vertices."""
    faces = torch.from_numpy(body_arrays()["f"].astype(np.int64))
    fields: dict[str, Any] = {
        "vertex_ids": torch.arange(VERTICES),
        "faces": faces,
        "eyelid_offsets": torch.zeros(2, VERTICES, 3),
        "landmark_faces": torch.arange(70) % len(faces),
        "landmark_barycentric": torch.full((70, 3), 1 / 3),
        "face_regions": {name: torch.arange(len(faces)) % 3 == 0 for name in BODY_REGIONS},
        "vertex_labels": torch.linspace(0, 1, VERTICES),
        "redistributable": True,
    }
    return BodyAssets(**(fields | changes))


@functools.cache
def body(redistributable: bool = True) -> BodyModel:
    """A posable body of few vertices."""
    arrays = {
        name: torch.from_numpy(body_arrays()[name]).float() for name in ("v_template", "J_regressor", "shapedirs")
    }
    shape = arrays["shapedirs"][..., :10].contiguous()
    joints = torch.einsum("jv,vcn->jcn", arrays["J_regressor"], shape)
    weights = torch.from_numpy(body_arrays()["weights"]).float()
    tensors = {
        "template": arrays["v_template"],
        "shape_directions": shape,
        "expression_directions": shape.clone(),
        "joint_template": arrays["J_regressor"] @ arrays["v_template"],
        "joint_shape_directions": joints,
        "joint_expression_directions": joints.clone(),
        "pose_directions": torch.zeros(45, 3 * VERTICES),
        "skinning_weights": weights,
        "skinning_joints": torch.arange(55),
        "parents": torch.tensor(PARENTS),
    }
    stored, metadata = assets_to_tensors(body_assets(redistributable=redistributable))
    return BodyModel.from_tensors(tensors | stored, metadata)


def avatar(sh_degree: int, redistributable: bool = True) -> RiggedAvatar:
    """Forty Gaussians."""
    model = body(redistributable)
    return random_avatar(model, model.neutral_parameters(), 40, sh_degree)


def avatar_seeds() -> list[Seed]:
    kinds = ((0, True), (3, True), (1, False))
    return [
        Seed({"a.safetensors": written("a.safetensors", functools.partial(save_avatar, avatar(*kind)))})
        for kind in kinds
    ]


def rigged_ply_seeds() -> list[Seed]:
    return [
        Seed({"a.ply": written("a.ply", lambda path: write_rigged_ply(avatar(degree), path, order))})  # noqa: B023
        for degree, order in ((0, "corrected"), (3, "legacy"))
    ]


def body_assets_seeds() -> list[Seed]:
    return [Seed({"a.safetensors": written("a.safetensors", lambda path: save_body_assets(body_assets(), path))})]


def color_field_seeds() -> list[Seed]:
    grid = HashGridSettings(log2_table_size=6)
    field = new_color_field(torch.zeros(3), torch.ones(3), torch.Generator().manual_seed(0), grid)
    return [Seed({"f.safetensors": written("f.safetensors", lambda path: save_color_field(field, path))})]


def landmark_seeds() -> list[Seed]:
    points = np.random.default_rng(0).normal(0, 1, (68, 3)).round(4).tolist()
    return [
        Seed({"l.json": json.dumps({"landmarks": points}).encode()}),
        Seed({"l.json": b"\xef\xbb\xbf" + json.dumps({"landmarks": points, "made by": "us"}, indent=1).encode()}),
    ]


@functools.cache
def portrait() -> TrigridPortrait:
    """A portrait of one or two coarse levels over a plain background."""
    whole = ellipsoid_portrait((8,))
    return dataclasses.replace(whole, background_features=torch.full((32, 1, 1), 0.25).expand(32, 128, 128))


def trigrid_seeds() -> list[Seed]:
    kinds = (torch.float16, torch.float32)
    return [
        Seed({"p.safetensors": written("p.safetensors", lambda path: save_trigrid_portrait(portrait(), path, kind))})  # noqa: B023
        for kind in kinds
    ]


@contextmanager
def numbered_storages() -> Iterator[None]:
    """Torch's older stream names and sorts storages by their addresses, other ones each time: here by number."""
    address = torch._C.StorageBase._cdata
    numbers: dict[int, int] = {}
    torch.UntypedStorage._cdata = property(lambda own: numbers.setdefault(address.__get__(own), 100 + len(numbers)))
    try:
        yield
    finally:
        del torch.UntypedStorage._cdata


def trigrid_checkpoint_seeds() -> list[Seed]:
    seeds = []
    for zipped in (True, False):
        stream = io.BytesIO()
        with numbered_storages():
            torch.save({"model": checkpoint_of(portrait())}, stream, _use_new_zipfile_serialization=zipped)
        seeds.append(Seed({"p.pth": stream.getvalue()}))
    return seeds


def generator_pickle() -> bytes:
    """A pickle of nested modules as Portrait3D's `model_512.pkl` has them, under names that no package has here."""
    names = ("torch_utils.persistence.Network", "dnnlib.util.EasyDict")
    with classes_of_others(*names) as (network, settings):

        def module(children: dict[str, Any], parameters: Any = (), **state: Any) -> Any:
            made = network()
            made.__dict__.update(_parameters=dict(parameters), _buffers={}, _modules=children, **state)
            return made

        tensors = generator_of(portrait()).tensors

        def layer(name: str, children: Any = ()) -> Any:
            return module(dict(children), {part: tensors[f"{name}.{part}"] for part in ("weight", "bias")})

        rendering = settings()
        rendering.__dict__.update(decoder_activation="none", triplane_depth=3, box_warp=0.7, image_resolution=8)
        net = module({index: layer(f"decoder.net.{index}") for index in ("0", "2")})
        to_rgb = layer("torgb", {"affine": layer("torgb.affine")})
        whole = module({"decoder": module({"net": net}), "torgb": to_rgb}, rendering_kwargs=rendering)
        with numbered_storages():
            return pickle.dumps({"G": module({}), "G_ema": whole})


def generator_seeds() -> list[Seed]:
    copy = written("g.safetensors", lambda path: save_generator(generator_of(portrait()), path))
    return [Seed({"g.pkl": generator_pickle()}), Seed({"g.safetensors": copy})]

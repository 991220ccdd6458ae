"""The authors' asset folder, made up in its layout: sizes of SMPL-X, FLAME and their teeth, places of the mannequin."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from animportrait3d_core.body import authors_assets as authors
from animportrait3d_core.body.asset_making import make_body_assets
from animportrait3d_core.body.assets import load_body_assets
from animportrait3d_core.body.authors_assets import authors_body_assets
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.cli import main
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile

BODY, TOOTH_ROW, FLAME, EYEBALL = 10_475, 1493, 5023, 362
FILES = (
    authors.CROP, authors.LANDMARKS, authors.FLAME_IDS, authors.FLAME_MASKS, *authors.LIDS, *authors.TEETH,
    authors.LABELS, authors.EYES, authors.SHOWN,
)  # fmt: skip


class CudaTensor:
    """Pickles as a tensor on cuda:0 does in a plain pickle: its storage as the bytes of a file of torch.save."""

    def __init__(self, tensor):
        self.tensor = tensor.contiguous()

    def __reduce__(self):
        arguments = (CudaStorage(self.tensor), 0, tuple(self.tensor.shape), self.tensor.stride(), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class CudaStorage:
    def __init__(self, tensor):
        stream = io.BytesIO()
        torch.save(tensor._typed_storage(), stream, _use_new_zipfile_serialization=False)
        data = stream.getvalue()
        assert data.count(b"X\x03\x00\x00\x00cpu") == 1
        self.data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


class Truth:
    """What the folder says, in the numbers of the whole mesh of 13,461 vertices."""

    def __init__(self, arrays):
        rng = np.random.default_rng(3)
        self.arrays, template = arrays, arrays["v_template"]
        self.made = make_body_assets(arrays)
        balls = [np.unique(self.made.faces[self.made.face_regions[f"{side}_eyeball"]]) for side in ("left", "right")]
        self.balls = [self.made.vertex_ids.numpy()[ids] for ids in balls]
        lips = self.made.mouth.lips.numpy()
        head = np.flatnonzero(
            (template[:, 1] > 0.1) & ~np.isin(np.arange(BODY), [*self.balls[0], *self.balls[1], *lips])
        )
        chosen = np.concatenate([lips, rng.permutation(head)[: FLAME - 2 * EYEBALL - len(lips)]])
        self.flame = np.concatenate([chosen, *self.balls])
        self.rings = {"lip_outside_ring_upper": np.arange(0, 15), "lip_outside_ring_lower": np.arange(40, 55)}
        self.teeth = [rng.normal(0, 1, (TOOTH_ROW, 3)) for _ in range(2)]
        dropped = rng.permutation(chosen[len(lips) :])[:62]
        places = self.made.faces[self.made.landmark_faces].numpy()
        dropped = np.setdiff1d(dropped, self.made.vertex_ids.numpy()[places])
        kept = np.setdiff1d(np.flatnonzero(template[:, 1] > -0.1), dropped)
        self.vertex_ids = np.concatenate([kept, BODY + np.arange(2 * TOOTH_ROW)])
        self.positions = np.full(BODY + 2 * TOOTH_ROW, -1)
        self.positions[self.vertex_ids] = np.arange(len(self.vertex_ids))
        tooth = BODY + np.arange(2 * TOOTH_ROW - 2)
        self.all_faces = np.concatenate([arrays["f"].astype(np.int64), np.stack([tooth, tooth + 1, tooth + 2], axis=1)])
        whole = (self.positions[self.all_faces] >= 0).all(axis=1)
        self.faces = self.positions[self.all_faces[whole]][:, [0, 2, 1]]
        self.mapping = np.where(whole, np.cumsum(whole) - 1, -1)
        self.regions = {
            key: np.flatnonzero(rng.random(len(self.faces)) < 0.1) for key in authors.REGIONS_OF_CROP.values()
        }
        self.lids = rng.normal(0, 1e-3, (2, FLAME, 3))
        self.colors = rng.choice([0, 85, 125, 255], FLAME + 2 * TOOTH_ROW).astype(np.float32)
        self.shown = rng.permutation(FLAME)[:1883]
        self.landmark_faces = rng.permutation(np.flatnonzero(whole[: len(arrays["f"])]))[:70]
        self.landmark_weights = rng.dirichlet([1, 1, 1], 70)

    def write(self, folder):
        def tensor(values):
            return CudaTensor(torch.from_numpy(np.asarray(values)))

        crop = {
            "valid_vert_id": tensor(self.vertex_ids),
            "valid_face": torch.from_numpy(self.faces),
            "mapping_verts_from_original_to_masked": tensor(self.positions),
            "mapping_faces_from_original_to_masked": tensor(self.mapping),
        }
        crop |= {key: tensor(ids) for key, ids in self.regions.items()}
        (folder / authors.CROP).write_bytes(pickle.dumps(crop))
        masks = {key: torch.from_numpy(ids) for key, ids in self.rings.items()}
        (folder / authors.FLAME_MASKS).write_bytes(pickle.dumps(masks))
        landmarks = {
            "full_lmk_faces_idx": tensor(self.landmark_faces[None]),
            "full_lmk_bary_coords": tensor(self.landmark_weights[None].astype(np.float32)),
        }
        np.save(folder / authors.LANDMARKS, np.array(landmarks, dtype=object), allow_pickle=True)
        np.save(folder / authors.FLAME_IDS, self.flame)
        for name, values in zip(authors.LIDS, self.lids):
            np.save(folder / name, values)
        np.save(folder / authors.LABELS, np.repeat(self.colors[None, :, None], 3, axis=2))
        np.save(folder / authors.SHOWN, self.shown)
        eyes = {"left_eye": range(FLAME - 2 * EYEBALL, FLAME - EYEBALL), "right_eye": range(FLAME - EYEBALL, FLAME)}
        (folder / authors.EYES).write_text(json.dumps({name: list(ids) for name, ids in eyes.items()} | {"teeth": []}))
        for name, points in zip(authors.TEETH, self.teeth):
            lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in points.tolist()]
            (folder / name).write_text("\n".join([*lines, "f 1 2 3 4"]) + "\n")
        return folder


@pytest.fixture(scope="module")
def truth(smplx_sized):
    return Truth(smplx_sized)


@pytest.fixture(scope="module")
def folder(truth, tmp_path_factory):
    return truth.write(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def assets(folder, smplx_sized):
    return authors_body_assets(smplx_sized, folder)


def test_crop_and_faces_keep_their_numbers_and_their_winding(assets, truth):
    assert np.array_equal(assets.vertex_ids.numpy(), truth.vertex_ids)
    assert np.array_equal(assets.faces.numpy(), truth.faces)
    assert not assets.winding_outward and not assets.redistributable and assets.arm_angle_degrees == 60.0
    assert assets.teeth_origin == "authors" and assets.mouth.file_vertices == BODY


def test_regions_are_those_of_the_lists(assets, truth):
    for region, key in authors.REGIONS_OF_CROP.items():
        assert np.array_equal(np.flatnonzero(assets.face_regions[region].numpy()), truth.regions[key]), region
    for region, ball in zip(("left_eyeball", "right_eyeball"), truth.balls):
        of_ball = np.isin(truth.vertex_ids[truth.faces], ball).all(axis=1)
        assert of_ball.sum() > 500 and np.array_equal(assets.face_regions[region].numpy(), of_ball), region
    shown = np.isin(truth.vertex_ids[truth.faces], truth.flame[truth.shown]).all(axis=1)
    assert np.array_equal(assets.face_regions["condition_face"].numpy(), shown)


def test_lids_and_labels_lie_at_the_vertices_of_flames_order(assets, truth):
    place = {int(vertex): k for k, vertex in enumerate(truth.vertex_ids)}
    for k in range(0, FLAME, 7):
        vertex = place.get(int(truth.flame[k]))
        if vertex is not None:
            np.testing.assert_allclose(assets.eyelid_offsets[:, vertex].numpy(), truth.lids[:, k], atol=1e-9)
            assert float(assets.vertex_labels[vertex]) == pytest.approx(truth.colors[k] / 255)
    no_flame = ~np.isin(truth.vertex_ids, truth.flame)
    assert not assets.eyelid_offsets.numpy()[:, no_flame].any()
    np.testing.assert_allclose(assets.vertex_labels.numpy()[-2 * TOOTH_ROW :], truth.colors[FLAME:] / 255, rtol=1e-6)


def test_landmarks_are_the_places_of_the_whole_mesh_with_the_eyes_the_other_way_round(assets, truth, smplx_sized):
    template = smplx_sized["v_template"]
    wanted = (template[truth.all_faces[truth.landmark_faces]] * truth.landmark_weights[..., None]).sum(axis=1)
    wanted[[68, 69]] = wanted[[69, 68]]
    corners = template[truth.vertex_ids[assets.faces[assets.landmark_faces].numpy()]]
    found = (corners * assets.landmark_barycentric.numpy()[..., None]).sum(axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_teeth_are_placed_by_the_numbers_of_the_rendering_stage(assets, truth, smplx_sized):
    """Written out as in the authors' code, coordinate by coordinate."""
    upper, lower = (smplx_sized["v_template"][truth.flame[ids]] for ids in truth.rings.values())
    width = max(lower[:, 0].max() - upper[:, 0].min(), lower[:, 0].max() - lower[:, 0].min())
    scale = 1.2 * width / np.linalg.norm(truth.teeth[0][97] - truth.teeth[0][0])
    first = truth.teeth[0] * scale
    first = first - first[1188] + upper.mean(axis=0)
    first[:, 2] -= 0.38 * width
    first[:, 1] += 0.45 * width
    second = truth.teeth[1] * scale
    second = second - second[1490] + lower.mean(axis=0)
    second[:, 2] -= 0.35 * width
    second[:, 1] -= 0.45 * width
    np.testing.assert_allclose(assets.mouth.vertices.numpy(), np.concatenate([first, second]), atol=1e-6)
    assert assets.mouth.jaw.tolist() == [0.0] * TOOTH_ROW + [1.0] * TOOTH_ROW


def test_the_command_makes_them_and_the_body_poses(folder, smplx_file, tmp_path, assets, capsys):
    output = tmp_path / "assets.safetensors"
    command = ["convert", "body-assets", str(smplx_file), "--authors-assets", str(folder), "--output", str(output)]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["teeth"] == "authors" and report["vertices"] == len(assets.vertex_ids)
    assert torch.equal(load_body_assets(output).eyelid_offsets, assets.eyelid_offsets)
    body = load_body_model(smplx_file, output)
    posed = body(body.neutral_parameters()).vertices[0]
    torch.testing.assert_close(posed[-2 * TOOTH_ROW :], assets.mouth.vertices, atol=1e-6, rtol=0)


@pytest.fixture
def links(folder, tmp_path):
    """A folder of links, to take files away from or to replace them."""
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(links, smplx_sized, name):
    (links / name).unlink()
    with pytest.raises(MissingModelFile, match=rf"authors_assets: .*{name}' does not exist.*smplx_model/assets"):
        authors_body_assets(smplx_sized, links)


def test_files_of_other_sizes_are_named(links, smplx_sized, truth):
    (links / authors.LIDS[1]).unlink()
    np.save(links / authors.LIDS[1], np.zeros((5000, 3)))
    with pytest.raises(IncompatibleCheckpoint, match=r"r_eyelid.npy' has shape \[5000, 3\], expected \[5023, 3\]"):
        authors_body_assets(smplx_sized, links)
    turned = smplx_sized | {"f": smplx_sized["f"][::-1]}
    with pytest.raises(IncompatibleCheckpoint, match="not those of the body file"):
        authors_body_assets(turned, links)
    with pytest.raises(IncompatibleCheckpoint, match=r"maps 2\d+ faces, but the body has 41816"):
        authors_body_assets(smplx_sized | {"f": np.tile(smplx_sized["f"], (2, 1))}, links)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", [authors.CROP, authors.FLAME_MASKS, authors.LANDMARKS])
def test_code_in_them_does_not_run(links, smplx_sized, name):
    marker = links / "ran"
    (links / name).unlink()
    if name == authors.LANDMARKS:
        np.save(links / name, np.array({"full_lmk_faces_idx": Evil(marker)}, dtype=object), allow_pickle=True)
    else:
        (links / name).write_bytes(pickle.dumps({"valid_vert_id": Evil(marker)}))
    with pytest.raises(IncompatibleCheckpoint, match=rf"{name}.*system"):
        authors_body_assets(smplx_sized, links)
    assert not marker.exists()


def test_a_damaged_file_is_named(links, smplx_sized):
    (links / authors.LABELS).unlink()
    (links / authors.LABELS).write_bytes(b"\x93NUMPY\x01\x00 nothing")
    with pytest.raises(InvalidInput, match="verts_seg.npy"):
        authors_body_assets(smplx_sized, links)

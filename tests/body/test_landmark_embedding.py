"""The authors' embedding of landmarks, whose eyes stand the other way round."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.body.assets import load_body_assets, save_body_assets
from animportrait3d_core.body.landmark_embedding import from_upstream_embedding
from animportrait3d_core.body.model import BodyModel, load_body_model
from animportrait3d_core.embedded.mannequin import mannequin_body_files
from animportrait3d_core.errors import ShapeMismatch
from animportrait3d_core.landmarks import LEFT_EYE, LEFT_PUPIL, RIGHT_EYE, RIGHT_PUPIL


def upstream_arrays(body: BodyModel) -> dict[str, torch.Tensor]:
    """The mannequin's landmarks as the authors' file holds those of SMPL-X: [1, 70], the x < 0 eye at 68."""
    order = [*range(68), 69, 68]
    return {
        "faces": body.assets.landmark_faces[None, order],
        "barycentric": body.assets.landmark_barycentric[None, order].double(),
    }


def test_the_left_eye_comes_first(mannequin_body) -> None:
    arrays = upstream_arrays(mannequin_body)
    vertices = mannequin_body(mannequin_body.neutral_parameters()).vertices[0]
    corners = vertices[mannequin_body.faces[arrays["faces"][0, 68]]]
    assert float((corners * arrays["barycentric"][0, 68, :, None]).sum(0)[0]) < 0  # as in the authors' file
    faces, barycentric = from_upstream_embedding(**arrays)
    assert faces.dtype == torch.int64 and barycentric.dtype == torch.float32
    assets = dataclasses.replace(mannequin_body.assets, landmark_faces=faces, landmark_barycentric=barycentric)
    landmarks = BodyModel(mannequin_body._tensors, assets)(mannequin_body.neutral_parameters()).landmarks[0]
    assert float(landmarks[LEFT_PUPIL, 0]) > 0.02 and float(landmarks[RIGHT_PUPIL, 0]) < -0.02
    for pupil, lids in ((LEFT_PUPIL, LEFT_EYE), (RIGHT_PUPIL, RIGHT_EYE)):
        assert float((landmarks[pupil] - landmarks[lids].mean(0)).norm()) < 0.012
    torch.testing.assert_close(landmarks, mannequin_body(mannequin_body.neutral_parameters()).landmarks[0])


def test_files_with_the_other_order_are_turned_and_that_is_told(mannequin_body, tmp_path, caplog) -> None:
    body_file, assets_file = mannequin_body_files()
    right = load_body_assets(assets_file)
    faces, weights = (value[[*range(68), 69, 68]] for value in (right.landmark_faces, right.landmark_barycentric))
    turned = tmp_path / "assets.safetensors"
    save_body_assets(dataclasses.replace(right, landmark_faces=faces, landmark_barycentric=weights), turned)
    for file, told in ((assets_file, 0), (turned, 1)):
        body = load_body_model(body_file, file)
        torch.testing.assert_close(
            body(body.neutral_parameters()).landmarks, mannequin_body(mannequin_body.neutral_parameters()).landmarks
        )
        assert caplog.text.count("eye landmarks of 'mannequin' stand the other way round") == told


def test_other_embeddings_are_refused(mannequin_body) -> None:
    arrays = upstream_arrays(mannequin_body)
    with pytest.raises(ShapeMismatch, match=r"full_lmk_faces_idx` has shape \[1, 68\], expected \[1, 70\]"):
        from_upstream_embedding(arrays["faces"][:, :68], arrays["barycentric"])

"""Condition maps: the data sets and the method draw the same of the same body, whoever poses it and however many."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from animportrait3d_core.body.parameters import stack_parameters
from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.conditioning import (
    CROP_REGIONS,
    ConditionAssets,
    condition_assets,
    condition_map,
    crop_cameras,
    posed_condition_map,
)
from animportrait3d_core.conditioning.maps import inside_condition, pack_torch
from animportrait3d_core.embedded.identities import (
    IdentityRenderSettings,
    pose_identity,
    prepare_identity,
    render_posed,
    sample_identity,
    true_parameters,
)
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.meshes import vertex_normals
from animportrait3d_core.render import rasterize_mesh

SIZE = 96
STATES = (
    {"jaw_pose": [0.25, 0.0, 0.0], "left_eye_pose": [0.1, 0.2, 0.0], "eyelids": [0.2, 0.4]},
    {"head_pose": [0.1, 0.3, 0.05], "expression": [0.5, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4]},
)


@pytest.fixture(scope="module")
def prepared():
    """Somebody of mean detail: a real identity without the shape that lies outside the fitted basis."""
    person = sample_identity(5)
    person = dataclasses.replace(person, displacement=np.zeros_like(person.displacement))
    return prepare_identity(person, 128, sky_directions=1)


@pytest.fixture(scope="module")
def parameters(prepared):
    portrait = true_parameters(prepared.identity)
    states = [portrait.replace(**{name: torch.tensor([row]) for name, row in state.items()}) for state in STATES]
    return [portrait, *states]


def views_of(landmarks) -> list[Cameras]:
    orbit = orbit_cameras([0, 25, -60], [0, 10, -5], 896)
    return [crop_cameras(region, orbit, landmarks, SIZE) for region in CROP_REGIONS.values()]


def test_data_set_and_method_draw_the_same_map_of_the_same_body(mannequin_body, prepared, parameters):
    """Two ways of posing, smplx in float32 and the identities' own in float64, differ by some 1e-7 world units: by less
    than 2e-4 in a map's values, and a sample at an edge may fall on its other side, which moves its pixel alone."""
    assets = condition_assets(mannequin_body.assets)
    labelled, pixels, moved = 0, 0, 0
    for state in parameters:
        posed, figure = mannequin_body(state), pose_identity(prepared, state)
        for cameras in views_of(posed.landmarks[0]):
            of_method = posed_condition_map(assets, posed, cameras)
            for view in range(len(cameras)):
                settings = IdentityRenderSettings(texture_size=128)
                of_data_set = render_posed(figure, cameras[view], settings).condition
                far = (of_method[view] - of_data_set[0]).abs().amax(-1) > 2e-4
                pixels, moved = pixels + far.numel(), moved + int(far.sum())
                labelled += int((of_data_set[..., 3] > 0).sum())
    assert labelled > 4000
    assert moved <= 1e-4 * pixels


def test_a_body_wound_inward_has_the_same_map(mannequin_body, parameters):
    """Normals point outward whatever order the assets store, and nothing else depends on it."""
    assets = mannequin_body.assets
    inward = dataclasses.replace(assets, faces=assets.faces[:, [0, 2, 1]].contiguous(), winding_outward=False)
    posed = mannequin_body(parameters[1])
    for cameras in views_of(posed.landmarks[0])[:3]:
        outward = posed_condition_map(condition_assets(assets), posed, cameras)
        front = outward[0][outward[0, ..., 0] < 1]
        assert len(front) > 200 and float(front[:, 2].mean()) > 0.8
        assert torch.equal(outward, posed_condition_map(condition_assets(inward), posed, cameras))


def test_a_batch_of_cameras_equals_single_ones(mannequin_body, parameters):
    assets = condition_assets(mannequin_body.assets)
    states = stack_parameters(parameters)
    posed = mannequin_body(states)
    orbit = orbit_cameras([0, 25, -40], [0, 10, -5], 896)
    cameras = crop_cameras(CROP_REGIONS["both eyes"], orbit, posed.landmarks, SIZE)
    together = posed_condition_map(assets, posed, cameras)
    one_body = posed_condition_map(assets, mannequin_body(parameters[1]), cameras)
    assert together.shape == (3, SIZE, SIZE, 4) and together.dtype == torch.float32
    for view in range(3):
        vertices = posed.vertices[view].double()
        normals = vertex_normals(vertices, assets.faces)
        assert torch.equal(condition_map(assets, vertices, normals, cameras[view])[0], together[view])
        alone = posed_condition_map(assets, mannequin_body(parameters[1]), cameras[view])
        assert torch.equal(alone[0], one_body[view])


@pytest.mark.parametrize("grain", [1, 2, 3])
def test_the_compiled_half_equals_plain_torch(mannequin_body, parameters, grain):
    assets = condition_assets(mannequin_body.assets)
    posed = mannequin_body(parameters[2])
    cameras = crop_cameras(CROP_REGIONS["face"], orbit_cameras([0, -50], [0, 15], 896), posed.landmarks[0], SIZE)
    fine = cameras.resized(SIZE * grain, SIZE * grain)
    whole, shown = (rasterize_mesh(posed.vertices[0], faces, fine) for faces in (assets.faces, assets.shown))
    normals = vertex_normals(posed.vertices[0].double(), assets.faces)
    plain = pack_torch(assets, shown, whole, normals, cameras)
    compiled = condition_map(assets, posed.vertices[0], normals, cameras, grain, whole)
    assert float((plain - compiled).abs().max()) < 1e-6
    assert float((plain - 1).abs().amax(-1).max()) > 0.9


def test_faces_take_the_label_of_what_they_show(mannequin_body):
    """The ring around the iris is sclera; labels are whole 255ths, as pictures carry them."""
    assets = mannequin_body.assets
    labels, regions = condition_assets(assets).labels, assets.face_regions
    eyeballs = regions["left_eyeball"] | regions["right_eyeball"]
    expected = torch.zeros(len(labels), dtype=torch.float64)
    expected[eyeballs], expected[regions["teeth"]] = 1.0, 125 / 255
    expected[regions["iris"]] = 85 / 255
    assert torch.equal(labels, expected)
    ring = eyeballs & ~regions["iris"] & (assets.vertex_labels[assets.faces] < 0.5).any(1)
    assert int(ring.sum()) > 20


def test_channels_of_a_known_triangle():
    """Closed form: a square of one shown face and one of the iris, with a tilted normal, seen from aside and above."""
    square = 0.5 * torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    assets = ConditionAssets(faces, faces[:1], torch.tensor([0.0, 85 / 255], dtype=torch.float64), 4)
    normal = torch.tensor([0.6, 0.0, 0.8])
    camera = orbit_cameras([30], [40], 32, target=(0.0, 0.0, 0.0))
    result = condition_map(assets, square, normal.expand(4, 3), camera)[0]
    yaw, elevation = math.radians(30), math.radians(40)
    right = torch.tensor([math.cos(yaw), 0.0, -math.sin(yaw)])
    level = math.cos(elevation)
    towards = torch.tensor([math.sin(yaw) * level, math.sin(elevation), math.cos(yaw) * level])
    axes = torch.stack([right, torch.linalg.cross(towards, right), towards])
    assert torch.allclose(result[18, 18, :3], 0.5 * axes @ normal + 0.5, atol=1e-6)
    assert result[18, 18, 3] == 0
    assert torch.allclose(result[13, 13], torch.tensor([1.0, 1.0, 1.0, 85 / 255]), atol=1e-6)
    assert result[0, 0].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_wrong_inputs_are_named(mannequin_body, parameters):
    assets = condition_assets(mannequin_body.assets)
    posed = mannequin_body(parameters[0])
    vertices, camera = posed.vertices[0], orbit_cameras([0], [0], 16)
    with pytest.raises(ShapeMismatch, match="condition_map: `vertices` has shape \\[5, 3\\]"):
        condition_map(assets, vertices[:5], vertices[:5], camera)
    with pytest.raises(ShapeMismatch, match="`normals` has shape \\[5, 3\\]"):
        condition_map(assets, vertices, vertices[:5], camera)
    with pytest.raises(InvalidInput, match="0 samples per pixel"):
        condition_map(assets, vertices, vertices, camera, grain=0)


def test_what_the_condition_encloses_is_inside() -> None:
    """A ring of normals around a white mouth, teeth in it by their label alone, an open bay, and white beyond."""
    condition = torch.ones(9, 9, 4)
    condition[..., 3] = 0
    condition[1:8, 1:8, :3] = 0.5
    condition[3:6, 3:6, :3] = 1
    condition[4, 4, 3] = 1
    condition[2, 0:3, :3] = 1
    wanted = torch.zeros(9, 9, dtype=torch.bool)
    wanted[1:8, 1:8] = True
    wanted[2, 1:3] = False
    assert torch.equal(inside_condition(condition), wanted)

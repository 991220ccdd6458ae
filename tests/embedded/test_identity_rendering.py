"""Ground-truth renders: no holes, maps that agree with each other, landmarks on the right parts, files that load."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.conditioning import condition_map
from animportrait3d_core.embedded.identities import (
    PORTRAIT_NAMES,
    IdentityRenderSettings,
    embedded_portrait_files,
    export_identities,
    exported_identity,
    identity_mesh,
    prepare_identity,
    render_identity,
    sample_identity,
    true_parameters,
)
from animportrait3d_core.embedded.identities.rendering import bust_condition_assets, pose_figure
from animportrait3d_core.embedded.mannequin import build_mannequin
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.mesh_files import load_mesh
from animportrait3d_core.meshes import sample_texture, vertex_normals
from animportrait3d_core.parts import FIGURE_PARTS
from animportrait3d_core.render import rasterize_mesh

SMALL = IdentityRenderSettings(texture_size=256)
HEAD = {"target": (0.0, 0.34, 0.0), "fov_degrees": 24.0}


@pytest.fixture(scope="module")
def prepared():
    return prepare_identity(sample_identity(5, sex="man", hair_style="short hair", beard="none"), 256)


def states(prepared, count: int):
    """Random expressions, jaws, lids, gazes and head turns."""
    generator = torch.Generator().manual_seed(1)

    def some(size: int, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, size, generator=generator)

    jaw = torch.cat([some(1, 0.0, 0.32), some(2, -0.03, 0.03)], dim=1)
    gaze = some(3, -0.25, 0.25)
    rest = true_parameters(prepared.identity).expand(count)
    return rest.replace(
        expression=some(10, -0.7, 0.7), jaw_pose=jaw, left_eye_pose=gaze, right_eye_pose=gaze, eyelids=some(2, 0, 1),
        neck_pose=some(3, -0.25, 0.25), head_pose=some(3, -0.2, 0.2),
    )  # fmt: skip


def test_no_background_shows_through_the_figure(prepared):
    count = 10
    yaw = torch.linspace(-180, 144, count)
    cameras = orbit_cameras(yaw, 15 * torch.sin(yaw / 37), 128, **HEAD)
    view = render_identity(prepared, states(prepared, count), cameras, SMALL)
    for alpha, rgb in zip(view.alpha.numpy(), view.rgb.numpy()):
        solid = alpha > 0.99
        holes = ndimage.binary_fill_holes(solid) & ~solid
        labels, number = ndimage.label(holes)
        # A gap between two locks or under an ear lobe is a few pixels wide; a crack in the skin is a thin line.
        sizes = ndimage.sum(holes, labels, range(1, number + 1)) if number else []
        assert not any(size > 12 for size in sizes), sizes
        assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1


def test_skin_of_the_bare_head_has_no_cracks(prepared):
    """No pixel of the background is enclosed by the bare head, at a resolution where a crack of 1 mm would show."""
    body = build_mannequin()
    parameters = states(prepared, 8)
    cameras = orbit_cameras([-120, -80, -40, 0, 40, 80, 120, 170], [0, 10, 0, -10, 20, 10, 0, 5], 384, **HEAD)
    for view in range(8):
        vertices = pose_figure(prepared.figure, parameters, view)[: prepared.figure.num_body]
        image = rasterize_mesh(torch.from_numpy(vertices).float(), torch.from_numpy(body.faces), cameras[view])
        hit = image.face_id[0].numpy() >= 0
        assert hit.sum() > 10_000
        assert (ndimage.binary_fill_holes(hit) == hit).all()


def test_alpha_is_the_silhouette(prepared):
    camera = orbit_cameras([20], [0], 96, **HEAD)
    view = render_identity(prepared, None, camera, SMALL)
    vertices = torch.from_numpy(pose_figure(prepared.figure, true_parameters(prepared.identity))).float()
    image = rasterize_mesh(vertices, torch.from_numpy(prepared.figure.faces), camera.resized(192, 192))
    silhouette = (image.face_id[0] >= 0).float().reshape(96, 2, 96, 2).mean(dim=(1, 3))
    torch.testing.assert_close(view.alpha[0], silhouette, atol=1e-6, rtol=0)
    background = view.alpha[0] == 0
    assert (view.rgb[0][background] == 1).all() and (view.normals[0][background] == 0).all()
    assert (view.parts[0][background] == 0).all() and (view.depth[0][background] == 0).all()


def test_background_is_composited_by_alpha(prepared):
    camera = orbit_cameras([0], [0], 64, **HEAD)
    images = []
    for color in ((0.0, 0.0, 0.0), (0.2, 0.7, 1.0)):
        view = render_identity(prepared, None, camera, IdentityRenderSettings(texture_size=256, background=color))
        images.append(view.rgb[0] - (1 - view.alpha[0])[..., None] * torch.tensor(color))
    torch.testing.assert_close(images[0], images[1], atol=1e-5, rtol=0)
    # Over black no pixel is brighter than its coverage.
    assert (images[0].amax(dim=-1) <= view.alpha[0] + 1e-5).all()


def test_normals_face_the_camera_and_turn_with_it(prepared):
    view = render_identity(prepared, None, orbit_cameras([0, 90], [0, 0], 96, **HEAD), SMALL)
    inside = torch.from_numpy(ndimage.binary_erosion(view.alpha.numpy() > 0.99, structure=np.ones((1, 3, 3))))
    normals = view.normals[inside]
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)), atol=1e-4, rtol=0)
    assert (normals[:, 2] > -0.2).float().mean() > 0.98
    tip = view.landmarks[0, 33].round().long()
    assert view.normals[0, tip[1] - 2, tip[0], 2] > 0.5, "the tip of the nose faces the front camera"


def test_landmarks_lie_on_their_parts(prepared):
    cameras = orbit_cameras([0], [0], 256, target=(0.0, 0.36, 0.0), fov_degrees=14.0)
    settings = IdentityRenderSettings(texture_size=256, condition=False)
    wide = true_parameters(prepared.identity).replace(jaw_pose=torch.tensor([[math.radians(14), 0.0, 0.0]]))
    view = render_identity(prepared, wide, cameras, settings)
    parts = view.parts[0].numpy()

    def part_near(landmark: int, reach: int = 4) -> set[str]:
        x, y = (int(v) for v in view.landmarks[0, landmark])
        window = parts[y - reach : y + reach + 1, x - reach : x + reach + 1]
        return {FIGURE_PARTS[k] for k in np.unique(window)}

    for pupil in (68, 69):
        x, y = (int(v) for v in view.landmarks[0, pupil])
        assert FIGURE_PARTS[parts[y, x]] == "eyes"
    for corner in range(36, 48):
        assert part_near(corner) & {"eyes", "lashes"}, corner
    for lip in (48, 51, 54, 57, 62, 66):
        assert part_near(lip) & {"lips", "mouth_interior", "teeth"}, lip
    for nose in (28, 30, 33):
        assert part_near(nose, 1) == {"skin"}, nose


def test_every_part_appears(prepared):
    cameras = orbit_cameras([25, 100], [0, 0], 192, target=(0.0, 0.36, 0.0), fov_degrees=20.0)
    wide = true_parameters(prepared.identity).replace(jaw_pose=torch.tensor([[math.radians(16), 0.0, 0.0]]))
    view = render_identity(prepared, wide, cameras, IdentityRenderSettings(texture_size=256, condition=False))
    # Nobody wears anything without a trait that says so.
    assert {FIGURE_PARTS[k] for k in view.parts.unique().tolist()} == set(FIGURE_PARTS) - {"worn"}


def test_condition_map_is_that_of_design_section_3(prepared):
    camera = orbit_cameras([10], [0], 256, target=(0.0, 0.36, 0.0), fov_degrees=14.0)
    wide = true_parameters(prepared.identity).replace(jaw_pose=torch.tensor([[math.radians(14), 0.0, 0.0]]))
    view = render_identity(prepared, wide, camera, IdentityRenderSettings(texture_size=256, supersampling=1))
    condition = view.condition[0]
    assert condition.shape == (256, 256, 4) and condition.min() >= 0 and condition.max() <= 1
    values = condition[..., 3].unique()
    allowed = torch.tensor([0.0, 85 / 255, 125 / 255, 1.0])
    assert (values[:, None] - allowed).abs().min(dim=1).values.max() < 1e-5 and len(values) == 4
    labelled = condition[..., 3] > 0
    assert (condition[labelled][:, :3] == 1).float().mean() > 0.9, "openings of eyes and mouth stay background"
    corner = condition[0, 0]
    assert corner.tolist() == [1.0, 1.0, 1.0, 0.0]
    coded = condition[..., :3][(condition[..., :3] < 1).all(dim=-1)]
    lengths = (2 * coded - 1).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-3, rtol=0)
    # hair and clothes are not in it: a bald twin has the same map
    body = build_mannequin()
    vertices = pose_figure(prepared.figure, wide)[: prepared.figure.num_body]
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(body.faces))
    bare = condition_map(bust_condition_assets(), torch.from_numpy(vertices), normals, camera, 1)[0]
    assert (bare - condition).abs().max() < 0.02


def test_closed_lids_hide_the_labels_of_the_eyes(prepared):
    camera = orbit_cameras([0], [0], 192, target=(0.0, 0.42, 0.0), fov_degrees=8.0)
    for lids, most in ((0.0, None), (1.0, 2)):
        state = true_parameters(prepared.identity).replace(eyelids=torch.full((1, 2), lids))
        label = render_identity(prepared, state, camera, SMALL).condition[0, ..., 3]
        count = int((label > 0.3).sum())
        assert count > 400 if most is None else count <= most


def test_lights_are_fixed_to_the_world():
    """The same patch of forehead keeps its colour while the camera walks round: the light does not walk with it."""
    person = sample_identity(7, hair_style="bald", sex="woman", skin_tone="fair", freckles=False)
    prepared = prepare_identity(person, 512)
    cameras = orbit_cameras([-50, -25, 0, 25, 50], [0] * 5, 256, target=(0.0, 0.40, 0.0), fov_degrees=14.0)
    view = render_identity(prepared, None, cameras, IdentityRenderSettings(texture_size=512, condition=False))
    point = view.landmarks_3d[0, 27] + torch.tensor([0.0, 0.09, -0.01])
    pixels = project(cameras, point[None])[0][:, 0].long()
    colors = torch.stack(
        [view.rgb[k, y - 3 : y + 4, x - 3 : x + 4].mean(dim=(0, 1)) for k, (x, y) in enumerate(pixels)]
    )
    assert (colors - colors.mean(dim=0)).abs().max() < 0.025


def test_renders_are_deterministic_and_texture_size_changes_little(prepared):
    camera = orbit_cameras([15], [5], 96, **HEAD)
    first, second = (render_identity(prepared, None, camera, SMALL) for _ in range(2))
    assert torch.equal(first.rgb, second.rgb) and torch.equal(first.condition, second.condition)
    again = prepare_identity(prepared.identity, 256)
    assert np.array_equal(again.atlas, prepared.atlas)
    fine = prepare_identity(prepared.identity, 1024)
    difference = (render_identity(fine, None, camera, SMALL).rgb - first.rgb).abs().mean()
    assert difference < 0.02


def test_wrong_numbers_are_refused(prepared):
    cameras = orbit_cameras([0, 1, 2], [0, 0, 0], 32)
    with pytest.raises(ShapeMismatch, match="2 states for 3 cameras"):
        render_identity(prepared, true_parameters(prepared.identity).expand(2), cameras)
    with pytest.raises(InvalidInput, match="supersampling"):
        IdentityRenderSettings(supersampling=0)
    with pytest.raises(InvalidInput, match="texture_size"):
        IdentityRenderSettings(texture_size=500)


def test_mesh_shown_unlit_looks_like_the_render():
    identity = exported_identity("amara")
    mesh = identity_mesh(identity, texture_size=512)
    assert mesh.texture is not None and torch.isfinite(mesh.texture).all()
    camera = orbit_cameras([30], [0], 128, **HEAD)
    image = rasterize_mesh(mesh.vertices, mesh.faces, camera)
    hit = image.face_id[0] >= 0
    uvs = (mesh.corner_uvs[image.face_id[0].clamp(min=0)] * image.barycentric[0][..., None]).sum(dim=-2)
    unlit = torch.where(hit[..., None], sample_texture(mesh.texture, uvs), torch.ones(3))
    truth = render_identity(
        prepare_identity(identity, 512), None, camera, IdentityRenderSettings(texture_size=512, condition=False)
    )
    both = hit & (truth.alpha[0] > 0.99)
    error = ((unlit - truth.rgb[0])[both] ** 2).mean()
    assert -10 * math.log10(float(error)) > 24


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identities")
    return export_identities(folder)


def test_exported_files_load_in_trimesh(exported):
    import trimesh

    assert [path.name for path in exported] == [f"{n}.{e}" for n in PORTRAIT_NAMES for e in ("glb", "json")]
    textured, colored = (trimesh.load(path) for path in exported[::2])
    for path, scene in zip(exported[::2], (textured, colored)):
        assert path.stat().st_size < 5_000_000
        (geometry,) = scene.geometry.values()
        assert np.isfinite(geometry.vertices).all() and len(geometry.faces) > 30_000
        low, high = geometry.bounds
        assert 0.6 < high[1] < 1.0 and low[1] < -0.4 and abs(low[0] + high[0]) < 0.2
    assert next(iter(textured.geometry.values())).visual.material.baseColorTexture.size == (1024, 1024)
    assert len(next(iter(colored.geometry.values())).vertices) > 40_000
    colors = load_mesh(exported[2]).vertex_colors
    assert colors is not None and len(torch.unique((colors * 255).round(), dim=0)) > 1000


def test_exported_landmarks_lie_on_the_mesh(exported):
    import trimesh

    for mesh_path, side_car in zip(exported[::2], exported[1::2]):
        content = json.loads(side_car.read_text())
        assert content["prompt"] and len(content["landmarks"]) == 68
        (geometry,) = trimesh.load(mesh_path).geometry.values()
        distance = np.linalg.norm(geometry.vertices[None] - np.array(content["landmarks"])[:, None], axis=-1).min(
            axis=1
        )
        assert distance.max() < 0.03


def test_export_is_deterministic_and_cached(exported, tmp_path):
    again = export_identities(tmp_path / "again", ["viktor"])
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (again[0], exported[2])]
    assert digests[0] == digests[1]
    first = embedded_portrait_files("viktor", tmp_path)
    stamp = first[0].stat().st_mtime_ns
    second = embedded_portrait_files("viktor", tmp_path)
    assert second == first and second[0].stat().st_mtime_ns == stamp
    with pytest.raises(InvalidInput, match="no identity 'nobody', expected one of amara, viktor"):
        export_identities(tmp_path, ["nobody"])


def test_exported_lashes_are_dark() -> None:
    mesh = identity_mesh(exported_identity("amara"), texture_size=512)
    assert mesh.corner_uvs is not None and mesh.texture is not None
    identity = prepare_identity(exported_identity("amara"), 512)
    lashes = torch.from_numpy(identity.figure.face_parts == FIGURE_PARTS.index("lashes"))
    colors = sample_texture(mesh.texture, mesh.corner_uvs[lashes].mean(dim=1))
    assert len(colors) > 100 and float(colors.max()) < 0.15

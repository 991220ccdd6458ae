"""Values of tensors on other devices and of other types; how often a GPU is waited for."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.conditioning import condition_assets
from animportrait3d_core.errors import InvalidInput, all_hold, check_all_finite
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.render import rasterize_gaussians, rasterize_mesh, render_gaussians
from animportrait3d_core.rigging import triangle_frames
from animportrait3d_core.views import Views


def some_gaussians(count: int = 30) -> Gaussians:
    draw = torch.Generator().manual_seed(0)
    means, quats, sh = (torch.randn(count, size, generator=draw) for size in (3, 4, 12))
    return Gaussians(0.1 * means, quats, torch.full((count, 3), -3.0), torch.zeros(count), 0.1 * sh.view(-1, 4, 3))


def some_avatar(body) -> RiggedAvatar:
    gaussians = some_gaussians()
    binding = torch.arange(len(gaussians)) * 500
    part_id = torch.zeros(len(gaussians), dtype=torch.uint8)
    return RiggedAvatar(gaussians, binding, part_id, body, body.neutral_parameters(), metadata={"seed": "1"})


KEPT_ON_THE_CPU = {"_tensors.parents.", "body._tensors.parents."}  # the CPU follows the tree joint by joint
NAMES = ("cameras", "views", "gaussians", "avatar", "parameters", "body", "assets", "shape", "frames", "condition")


@pytest.fixture(scope="module")
def values(mannequin_body) -> dict:
    cameras = orbit_cameras([0, 30], [0, 0], 16)
    parameters = mannequin_body.neutral_parameters()
    return {
        "cameras": cameras,
        "views": Views(torch.zeros(2, 16, 16, 3), torch.zeros(2, 16, 16), cameras, torch.ones(3)),
        "gaussians": some_gaussians(),
        "avatar": some_avatar(mannequin_body),
        "parameters": parameters,
        "body": mannequin_body,
        "assets": mannequin_body.assets,
        "shape": mannequin_body.shape(parameters.betas),
        "frames": triangle_frames(mannequin_body(parameters).vertices[0], mannequin_body.faces),
        "condition": condition_assets(mannequin_body.assets),
    }


def tensors_of(value) -> dict[str, torch.Tensor]:
    """All tensors inside of a value, those of nested ones included, by path."""
    if isinstance(value, torch.Tensor):
        return {"": value}
    if isinstance(value, dict):
        items = value
    elif isinstance(value, (str, int, float, bool, tuple, type(None))):
        return {}
    else:
        items = vars(value)
    return {f"{name}.{path}": found for name, item in items.items() for path, found in tensors_of(item).items()}


@pytest.mark.parametrize("name", NAMES)
def test_everything_moves_and_nothing_else_changes(values, name):
    value = values[name]
    tensors = tensors_of(value)
    elsewhere = value.to("meta")
    assert type(elsewhere) is type(value)
    found = tensors_of(elsewhere)
    assert found.keys() == tensors.keys() and len(found) >= 2
    assert {path for path, tensor in found.items() if tensor.device.type != "meta"} <= KEPT_ON_THE_CPU
    assert all(tensor.dtype == tensors[path].dtype for path, tensor in found.items())
    double = tensors_of(value.to(dtype=torch.float64))
    for path, tensor in tensors.items():
        wanted = tensor.double() if tensor.is_floating_point() else tensor
        assert double[path].dtype == wanted.dtype and torch.equal(double[path], wanted), path
    assert all(torch.equal(tensor, tensors[path]) for path, tensor in tensors_of(value.to()).items())


def test_what_is_no_tensor_stays(values):
    moved = values["avatar"].to(dtype=torch.float64)
    assert moved.metadata == {"seed": "1"} and moved.quaternion_order == "corrected"
    assert moved.body.eyelid_mode == "fixed" and moved.body.assets.name == "mannequin"
    assert (values["cameras"].to("meta").width, values["views"].to("meta").cameras.height) == (16, 16)


def test_moving_keeps_gradients():
    gaussians = some_gaussians()
    leaf = gaussians.means.clone().requires_grad_()
    moved = dataclasses.replace(gaussians, means=leaf).to(dtype=torch.float64)
    moved.means.sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_bodies_pose_where_they_are(values):
    """On the meta device shapes are computed and no value: nothing falls back to the CPU."""
    body, parameters = values["body"].to("meta"), values["parameters"].to("meta")
    posed = body(parameters)
    assert {value.device.type for value in vars(posed).values()} == {"meta"}
    assert triangle_frames(posed.vertices[0], body.faces).quats.device.type == "meta"
    assert body.faces_outward.device.type == body.label_values.device.type == "meta"


class Waits:
    """How often a value of a tensor is asked for, which on a GPU waits for it."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        for name in ("__bool__", "__int__", "__float__", "item", "tolist"):
            monkeypatch.setattr(torch.Tensor, name, self._counting(getattr(torch.Tensor, name)))

    def _counting(self, method):
        def counted(tensor, *arguments):
            self.count += 1
            return method(tensor, *arguments)

        return counted


def test_a_gpu_is_waited_for_once_per_check(values, monkeypatch):
    from animportrait3d_core.render import gaussians as door
    from animportrait3d_core.render import mesh as mesh_door

    value, cameras = values["gaussians"], values["cameras"]
    shape = {"quats": value.quats, "scales": value.scales, "opacities": value.opacities}
    body = values["body"]
    vertices = body(values["parameters"]).vertices[0]
    waits = Waits(monkeypatch)
    door._checked_scene(value.means, shape, value.sh, cameras, torch.ones(3), torch.ones(len(value), 2))
    assert waits.count == 1
    value.check_finite("demo")
    assert waits.count == 2
    mesh_door.check_mesh("demo", vertices, body.faces, cameras)
    assert waits.count == 3
    BodyParameters.neutral(3)
    assert waits.count == 4
    dataclasses.replace(values["avatar"], prompt="somebody")
    assert waits.count == 5


FIELDS = ("means", "quats", "scales", "opacities", "colors_or_sh", "features", "background")


@pytest.mark.parametrize("field", FIELDS)
def test_a_fused_check_still_names_the_field(values, field):
    value = values["gaussians"]
    given = {
        "means": value.means, "quats": value.quats, "scales": value.scales, "opacities": value.opacities,
        "colors_or_sh": value.sh, "features": torch.zeros(len(value), 2), "background": torch.zeros(3),
    }  # fmt: skip
    given[field] = given[field].clone()
    given[field].view(-1)[2] = float("inf")
    with pytest.raises(InvalidInput, match=f"`{field}` holds 1 non-finite value of"):
        rasterize_gaussians(**given, cameras=values["cameras"])


def test_cameras_that_were_not_checked_are_refused_where_they_draw(values):
    """Cameras on a GPU are not looked at when they are made; here such ones are made by hand."""
    cameras = values["cameras"].to()
    broken = cameras.K.clone()
    broken[1, 0, 0] = float("nan")
    object.__setattr__(cameras, "K", broken)
    with pytest.raises(InvalidInput, match="`cameras.K` holds 1 non-finite value of 18"):
        render_gaussians(values["gaussians"], cameras)
    with pytest.raises(InvalidInput, match="`cameras.K` holds 1 non-finite value of 18"):
        rasterize_mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), cameras)
    with pytest.raises(InvalidInput, match="Cameras: `K` holds 1 non-finite value of 18"):
        Cameras(cameras.world_to_camera, broken, 16, 16)


def test_sums_that_overflow_are_no_error():
    check_all_finite("demo", {"large": torch.full((4,), 3e38), "none": torch.zeros(0)})
    with pytest.raises(InvalidInput, match="demo: `second` holds 2 non-finite values of 4"):
        second = torch.tensor([1.0, float("nan"), float("inf"), 0.0])
        check_all_finite("demo", {"large": torch.full((4,), 3e38), "second": second})
    assert all_hold([]) and all_hold([torch.ones((), device="meta"), torch.tensor(True)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("name", NAMES)
def test_values_go_to_a_gpu_and_back(values, name):
    tensors = tensors_of(values[name])
    there = values[name].to("cuda")
    assert {path for path, tensor in tensors_of(there).items() if tensor.device.type != "cuda"} <= KEPT_ON_THE_CPU
    for path, tensor in tensors_of(there.to("cpu")).items():
        assert torch.equal(tensor, tensors[path]), path


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_a_gpu_is_hardly_waited_for_by_cameras_and_poses(values, recwarn):
    """CUDA's own word on it: in this mode an operation that waits warns. smplx sends one list of joints per pose."""
    cameras, body = values["cameras"].to("cuda"), values["body"].to("cuda")
    parameters = values["parameters"].to("cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        cameras[0:1].to(dtype=torch.float64)
        assert len(recwarn) == 0
        posed = body(parameters.expand(2))
        triangle_frames(posed.vertices, body.faces)[3:7].to(dtype=torch.float64)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(recwarn) <= 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_a_body_poses_alike_on_a_gpu(values):
    body, parameters = values["body"], values["parameters"].replace(jaw_pose=torch.tensor([[0.2, 0.0, 0.0]]))
    there = body.to("cuda")(parameters.to("cuda"))
    for name, value in vars(body(parameters)).items():
        torch.testing.assert_close(getattr(there, name).cpu(), value, rtol=0, atol=2e-5)

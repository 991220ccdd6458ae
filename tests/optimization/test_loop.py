"""The loop: a stage is data and an objective; scenes of several cameras and poses; work that is killed goes on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar, pose_avatar, render_avatar_views
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization import AvatarOptimizer, LearningRates, Scene, Stage, optimize_avatar
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.progress import may_stop, stopped_by
from animportrait3d_core.runs import STATE_FILE

BLACK = torch.zeros(3)


# A new stage in full: where it looks, and what it wants to see.
class OpenMouths:
    """Two cameras on another opening of the jaw each step."""

    def __init__(self, avatar, size=40):
        self.cameras = orbit_cameras([-20.0, 20.0], [0.0, 0.0], size)
        self.rest, self.fingerprint = avatar.parameters, f"open mouths {size}"

    def at(self, step, seed):
        jaw = torch.tensor([[0.1 + 0.05 * (step % 4), 0.0, 0.0]])
        return Scene(self.cameras, BLACK, self.rest.replace(jaw_pose=jaw))


class Paint:
    """What is seen gets one colour."""

    def __init__(self, color):
        self.color, self.fingerprint = torch.tensor(color), f"paint {color}"

    def losses(self, crops, step):
        difference = crops.images - crops.alpha[..., None] * self.color
        return {"color": difference.abs().mean()}


@pytest.fixture(scope="module")
def start(make_avatar) -> RiggedAvatar:
    return make_avatar(900, seed=5)


RED = (0.9, 0.1, 0.1)
STAGE = Stage("paint", 24, LearningRates(sh0=0.1), frozen_parts=(AvatarPart.EYELIDS, AvatarPart.TEETH))


def painter(start: RiggedAvatar, stage: Stage = STAGE, **changes) -> AvatarOptimizer:
    return AvatarOptimizer(start, stage, OpenMouths(start, **changes), Paint(RED))


def assert_equal(first: RiggedAvatar, second: RiggedAvatar) -> None:
    for field in dataclasses.fields(first.gaussians):
        assert torch.equal(getattr(first.gaussians, field.name), getattr(second.gaussians, field.name)), field.name


def test_a_stage_is_data_and_a_small_objective(start) -> None:
    painted = optimize_avatar(painter(start))
    frozen = torch.isin(start.part_id.long(), torch.tensor(STAGE.frozen_parts))
    assert 40 < int(frozen.sum()) < len(start) - 100
    assert torch.equal(painted.gaussians.sh[frozen], start.gaussians.sh[frozen])
    scene = OpenMouths(start).at(2, 0)

    def difference(avatar: RiggedAvatar) -> float:
        seen = render_avatar_views(pose_avatar(avatar, scene.parameters), scene.cameras, BLACK)
        return float((seen.images - seen.masks[..., None] * torch.tensor(RED)).abs().mean())

    assert difference(painted) < 0.6 * difference(start)


def test_cameras_of_a_scene_are_rendered_together(start) -> None:
    """The gradient of two cameras is the mean of the two alone."""

    class One(OpenMouths):
        def __init__(self, avatar, row):
            super().__init__(avatar)
            self.cameras = self.cameras[row]

    def first_moments(scenes) -> dict[str, torch.Tensor]:
        optimizer = AvatarOptimizer(start, STAGE, scenes, Paint(RED))
        optimizer.step()
        return {name: value for name, value in optimizer.state().tensors.items() if "optimizer.first" in name}

    both, left, right = (first_moments(scenes) for scenes in (OpenMouths(start), One(start, 0), One(start, 1)))
    for name, value in both.items():
        alone = (left[name] + right[name]) / 2
        torch.testing.assert_close(value, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))
    assert not torch.allclose(left["optimizer.first.sh0"], right["optimizer.first.sh0"])


def test_poses_of_a_scene_are_judged_together(start) -> None:
    """One camera on each of two poses: the gradient is the mean of the two alone."""

    class Poses(OpenMouths):
        def __init__(self, avatar, jaws):
            super().__init__(avatar)
            self.jaws = jaws

        def at(self, step, seed):
            jaw = torch.tensor([[angle, 0.0, 0.0] for angle in self.jaws])
            parameters = self.rest[[0] * len(self.jaws)].replace(jaw_pose=jaw)
            return Scene(self.cameras[: len(self.jaws)], BLACK, parameters, torch.arange(len(self.jaws)))

    def first_moments(scenes) -> dict[str, torch.Tensor]:
        optimizer = AvatarOptimizer(start, STAGE, scenes, Paint(RED))
        optimizer.step()
        return {name: value for name, value in optimizer.state().tensors.items() if "optimizer.first" in name}

    class Second(Poses):
        def at(self, step, seed):
            return dataclasses.replace(super().at(step, seed), cameras=self.cameras[1:])

    both, left, right = (
        first_moments(s) for s in (Poses(start, [0.1, 0.4]), Poses(start, [0.1]), Second(start, [0.4]))
    )
    for name, value in both.items():
        alone = (left[name] + right[name]) / 2
        torch.testing.assert_close(value, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))
    posed = Poses(start, [0.1, 0.4]).at(0, 0)
    with pytest.raises(InvalidInput, match="poses \\[1, 0\\], expected each of 2 poses, in order"):
        dataclasses.replace(posed, poses=torch.tensor([1, 0]))
    with pytest.raises(InvalidInput, match="poses None"):
        dataclasses.replace(posed, poses=None)


def test_a_body_that_was_posed_before_is_not_posed_again(start, monkeypatch) -> None:
    class Posed(OpenMouths):
        def at(self, step, seed):
            scene = super().at(step, seed)
            vertices = start.body(scene.parameters).vertices
            return dataclasses.replace(scene, parameters=start.parameters, vertices=vertices)

    wanted, found = painter(start), AvatarOptimizer(start, STAGE, Posed(start), Paint(RED))
    wanted.step()
    monkeypatch.setattr("animportrait3d_core.avatar.rig.AvatarRig.body", None)
    found.step()
    torch.testing.assert_close(found.image, wanted.image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stop", [1, 11, 24])
def test_a_cancelled_stage_goes_on_and_ends_bit_identical(start, tmp_path, caplog, stop) -> None:
    whole = optimize_avatar(painter(start))

    def cancel(step: int, total: int, preview) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize_avatar(painter(start), tmp_path, cancel)
    steps = []
    with caplog.at_level("INFO", logger="animportrait3d"):
        resumed = optimize_avatar(painter(start), tmp_path, lambda step, *_: steps.append(step))
    assert steps == list(range(stop + 1, 25))
    assert f"paint: goes on at step {stop} of 24" in caplog.text
    assert_equal(resumed, whole)
    assert list(tmp_path.iterdir()) == []


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_stop_within_a_step_loses_no_step(start, tmp_path, stop) -> None:
    whole = optimize_avatar(painter(start))
    done, within = [], []

    class Slow(Paint):
        def losses(self, crops, step):
            within.append(step)
            may_stop()
            within.clear()
            return super().losses(crops, step)

    def user() -> None:
        if within == [stop]:
            raise Stopped

    optimizer = AvatarOptimizer(start, STAGE, OpenMouths(start), Slow(RED))
    with pytest.raises(Stopped), stopped_by(user):
        optimize_avatar(optimizer, tmp_path, lambda step, *_: done.append(step))
    assert len(done) == stop
    steps = []
    slow = AvatarOptimizer(start, STAGE, OpenMouths(start), Slow(RED))
    resumed = optimize_avatar(slow, tmp_path, lambda step, *_: steps.append(step))
    assert steps == list(range(stop + 1, 25))
    assert_equal(resumed, whole)


def test_each_step_tells_the_terms_of_its_loss(start) -> None:
    class Watch:
        def __init__(self) -> None:
            self.told: list[dict[str, float]] = []

        def values(self, values) -> None:
            self.told.append(dict(values))

        def __call__(self, step: int, total: int, preview) -> None:
            assert len(self.told) == step and min(self.told[-1].values()) >= 0

    watch, optimizer = Watch(), painter(start)
    optimize_avatar(optimizer, progress=watch)
    assert len(watch.told) == 24 and watch.told[-1] == optimizer.losses and optimizer.losses


@pytest.mark.parametrize("changed", ["avatar", "stage", "scenes", "objective", "seed"])
def test_another_input_begins_anew(start, tmp_path, changed) -> None:
    def cancel(step: int, total: int, preview) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize_avatar(painter(start), tmp_path, cancel)
    moved = dataclasses.replace(start.gaussians, means=start.gaussians.means * 1.01)
    other = dataclasses.replace(start, gaussians=moved)
    optimizer = {
        "avatar": lambda: painter(other),
        "stage": lambda: painter(start, dataclasses.replace(STAGE, iterations=25)),
        "scenes": lambda: painter(start, size=41),
        "objective": lambda: AvatarOptimizer(start, STAGE, OpenMouths(start), Paint((0.0, 0.0, 1.0))),
        "seed": lambda: AvatarOptimizer(start, STAGE, OpenMouths(start), Paint(RED), seed=1),
    }[changed]()
    steps = []
    optimize_avatar(optimizer, tmp_path, lambda step, *_: steps.append(step))
    assert steps[0] == 1
    assert len(list(tmp_path.glob(f"*/{STATE_FILE}"))) == 1  # the first one waits

"""AP3D_ConditionMaps and AP3D_Prompts: the maps of core, of whatever body is connected; texts that can be read."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.body.fit import BodyFit
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.conditioning import (
    CROP_REGIONS,
    FRAME_SIZE,
    Prompts,
    condition_assets,
    crop_cameras,
    posed_condition_map,
)
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.portrait.head_target import standard_placement


def maps_of(body, parameters, region, yaw, elevation, size):
    posed = body(parameters)
    cameras = crop_cameras(
        CROP_REGIONS[region], orbit_cameras([yaw], [elevation], FRAME_SIZE), posed.landmarks[0], size
    )
    return posed_condition_map(condition_assets(body.assets), posed, cameras)


@pytest.fixture(scope="module")
def clip(mannequin_body, rest):
    return stress_clip(mannequin_body, rest)


@pytest.mark.parametrize("region", list(CROP_REGIONS))
def test_the_maps_are_those_of_core(run_node, avatar, clip, region):
    done = run_node("AP3D_ConditionMaps", subject=avatar, region=region, yaw=12.0, elevation=5.0, size=48)
    wanted = maps_of(avatar.body, avatar.parameters, region, 12.0, 5.0, 48)
    assert torch.equal(done.packed, wanted) and done.packed.shape == (1, 48, 48, 4)
    assert torch.equal(done.normals, wanted[..., :3])
    assert torch.equal(done.labels, wanted[..., 3:].expand(-1, -1, -1, 3))
    assert len(done.ui["images"]) == 2 and "text" not in done.ui
    moved = run_node(
        "AP3D_ConditionMaps", subject=avatar, region=region, yaw=12.0, elevation=5.0, size=48, motion=clip, frame=5
    )
    assert torch.equal(moved.packed, maps_of(avatar.body, clip.parameters[5], region, 12.0, 5.0, 48))
    assert moved.ui["text"] == ["frame 5: jaw open"]


def test_an_avatar_a_fit_and_a_body_can_be_connected(run_node, mannequin_body, rest, avatar):
    of_avatar = run_node("AP3D_ConditionMaps", subject=avatar, size=32)
    of_fit = run_node("AP3D_ConditionMaps", subject=BodyFit(rest, mannequin_body, {}), size=32)
    assert torch.equal(of_fit.packed, of_avatar.packed)
    of_body = run_node("AP3D_ConditionMaps", subject=mannequin_body, size=32)
    assert torch.equal(of_body.packed, maps_of(mannequin_body, standard_placement(mannequin_body), "face", 0, 0, 32))
    motion = run_node("AP3D_LoadMotion", avatar=mannequin_body, motion="rest", frames=3).motion
    held = run_node("AP3D_ConditionMaps", subject=mannequin_body, motion=motion, frame=2, size=32)
    assert torch.equal(held.packed, of_body.packed)


def test_a_region_that_the_method_does_not_look_at_is_drawn_and_said(run_node, mannequin_body):
    done = run_node("AP3D_ConditionMaps", subject=mannequin_body, region="left eye", yaw=60.0, size=32)
    assert done.packed.shape == (1, 32, 32, 4)
    assert done.ui["text"] == ["The method looks at this region from -90 to 30 degrees only."]


def test_a_frame_beyond_the_motion_is_refused(run_node, avatar, clip):
    words = f"AP3D_ConditionMaps: frame 999, but the motion has {len(clip)} frames; choose one of 0 to {len(clip) - 1}"
    with pytest.raises(InvalidInput, match=words):
        run_node("AP3D_ConditionMaps", subject=avatar, motion=clip, frame=999)


def test_prompts_are_shown_as_they_will_be_asked(run_node):
    done = run_node("AP3D_Prompts", prompt="an old man, red hair", negative_prompt="blur", view_words=False)
    assert done.prompts == Prompts("an old man, red hair", "an old man", "blur", view_words=False)
    assert done.texts == done.prompts.summary() and done.ui == {"text": [done.texts]}
    assert "mouth region, an old man" in done.texts.splitlines()
    written = run_node("AP3D_Prompts", prompt="an old man, red hair", abstract_prompt="a king")
    assert written.prompts.abstract_prompt == "a king"


def test_empty_prompts_and_prompts_of_nobody_are_refused(run_node):
    with pytest.raises(InvalidInput, match="the prompt is empty; describe the person"):
        run_node("AP3D_Prompts", prompt=" ", abstract_prompt="a man")
    with pytest.raises(InvalidInput, match="the abstract prompt is empty, and 'red hair' has no word for a person"):
        run_node("AP3D_Prompts", prompt="red hair")

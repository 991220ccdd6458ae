"""The user's stop is heard after each picture of a portrait, which is the longest piece of work of these nodes."""

from __future__ import annotations

import pytest

from animportrait3d_core.workflow.context import Interrupted
from tests.portrait.trigrid_samples import ellipsoid_portrait


class Impatient:
    """A portrait whose user presses stop while it makes its second picture."""

    def __init__(self, portrait, context):
        self.portrait, self.context, self.cameras, self.kind = portrait, context, [], portrait.kind

    def render(self, cameras, background):
        self.cameras.append(len(cameras))
        if len(self.cameras) == 2:
            self.context.cancelled.set()
        return self.portrait.render(cameras, background)

    def at_full_quality(self):
        return self


@pytest.fixture()
def impatient(run_context):
    return Impatient(ellipsoid_portrait((16,)), run_context)


def test_views_of_a_portrait(run_node, impatient):
    with pytest.raises(Interrupted):
        run_node("AP3D_RenderViews", subject=impatient, preset="quickstart", size=16, background="white")
    assert impatient.cameras == [1, 1]


def test_the_likeness_to_the_portrait(run_node, impatient, avatar):
    with pytest.raises(Interrupted):
        run_node("AP3D_EvaluateAvatar", avatar=avatar, portrait=impatient, motion=None, stage="initial", size=64)
    assert impatient.cameras == [1, 1]

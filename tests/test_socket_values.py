"""Every value on a socket tells the host all the tensors it keeps alive."""

from __future__ import annotations

import dataclasses
import io
import pickle
import re
from pathlib import Path

import pytest
import torch

from animportrait3d_core.animation import rest_motion
from animportrait3d_core.body.fit import BodyFit
from animportrait3d_core.body.landmarks import Landmarks
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.conditioning import Prompts
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import MeshParts
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait
from animportrait3d_core.rigging.points import RiggedPoints
from animportrait3d_core.segmentation import ViewLabels
from animportrait3d_core.socket_values import SocketValue, held_tensors
from animportrait3d_core.surface import ViewNormals
from animportrait3d_core.views import Views

NODES = sorted((Path(__file__).parents[1] / "nodes").glob("*.py"))


@dataclasses.dataclass(frozen=True)
class _Inner:
    tensor: torch.Tensor


def test_tensors_are_found_at_any_depth_and_once():
    a, b, c, weight = torch.zeros(1), torch.zeros(2), torch.zeros(3), torch.nn.Linear(4, 1, bias=False)
    value = {"a": [a, (a, {"b": b})], "c": _Inner(c), "d": weight, "e": "words", "f": _Inner}
    value["itself"] = value
    assert [tensor.numel() for tensor in held_tensors(value)] == [1, 3, 4, 2]


def test_nothing_is_read_that_is_not_ours():
    class Foreign:
        def __init__(self):
            self.tensor = torch.zeros(1)

    assert held_tensors([Foreign(), 3, None]) == []


def _views():
    return Views(torch.ones(2, 8, 8, 3), torch.ones(2, 8, 8), orbit_cameras([0, 9], [0, 0], 8), torch.ones(3))


def _mesh():
    return Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.rand(3, 3))


def _points():
    position, number = torch.rand(5, 3), torch.zeros(5, dtype=torch.int64)
    return RiggedPoints(position, position + 1, torch.rand(5), number, position + 2, number.byte(), position / 2)


@pytest.fixture()
def values(avatar, mannequin_body, rest):
    """Values of each socket; guidances are in tests/diffusion."""
    from animportrait3d_core.embedded.portraits import shipped_portrait_file

    return {
        "AP3D_VIEWS": [_views()],
        "AP3D_MESH": [_mesh()],
        "AP3D_PORTRAIT": [MeshPortrait(_mesh()), load_trigrid_portrait(shipped_portrait_file("rosa"))],
        "AP3D_PARTS": [MeshParts(_mesh(), torch.tensor([2], dtype=torch.uint8))],
        "AP3D_NORMALS": [ViewNormals(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4))],
        "AP3D_LABELS": [ViewLabels(torch.zeros(1, 4, 4, dtype=torch.uint8), confidence=torch.ones(1, 4, 4))],
        "AP3D_LANDMARKS": [Landmarks(torch.zeros(68, 3))],
        "AP3D_POINTS": [_points()],
        "AP3D_PROMPTS": [Prompts.of("a man")],
        "AP3D_BODY": [mannequin_body],
        "AP3D_FIT": [BodyFit(rest, mannequin_body, {})],
        "AP3D_MOTION": [rest_motion(rest, 3, 25.0)],
        "AP3D_AVATAR": [avatar],
    }


class _TensorsOf(pickle.Pickler):
    """Whatever would be written of a value: Python's own walk, which leaves nothing out."""

    def __init__(self, value):
        super().__init__(io.BytesIO())
        self.tensors = []
        self.dump(value)

    def persistent_id(self, value):
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
            return id(value)
        return None


def test_every_socket_value_tells_all_its_tensors(values):
    for socket, of_socket in values.items():
        for value in of_socket:
            assert isinstance(value, SocketValue), socket
            told, expected = value._comfy_cache_tensors(), {id(tensor) for tensor in _TensorsOf(value).tensors}
            assert {id(tensor) for tensor in told} == expected and len(told) == len(expected), type(value)
            assert expected or socket == "AP3D_PROMPTS"


def test_no_socket_is_forgotten(values):
    sockets = set(re.findall(r"\bAP3D_[A-Z_]+\b", "".join(file.read_text(encoding="utf-8") for file in NODES)))
    assert sockets == {*values, "AP3D_GUIDANCE"}

"""Meshes and splats of the host's sockets: there and back, and through the nodes of a real host."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.avatar import pose_avatar
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export import write_splat_ply
from animportrait3d_core.export.ply_files import read_table
from animportrait3d_core.mesh_files import load_mesh, save_mesh
from animportrait3d_core.mesh_queries import colors_at
from animportrait3d_core.meshes import Mesh

ROOT = Path(__file__).parents[2]
VERTICES = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 1.0]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 4], [1, 2, 4]])


@pytest.fixture()
def host(pack):
    return sys.modules[f"{pack.__name__}.nodes.host"]


def textured():
    """Each face in its own corner of a picture of 8 x 8 colours that differ."""
    draw = torch.Generator().manual_seed(0)
    uvs = torch.rand(len(FACES), 3, 2, generator=draw) * 0.8 + 0.1
    picture = torch.randint(0, 256, (8, 8, 3), generator=draw) / 255
    return Mesh(VERTICES, FACES, corner_uvs=uvs, texture=picture)


def colored():
    return Mesh(VERTICES, FACES, vertex_colors=torch.rand(len(VERTICES), 3, generator=torch.Generator().manual_seed(1)))


def looks(mesh):
    """Places and colours [F, 4, 3] at the corners and the middle of each face, in an order that does not depend on how
    vertices are numbered."""
    weights = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)]).expand(len(mesh.faces), 4, 3)
    faces = torch.arange(len(mesh.faces))[:, None].expand(-1, 4)
    places = torch.einsum("fkc,fcd->fkd", weights, mesh.vertices[mesh.faces])
    both = torch.cat([places, colors_at(mesh, faces, weights)], dim=-1).reshape(-1, 6)
    keys = (both[:, :3] * 1000).round().long()
    order = sorted(range(len(both)), key=lambda row: (*keys[row].tolist(), *both[row, 3:].tolist()))
    return both[order]


@pytest.mark.parametrize("make", [textured, colored])
def test_a_mesh_comes_back_as_it_went(host, make):
    mesh = make()
    made = host.host_mesh(mesh)
    assert made.vertices.shape[::2] == (1, 3) and made.faces.shape == (1, len(FACES), 3)
    again, report = host.mesh_of_host("test", made)
    torch.testing.assert_close(looks(again), looks(mesh), atol=2e-3, rtol=0)
    assert report.faces == len(FACES)


def test_the_axes_and_light_of_gltf(host):
    mesh = Mesh(VERTICES[:3], FACES[:1], corner_uvs=torch.tensor([[[0.0, 1.0], [0.0, 0.25], [1.0, 0.0]]]),
                texture=torch.ones(2, 2, 3))  # fmt: skip
    made = host.host_mesh(mesh)
    rows = dict(zip(map(tuple, made.vertices[0].tolist()), made.uvs[0].tolist()))
    assert rows[(0.0, 0.0, 0.0)] == [0.0, 0.0] and rows[(1.0, 0.0, 0.0)] == [0.0, 0.75]
    grey = Mesh(VERTICES, FACES, vertex_colors=torch.full((5, 3), 0.5))
    assert host.host_mesh(grey).vertex_colors[0, 0, 0] == pytest.approx(((0.5 + 0.055) / 1.055) ** 2.4)


def test_parts_are_flat_colours(host):
    colors = torch.eye(3)[[0, 1, 2, 0]]
    made = host.host_mesh(textured(), colors)
    assert made.vertices.shape == (1, 12, 3) and not hasattr(made, "texture")
    assert torch.equal(made.vertex_colors[0][made.faces[0]], colors[:, None].expand(-1, 3, -1))
    assert torch.equal(made.vertices[0][made.faces[0]], VERTICES[FACES])


def test_of_a_batch_the_first_without_what_fills_it_up(host):
    filled = torch.cat([VERTICES, 9 + torch.eye(3)])
    waste = torch.tensor([[5, 6, 7], [5, 6, 7]])
    batch = SimpleNamespace(
        vertices=torch.stack([filled, filled + 1]), vertex_counts=torch.tensor([5, 8]),
        faces=torch.stack([torch.cat([FACES, waste])] * 2).int(), face_counts=torch.tensor([4, 6]), uvs=None,
    )  # fmt: skip
    mesh, _ = host.mesh_of_host("test", batch)
    assert len(mesh.faces) == 4 and float(mesh.vertices.max()) == 1
    bare, _ = host.mesh_of_host("test", SimpleNamespace(vertices=VERTICES[None], faces=FACES[None]))
    assert len(bare.faces) == 4


class File3D:
    """As the host's: of a path, or of bytes."""

    def __init__(self, source, kind):
        self.source, self.format = source, kind

    def get_source(self):
        return self.source

    def save_to(self, path):
        Path(path).write_bytes(self.source.getvalue())
        return path


def test_files_of_the_host_are_read_with_what_lies_beside_them(host, tmp_path):
    path = save_mesh(textured(), tmp_path / "head.obj")
    on_disk, report = host.mesh_of_host("test", File3D(str(path), "obj"))
    assert on_disk.texture is not None and report.file_name == "head.obj"
    data = save_mesh(textured(), tmp_path / "head.glb").read_bytes()
    in_memory, report = host.mesh_of_host("test", File3D(io.BytesIO(data), "glb"))
    torch.testing.assert_close(looks(in_memory), looks(on_disk), atol=1e-6, rtol=0)
    with pytest.raises(InvalidInput, match="ends in '.fbx', expected one of"):
        host.mesh_of_host("test", File3D(io.BytesIO(b"x"), "fbx"))


@pytest.mark.parametrize(("value", "words"), [
    (torch.zeros(3), "test: got a Tensor, expected a 3D file or a mesh"),
    (SimpleNamespace(vertices=VERTICES[None], faces=FACES[None, :0]), "test: the mesh has no faces"),
])  # fmt: skip
def test_what_is_no_mesh_is_told(host, value, words):
    with pytest.raises(InvalidInput, match=words):
        host.mesh_of_host("test", value)


def test_the_splat_is_the_one_of_the_file(host, make_avatar, tmp_path):
    avatar = make_avatar(50, sh_degree=1)
    write_splat_ply(pose_avatar(avatar, avatar.parameters), tmp_path / "splat.ply")
    splat = host.host_splat(avatar)
    check_splat(splat, tmp_path / "splat.ply")
    assert splat.positions.shape == (1, 50, 3) and splat.sh.shape == (1, 50, 4, 3)
    assert splat.opacities.shape == (1, 50, 1) and splat.rotations.shape == (1, 50, 4)


def check_splat(splat, path):
    """The values of a splat are those of a file of our own, as viewers read it."""
    columns = {name: torch.from_numpy(column) for name, column in read_table(path, "test")[0].items()}

    def stack(*names):
        return torch.stack([columns[name] for name in names], dim=1)

    close = torch.testing.assert_close
    close(splat.positions[0], stack("x", "y", "z"))
    close(splat.rotations[0], stack("rot_0", "rot_1", "rot_2", "rot_3"))
    close(splat.scales[0].log(), stack("scale_0", "scale_1", "scale_2"), atol=1e-5, rtol=1e-5)
    close(splat.opacities[0, :, 0].logit(), columns["opacity"], atol=1e-4, rtol=1e-4)
    close(splat.sh[0, :, 0], stack("f_dc_0", "f_dc_1", "f_dc_2"))
    close(splat.sh[0, :, 2, 1], columns[f"f_rest_{15 + 1}"])


def test_the_types_are_the_hosts_where_it_has_them(host, monkeypatch, avatar):
    class Type:
        def __init__(self, **values):
            self.__dict__.update(values)

    known = types.ModuleType("comfy_api.latest._util.geometry_types")
    known.MESH, known.SPLAT = type("MESH", (Type,), {}), type("SPLAT", (Type,), {})
    for module in (types.ModuleType("folder_paths"), known):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert type(host.host_mesh(colored())) is known.MESH and type(host.host_splat(avatar)) is known.SPLAT


@pytest.mark.parametrize("alignment", ["none"])
def test_a_portrait_of_a_mesh_of_the_host(host, run_node, mannequin_body, rest, alignment):
    with torch.inference_mode():
        body = Mesh(mannequin_body(rest).vertices[0], mannequin_body.faces_outward)
        given = host.host_mesh(body)  # as a node of the host would make it
    done = run_node("AP3D_PortraitFromMesh", body=mannequin_body, alignment=alignment, model_3d=given)
    assert len(done.mesh.faces) > 1000 and done.portrait.report.file_name == "model.glb"


# In the host's interpreter: what its nodes make of ours, and ours of theirs.
SCRIPT = """
import sys
from pathlib import Path
from types import ModuleType

folder = Path(sys.argv[3])
sys.path[:0] = [sys.argv[1], sys.argv[2]]
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import folder_paths
import nodes
try:
    from comfy_api.latest import Types
    from comfy_extras import nodes_gaussian_splat, nodes_save_3d
except ImportError:
    print("no such nodes")
    sys.exit()
root = sys.path[1]
sys.modules["tests"] = ModuleType("tests")  # the host has a package of this name too, which would be found first
sys.modules["tests"].__path__ = [f"{root}/tests"]
from animportrait3d_core.avatar import pose_avatar
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.embedded.mannequin import mannequin_body_files
from animportrait3d_core.export import write_splat_ply
from animportrait3d_core.workflow.registry import load_pack
from tests.avatar_samples import fitted_parameters, random_avatar
from tests.host.test_geometry import colored, textured

host = sys.modules[load_pack(root).__name__ + ".nodes.host"]
for name, mesh in {"textured": textured(), "colored": colored()}.items():
    made = host.host_mesh(mesh)
    assert type(made) is Types.MESH
    (folder / f"{name}.glb").write_bytes(nodes_save_3d.mesh_item_to_glb_bytes(made, 0))
    file = nodes_save_3d.MeshToFile3D.execute(made).args[0]
    assert type(file) is Types.File3D and len(host.mesh_of_host("test", file)[0].faces) == len(mesh.faces)
body = load_body_model(*mannequin_body_files())
avatar = random_avatar(body, fitted_parameters(body), 50, 1)
splat = host.host_splat(avatar)
assert type(splat) is Types.SPLAT
values = [getattr(splat, name)[0] for name in ("positions", "scales", "rotations", "opacities", "sh")]
(folder / "theirs.ply").write_bytes(nodes_gaussian_splat._gaussian_ply_bytes(*values))
write_splat_ply(pose_avatar(avatar, avatar.parameters), folder / "ours.ply")
print("done")
"""


def test_the_nodes_of_the_host_take_them(tmp_path):
    if not os.environ.get("COMFYUI_DIR"):
        pytest.skip("COMFYUI_DIR does not point to a ComfyUI checkout")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-c", SCRIPT, os.environ["COMFYUI_DIR"], str(ROOT), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    if done.stdout.strip().endswith("no such nodes"):
        pytest.skip("this ComfyUI has no splat nodes")
    for name, mesh in {"textured": textured(), "colored": colored()}.items():
        torch.testing.assert_close(looks(load_mesh(tmp_path / f"{name}.glb")), looks(mesh), atol=2e-3, rtol=0)
    theirs, ours = (read_table(tmp_path / f"{name}.ply", "test")[0] for name in ("theirs", "ours"))
    for name, column in theirs.items():
        if not name.startswith("f_rest"):  # theirs hold as many as there are, ours always those of degree 3
            torch.testing.assert_close(torch.from_numpy(column), torch.from_numpy(ours[name]), atol=1e-4, rtol=1e-4)

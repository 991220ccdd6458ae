"""Meshes, splats and 3D files of the host's own sockets (MESH, SPLAT, FILE_3D...): made of our values, and read.

Both ways by the names of attributes alone: hosts differ in how many a mesh has. A host that does not know such a type
gets a value of the same shape, which none of its nodes takes.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from animportrait3d_core.errors import InvalidInput

from .environment import comfy_module, in_comfyui

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.mesh_files import MeshReport
    from animportrait3d_core.meshes import Mesh

MESH, SPLAT = "MESH", "SPLAT"
FILE_3D = "FILE_3D,FILE_3D_GLB,FILE_3D_GLTF,FILE_3D_OBJ,FILE_3D_STL,FILE_3D_PLY"
MODEL_3D = f"{FILE_3D},{MESH}"
"""Socket that takes whatever a 3D node of the host hands out."""

FILE_3D_GLB, FILE_3D_PLY = "FILE_3D_GLB", "FILE_3D_PLY"

# Where hosts keep their types: new ones, and 0.3.
_MODULES = ("comfy_api.latest._util.geometry_types", "comfy_extras.nodes_hunyuan3d")
_SOCKETS = "comfy_api.latest._io"


class HostMesh(Protocol):
    """A batch of meshes as the host's nodes know them: vertices [B, V, 3], faces [B, F, 3], and whatever else."""

    vertices: Tensor
    faces: Tensor


class HostFile(Protocol):
    """A 3D file of the host, on disk or in memory; `format` is its suffix without the dot."""

    format: str

    def save_to(self, path: str) -> str:
        """Copy it to a path."""
        ...


class FileInMemory:
    """A 3D file in memory with as much of the host's class as its nodes and ours ask for."""

    def __init__(self, source: BytesIO, file_format: str) -> None:
        self._source, self.format = source, file_format

    def get_data(self) -> BytesIO:
        """The bytes, from their beginning."""
        self._source.seek(0)
        return self._source

    get_source = get_data

    def save_to(self, path: str) -> str:
        """Copy it to a path."""
        Path(path).write_bytes(self.get_data().read())
        return path


def known_sockets(*kinds: str) -> tuple[str, ...]:
    """Those of the types of sockets that the host has; all of them where no host is."""
    if not in_comfyui():
        return kinds
    module = comfy_module(_SOCKETS)
    known = {str(getattr(found, "io_type", "")) for found in vars(module).values()} if module is not None else set()
    return tuple(kind for kind in kinds if kind in known)


def host_file(path: Path) -> Any:
    """A file on disk for sockets FILE_3D...; it is read, so that the file itself may go."""
    return _type("File3D", FileInMemory)(BytesIO(path.read_bytes()), path.suffix.removeprefix("."))


def host_mesh(mesh: Mesh, colors_of_faces: Tensor | None = None, unlit: bool = False) -> Any:
    """A mesh for sockets MESH, with its texture or colours; or in flat colours [F, 3], one for each face.

    Colours of vertices are linear light there, texture coordinates have v downwards: as in glTF. unlit: the colours
    hold their light already, and are to be shown as they are.
    """
    import torch

    from animportrait3d_core.mesh_files import linear_colors
    from animportrait3d_core.meshes import colored_by_face, split_at_seams

    mesh = mesh if colors_of_faces is None else colored_by_face(mesh, colors_of_faces)
    looks = {}
    vertices, faces = mesh.vertices, mesh.faces
    if mesh.texture is not None:
        vertices, faces, uvs = split_at_seams(mesh)
        looks = {"uvs": torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1), "texture": mesh.texture}
    elif mesh.vertex_colors is not None:
        looks = {"vertex_colors": linear_colors(mesh.vertex_colors)}
    made = _type(MESH)(vertices=vertices[None], faces=faces[None])
    for name, value in looks.items():
        setattr(made, name, value[None])
    if unlit:
        made.unlit = True
    return made


def host_splat(avatar: RiggedAvatar) -> Any:
    """The avatar at rest for sockets SPLAT: activated values in the axes of splat files, y down."""
    from animportrait3d_core.avatar import pose_avatar
    from animportrait3d_core.export import turned_about_x
    from animportrait3d_core.rotations import normalize_quaternion

    gaussians = turned_about_x(pose_avatar(avatar, avatar.parameters))
    return _type(SPLAT)(
        positions=gaussians.means[None],
        scales=gaussians.scales[None],
        rotations=normalize_quaternion(gaussians.quats)[None],
        opacities=gaussians.opacities[None, :, None],
        sh=gaussians.sh[None],
    )


def _type(name: str, otherwise: type = SimpleNamespace) -> Any:
    """The host's class of that name; without one, `otherwise`."""
    classes = (getattr(comfy_module(module), name, None) for module in _MODULES)
    return next((found for found in classes if found is not None), otherwise)


def mesh_of_host(where: str, value: HostMesh | HostFile) -> tuple[Mesh, MeshReport]:
    """What came through a socket MODEL_3D (of a batch the first), read, checked and cleaned as any mesh file is."""
    from animportrait3d_core.files import temporary_directory
    from animportrait3d_core.mesh_files import load_mesh_with_report, save_mesh

    source = getattr(value, "get_source", lambda: None)()
    if isinstance(source, str):  # where it lies: its materials and textures are beside it
        return load_mesh_with_report(Path(source))
    with temporary_directory() as folder:
        path = folder / f"model.{getattr(value, 'format', 'glb')}"
        if hasattr(value, "save_to"):
            value.save_to(str(path))
        elif hasattr(value, "vertices") and hasattr(value, "faces"):
            save_mesh(_mesh_of_batch(where, value), path)
        else:
            kind = type(value).__name__
            raise InvalidInput(f"{where}: got a {kind}, expected a 3D file or a mesh of one of ComfyUI's nodes.")
        return load_mesh_with_report(path)


def _mesh_of_batch(where: str, value: HostMesh) -> Mesh:
    from animportrait3d_core.mesh_files import display_colors
    from animportrait3d_core.meshes import Mesh

    def first(name: str, counts: str | None) -> Tensor | None:
        """The first of a batch [B, N, ...] without what fills it up, on the CPU."""
        batch, lengths = getattr(value, name, None), getattr(value, counts, None) if counts else None
        if batch is None or not len(batch):
            return None
        return batch[0].detach().cpu() if lengths is None else batch[0, : int(lengths[0])].detach().cpu()

    vertices, faces = first("vertices", "vertex_counts"), first("faces", "face_counts")
    if vertices is None or faces is None or not len(faces):
        raise InvalidInput(f"{where}: the mesh has no faces, expected a surface.")
    faces = faces.long()
    colors, uvs = (first(name, "vertex_counts") for name in ("vertex_colors", "uvs"))
    texture = first("texture", None)
    mesh = Mesh(vertices.float(), faces, None if colors is None else display_colors(colors[:, :3].float()))
    if uvs is None or texture is None:
        return mesh
    corners = uvs.float()[faces]
    corners[..., 1] = 1 - corners[..., 1]
    return Mesh(mesh.vertices, faces, corner_uvs=corners, texture=texture[..., :3].float())

"""The condition map: what a body alone can tell the diffusion prior about a view of it."""

from __future__ import annotations

import dataclasses

import torch
from scipy import ndimage
from torch import Tensor

from ..body.assets import BodyAssets
from ..body.model import BodyOutput
from ..cameras import Cameras
from ..devices import Device, moved
from ..errors import InvalidInput, ShapeMismatch, check_shape
from ..meshes import vertex_normals
from ..render import MeshImage, interpolate, rasterize_mesh

_TO_OPENGL = (1.0, -1.0, -1.0)  # camera axes of OpenCV to those of OpenGL


@dataclasses.dataclass(frozen=True)
class ConditionAssets:
    """What condition maps need of a body.

    faces: [F, 3] int64 of the whole head, counter-clockwise from outside.  shown: [F', 3] int64, the faces whose
    normals are drawn, likewise.  labels: [F] float64 of `faces` in 0..1.  num_vertices: of the posed body.
    """

    faces: Tensor
    shown: Tensor
    labels: Tensor
    num_vertices: int

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> ConditionAssets:
        """The same on another device; `dtype` of the labels."""
        return moved(self, device, dtype)


def condition_assets(assets: BodyAssets) -> ConditionAssets:
    """What `condition_map` needs of the assets of a body; make it once per body.

    A face has the highest label of its vertices, but a face of the iris the lowest: the ring between iris and sclera
    belongs to the sclera only outside the iris' border. Labels are meant as 255ths, as pictures carry them, and are
    made exactly that.
    """
    faces = (assets.faces if assets.winding_outward else assets.faces[:, [0, 2, 1]]).contiguous()
    corners = torch.round(assets.vertex_labels.double() * 255.0)[faces] / 255.0
    labels = torch.where(assets.face_regions["iris"], corners.amin(1), corners.amax(1))
    return ConditionAssets(faces, faces[assets.face_regions["condition_face"]], labels, len(assets.vertex_ids))


def condition_map(
    assets: ConditionAssets,
    vertices: Tensor,
    normals: Tensor,
    cameras: Cameras,
    grain: int = 2,
    whole: MeshImage | None = None,
) -> Tensor:
    """Condition maps [B, H, W, 4] float32 in 0..1 of a bare body in B cameras, on the vertices' device.

    Channels 0..2: camera-space OpenGL normals of the shown faces alone, coded n / 2 + 1 / 2; where they are not, 1.
    Channel 3: sclera 1, teeth 125/255, iris 85/255, seen past the whole head; else 0.

    vertices, normals: [V, 3], or [B, V, 3] with one posed body per camera, in the world; normals are unit vectors.
    grain: samples per pixel and axis.  whole: `rasterize_mesh` of all faces in cameras of `grain` times the size, if
    it was drawn before. The maps carry no gradient.
    """
    _check(assets, vertices, normals, cameras, grain)
    fine = cameras.resized(cameras.width * grain, cameras.height * grain)
    with torch.no_grad():
        world = vertices.float()
        whole = rasterize_mesh(world, assets.faces, fine) if whole is None else whole
        shown = rasterize_mesh(world, assets.shown, fine)
        pack = _pack_numba if vertices.device.type == "cpu" else pack_torch
        return pack(assets, shown, whole, normals.detach().double(), cameras)


def posed_condition_map(assets: ConditionAssets, posed: BodyOutput, cameras: Cameras, grain: int = 2) -> Tensor:
    """Condition maps [B, H, W, 4] of what a `BodyModel` posed, with normals as the data sets have them.

    posed: one state for all B cameras, or one state per camera. Normals are area-weighted over all faces, in float64.
    """
    vertices = posed.vertices.detach().double()
    vertices = vertices[0] if len(vertices) == 1 else vertices
    return condition_map(assets, vertices, vertex_normals(vertices, assets.faces), cameras, grain)


def inside_condition(condition: Tensor) -> Tensor:
    """Pixels [H, W] bool at which a condition map [H, W, 4] shows the body, and those that it encloses.

    The maps leave eyes and the inside of a mouth white; they belong to what is asked about.
    """
    shown = (condition[..., :3] < 1).any(-1) | (condition[..., 3] > 0)
    return torch.from_numpy(ndimage.binary_fill_holes(shown.cpu().numpy()))


def _check(assets: ConditionAssets, vertices: Tensor, normals: Tensor, cameras: Cameras, grain: int) -> None:
    shape = [assets.num_vertices, 3] if vertices.ndim == 2 else [len(cameras), assets.num_vertices, 3]
    check_shape("condition_map", "vertices", vertices, shape)
    if normals.shape != vertices.shape:
        raise ShapeMismatch(
            f"condition_map: `normals` has shape {list(normals.shape)}, expected that of the vertices, {shape}."
        )
    if grain < 1:
        raise InvalidInput(f"condition_map: {grain} samples per pixel and axis, expected at least 1.")


def _pack_numba(
    assets: ConditionAssets, shown: MeshImage, whole: MeshImage, normals: Tensor, cameras: Cameras
) -> Tensor:
    """The maps from their samples, view by view."""
    from .numba_maps import pack_view

    maps = torch.empty(len(cameras), cameras.height, cameras.width, 4)
    for view in range(len(cameras)):
        own = normals if normals.ndim == 2 else normals[view]
        turned = own.numpy() @ cameras.world_to_camera[view, :3, :3].double().cpu().numpy().T * _TO_OPENGL
        pack_view(
            shown.face_id[view].numpy(), shown.barycentric[view].numpy(), whole.face_id[view].numpy(),
            assets.shown.numpy(), turned, assets.labels.numpy(), maps[view].numpy(),
        )  # fmt: skip
    return maps


def pack_torch(
    assets: ConditionAssets, shown: MeshImage, whole: MeshImage, normals: Tensor, cameras: Cameras
) -> Tensor:
    """The same maps [B, H, W, 4] of normals [V, 3] or [B, V, 3] on any device, and the oracle of the compiled half."""
    rotation = cameras.world_to_camera[:, :3, :3].to(normals)
    turned = normals @ rotation.transpose(1, 2) * normals.new_tensor(_TO_OPENGL)
    unit = torch.nn.functional.normalize(interpolate(shown, assets.shown, turned), dim=-1, eps=1e-20)
    coded = torch.where(shown.mask[..., None], 0.5 * unit + 0.5, 1.0)
    labels = torch.where(whole.mask, assets.labels.to(normals)[whole.face_id.clamp(min=0)], 0.0)
    samples = torch.cat([coded, labels[..., None]], dim=-1)
    batch, height, width = len(cameras), cameras.height, cameras.width
    grain = samples.shape[1] // height
    return samples.view(batch, height, grain, width, grain, 4).mean(dim=(2, 4)).float()

"""The public door of the mesh rasteriser, and differentiable interpolation of vertex attributes."""

from __future__ import annotations

from importlib import import_module

import torch

from ..cameras import Cameras
from ..errors import InvalidInput, ShapeMismatch, all_hold, check_finite, check_shape, finite_sign
from .backends import choose_backend
from .images import MeshImage
from .inputs import Size, resize_cameras, usable_tensor
from .torch_mesh import edge_products, pixel_rays

_WHERE = "rasterize_mesh"


def camera_points(vertices: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """Vertices [V, 3] or [B, V, 3] in the cameras' coordinates, [B, V, 3]; differentiable."""
    matrices = usable_tensor(cameras.world_to_camera).to(vertices)
    return vertices @ matrices[:, :3, :3].transpose(1, 2) + matrices[:, None, :3, 3]


def check_mesh(where: str, vertices: torch.Tensor, faces: torch.Tensor, cameras: Cameras) -> None:
    """Raises ShapeMismatch or InvalidInput unless vertices [V, 3] or [B, V, 3] and faces [F, 3] fit together
    and all values are finite. A GPU is waited for once."""
    num_cameras = len(cameras)
    if vertices.ndim not in (2, 3) or vertices.shape[-1] != 3 or (vertices.ndim == 3 and len(vertices) != num_cameras):
        raise ShapeMismatch(
            f"{where}: `vertices` has shape {list(vertices.shape)}, expected [V, 3] or [{num_cameras}, V, 3]."
        )
    check_shape(where, "faces", faces, ["F", 3])
    if faces.is_floating_point() or faces.dtype == torch.bool:
        raise InvalidInput(f"{where}: `faces` has type {faces.dtype}, expected integers.")
    values = {"vertices": vertices, "cameras.world_to_camera": cameras.world_to_camera, "cameras.K": cameras.K}
    signs = [finite_sign(value) for value in values.values()]
    low, high = torch.aminmax(faces) if len(faces) else (faces.new_zeros(()), faces.new_zeros(()) - 1)
    if not all_hold([*signs, low >= 0, high < vertices.shape[-2]]):
        for name, value in values.items():
            check_finite(where, name, value)
        if int(low) < 0 or int(high) >= vertices.shape[-2]:
            raise InvalidInput(
                f"{where}: `faces` points at vertices {int(low)} to {int(high)}, but there are {vertices.shape[-2]} "
                f"(0 to {vertices.shape[-2] - 1})."
            )


def _draw_numba(vertices: torch.Tensor, faces: torch.Tensor, cameras: Cameras) -> tuple[torch.Tensor, ...]:
    from .numba_mesh import draw_mesh
    from .numba_projection import camera_rows

    batched = vertices.detach().cpu().float().contiguous().reshape(-1, *vertices.shape[-2:]).numpy()
    rows = camera_rows(cameras.world_to_camera, cameras.K)
    arrays = draw_mesh(batched, faces.cpu().long().contiguous().numpy(), rows, (cameras.width, cameras.height))
    return tuple(torch.from_numpy(array).to(vertices.device) for array in arrays)


def rasterize_mesh(
    vertices: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: Size = None, backend: str = "auto"
) -> MeshImage:
    """Rasterises a triangle mesh from B cameras: which face each pixel centre sees, where in it, and how far.

    vertices [V, 3], or [B, V, 3] with one set per camera, in world units; faces [F, 3] integers. No face is culled by
    its orientation; degenerate faces cover nothing; what lies nearer than 0.01 units is cut away. size: (width, height)
    or an int for a square image instead of the cameras' own. backend: "auto", "numba", "torch" or "nvdiffrast".

    The result carries no gradients: `interpolate` and `antialias` recompute from vertices what needs them.
    Raises ShapeMismatch, InvalidInput (non-finite or out-of-range input), MissingExtension.
    """
    cameras = resize_cameras(_WHERE, cameras, size)
    check_mesh(_WHERE, vertices, faces, cameras)
    chosen = choose_backend("mesh", backend, vertices.device, torch.float32)
    with torch.no_grad():
        if len(faces) == 0:
            shape = (len(cameras), cameras.height, cameras.width)
            empty = vertices.new_zeros(*shape, 3, dtype=torch.float32)
            return MeshImage(torch.full(shape, -1, device=vertices.device), empty, empty[..., 0].clone())
        if chosen == "numba":
            return MeshImage(*_draw_numba(vertices, faces, cameras))
        # Both take camera-space points; the torch twin is given double precision, as the Numba kernels use inside.
        dtype = torch.float64 if chosen == "torch" else torch.float32
        points = camera_points(vertices.to(dtype), cameras)
        module = import_module(f".{chosen}_mesh", __package__)
        return module.draw_mesh(points, faces.long(), cameras.K.to(points), (cameras.width, cameras.height))


def interpolate(
    mesh_image: MeshImage,
    faces: torch.Tensor,
    attributes: torch.Tensor,
    vertices: torch.Tensor | None = None,
    cameras: Cameras | None = None,
) -> torch.Tensor:
    """Vertex attributes [V, C] or [B, V, C] at every pixel, [B, H, W, C]; 0 where the image is empty.

    Perspective-correct and differentiable in the attributes. With `vertices` and `cameras` (those of the rasterising
    call, resized likewise) the barycentrics are recomputed, and the result is differentiable in the vertices as well.
    """
    batch, height, width = mesh_image.face_id.shape
    if attributes.ndim not in (2, 3) or (attributes.ndim == 3 and len(attributes) != batch):
        raise ShapeMismatch(
            f"interpolate: `attributes` has shape {list(attributes.shape)}, expected [V, C] or [{batch}, V, C]."
        )
    if (vertices is None) != (cameras is None):
        raise InvalidInput("interpolate: `vertices` and `cameras` belong together; give both or neither.")
    face_id = mesh_image.face_id.reshape(-1)
    pixel = torch.nonzero(face_id >= 0).squeeze(1)
    corners = faces.long().index_select(0, face_id[pixel])
    if vertices is None or cameras is None:
        weights = usable_tensor(mesh_image.barycentric).reshape(-1, 3)[pixel].to(attributes.dtype)
    else:
        weights = _barycentrics(corners, pixel, (height, width), vertices, cameras).to(attributes.dtype)
    view = pixel // (height * width)
    flat, index = attributes, corners
    if attributes.ndim == 3:
        flat, index = attributes.flatten(0, 1), corners + view[:, None] * attributes.shape[1]
    values = flat.index_select(0, index.reshape(-1)).view(len(pixel), 3, flat.shape[1])
    values = (values * weights[..., None]).sum(1)
    image = values.new_zeros(batch * height * width, values.shape[1])
    return image.index_copy(0, pixel, values).view(batch, height, width, -1)


def _barycentrics(
    corners: torch.Tensor, pixel: torch.Tensor, size: tuple[int, int], vertices: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Barycentrics [P, 3] of flat pixel indices in faces with vertex ids [P, 3], with gradients to the vertices."""
    height, width = size
    if (height, width) != (cameras.height, cameras.width):
        raise InvalidInput(
            f"interpolate: the image is {width} x {height}, the cameras {cameras.width} x {cameras.height}; pass the "
            "cameras of the rasterising call, resized with `Cameras.resized`."
        )
    points = camera_points(vertices, cameras)
    view = pixel // (height * width)
    index = corners + view[:, None] * points.shape[1]
    triangles = points.flatten(0, 1).index_select(0, index.reshape(-1)).view(-1, 3, 3)
    K = usable_tensor(cameras.K).to(points)[view]
    weights = edge_products(triangles, pixel_rays(pixel % width, pixel // width % height, K))
    total = weights.sum(-1, keepdim=True)
    # A face seen exactly edge-on covers a pixel only by rounding; it must not spread NaN.
    return weights / torch.where(total.abs() > 1e-30, total, 1.0)

"""Gaussians as PLY: the authors' rigged layout (read and written) and the plain 3DGS layout for viewers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..avatar.model import RiggedAvatar
from ..avatar.spherical_harmonics import rotate_spherical_harmonics
from ..errors import InvalidInput
from ..gaussians import Gaussians
from ..parts import (
    AVATAR_PARTS,
    PART_OF_UPSTREAM_MASK,
    UPSTREAM_MASK_OF_PART,
    UPSTREAM_MASKS,
    part_of_faces,
    upstream_masks,
)
from ..rigging import QuaternionOrder
from ..rotations import normalize_quaternion, quaternion_multiply
from .ply_files import read_table, write_table

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

REST_COEFFICIENTS = 15
"""Spherical-harmonics coefficients above the constant, per channel, that both layouts hold: degree 3."""

_REST = [f"f_rest_{index}" for index in range(3 * REST_COEFFICIENTS)]
COLOR_AND_SHAPE = ["f_dc_0", "f_dc_1", "f_dc_2", *_REST, "opacity", "scale_0", "scale_1", "scale_2"]
COLOR_AND_SHAPE += ["rot_0", "rot_1", "rot_2", "rot_3"]
_MASK_COLUMNS = [f"{name}_points_mask" for name in UPSTREAM_MASKS]

RIGGED_COLUMNS = ("x", "y", "z", *COLOR_AND_SHAPE, "binding_0", *_MASK_COLUMNS)
"""The authors' 65 float columns: local position, colour, logit opacity, log scale, wxyz rotation, face, five masks."""

_ORDER_COMMENT = "animportrait3d quaternion_order "


def splat_columns() -> tuple[str, ...]:
    """Columns of a plain 3DGS file, with the unused normals that some viewers insist on."""
    return ("x", "y", "z", "nx", "ny", "nz", *COLOR_AND_SHAPE)


def write_rigged_ply(avatar: RiggedAvatar, path: str | Path, quaternion_order: QuaternionOrder = "corrected") -> None:
    """Write the avatar in the authors' layout, values relative to the triangles, SH padded to degree 3.

    quaternion_order: `legacy` for the authors' viewer, which composes local x face; the conversion is exact at the rest
    pose. A comment line names the order, so that `read_rigged_ply` need not be told.
    """
    avatar = avatar.with_quaternion_order(quaternion_order)
    masks = upstream_masks(avatar.part_id).float()
    table = torch.cat(
        [avatar.gaussians.means, color_and_shape(avatar.gaussians), avatar.binding[:, None].float(), masks], dim=1
    )
    write_table(path, RIGGED_COLUMNS, table.detach().cpu().numpy(), [_ORDER_COMMENT + quaternion_order])


def read_rigged_ply(
    path: str | Path,
    body: BodyModel,
    parameters: BodyParameters,
    quaternion_order: QuaternionOrder | None = None,
) -> RiggedAvatar:
    """Read a rigged PLY onto the body and rest pose it was made with.

    quaternion_order: of the file; default what its comment says, or `legacy` for files of the authors, who wrote none.
    Files without the five masks are accepted: parts then follow from the faces. With masks, the body's faces refine
    them (the authors' `teeth` mask is the whole mouth, their `smplx` mask holds the lips too).
    """
    where = "read_rigged_ply"
    columns, comments = read_table(path, where)
    required = [name for name in RIGGED_COLUMNS if name not in _MASK_COLUMNS]
    missing = [name for name in required if name not in columns]
    if missing:
        raise InvalidInput(
            f"{where}: '{path}' lacks {len(missing)} of {len(required)} columns ({', '.join(missing[:5])}...); "
            "expected a rigged avatar. A plain splat file holds no rig."
        )
    told = [line.removeprefix(_ORDER_COMMENT) for line in comments if line.startswith(_ORDER_COMMENT)]
    binding = torch.from_numpy(columns["binding_0"])
    if bool((binding != binding.round()).any()) or not bool(torch.isfinite(binding).all()):
        raise InvalidInput(f"{where}: '{path}' has a `binding_0` that is no whole number; the file is damaged.")
    gaussians = gaussians_of_columns(columns)
    gaussians.check_finite(where)
    face_parts = part_of_faces(body.assets.face_regions)
    if len(binding) and not 0 <= float(binding.min()) <= float(binding.max()) < len(face_parts):
        raise InvalidInput(
            f"{where}: '{path}' binds to faces {int(binding.min())} to {int(binding.max())}, but the body has "
            f"{len(face_parts)}; pass the body that the file was made with."
        )
    return RiggedAvatar(
        gaussians=gaussians,
        binding=binding.long(),
        part_id=_parts(columns, face_parts[binding.long()]),
        body=body,
        parameters=parameters,
        quaternion_order=quaternion_order or (told[0] if told else "legacy"),  # type: ignore[arg-type]
    )


def write_splat_ply(gaussians: Gaussians, path: str | Path, y_down: bool = True) -> None:
    """Write Gaussians in the world as a plain 3DGS file, SH padded to degree 3, rotations unit.

    y_down: turn by 180 degrees about x, as viewers of COLMAP scenes expect; our world has y up.
    """
    if y_down:
        gaussians = turned_about_x(gaussians)
    gaussians = dataclasses.replace(gaussians, quats=normalize_quaternion(gaussians.quats))
    table = torch.cat([gaussians.means, torch.zeros_like(gaussians.means), color_and_shape(gaussians)], dim=1)
    write_table(path, splat_columns(), table.detach().cpu().numpy())


def read_splat_ply(path: str | Path, y_down: bool = True) -> Gaussians:
    """Read Gaussians in the world from a plain 3DGS file, such as `write_splat_ply` writes. y_down: as there.

    Coefficients that are zero everywhere are dropped to the lowest exact degree. Raises InvalidInput if a column lacks.
    """
    where = "read_splat_ply"
    columns, _ = read_table(path, where)
    missing = [name for name in splat_columns() if name not in columns and name not in ("nx", "ny", "nz", *_REST)]
    if missing:
        raise InvalidInput(f"{where}: '{path}' lacks the columns {', '.join(missing[:5])}; expected plain splats.")
    zeros = np.zeros_like(columns["x"])
    gaussians = gaussians_of_columns({name: columns.get(name, zeros) for name in splat_columns()})
    gaussians.check_finite(where)
    return turned_about_x(gaussians) if y_down else gaussians


def color_and_shape(gaussians: Gaussians) -> Tensor:
    """[N, 56]: constant colour, the rest channel by channel, opacity, scales, rotation."""
    rest = gaussians.sh.new_zeros(len(gaussians), REST_COEFFICIENTS, 3)
    rest[:, : gaussians.sh.shape[1] - 1] = gaussians.sh[:, 1:]
    return torch.cat(
        [
            gaussians.sh[:, 0], rest.transpose(1, 2).flatten(1), gaussians.logit_opacities[:, None],
            gaussians.log_scales, gaussians.quats,
        ],
        dim=1,
    )  # fmt: skip


def gaussians_of_columns(columns: dict[str, np.ndarray]) -> Gaussians:
    """Inverse of the table; trailing coefficients that are zero everywhere are dropped to the lowest exact degree."""

    def stacked(names: list[str]) -> Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in names], axis=1))

    constant = stacked(["f_dc_0", "f_dc_1", "f_dc_2"])[:, None]
    rest = stacked(_REST).reshape(-1, 3, REST_COEFFICIENTS).transpose(1, 2)
    used = next((degree for degree in (3, 2, 1) if bool((rest[:, degree**2 - 1 :] != 0).any())), 0)
    return Gaussians(
        means=stacked(["x", "y", "z"]),
        quats=stacked([f"rot_{index}" for index in range(4)]),
        log_scales=stacked([f"scale_{index}" for index in range(3)]),
        logit_opacities=torch.from_numpy(columns["opacity"].copy()),
        sh=torch.cat([constant, rest[:, : (used + 1) ** 2 - 1]], dim=1).contiguous(),
    )


def _parts(columns: dict[str, np.ndarray], face_parts: Tensor) -> Tensor:
    """Part ids [N]: the face's part where it fits the point's mask, else the mask's own part."""
    if any(name not in columns for name in _MASK_COLUMNS):
        return face_parts
    masks = torch.from_numpy(np.stack([columns[name] for name in _MASK_COLUMNS], axis=1))
    mask = masks.argmax(dim=1)
    mask_of_part = torch.tensor([UPSTREAM_MASKS.index(UPSTREAM_MASK_OF_PART[name]) for name in AVATAR_PARTS])
    part_of_mask = torch.tensor([AVATAR_PARTS.index(PART_OF_UPSTREAM_MASK[name]) for name in UPSTREAM_MASKS])
    fits = mask_of_part[face_parts.long()] == mask
    return torch.where(fits, face_parts.long(), part_of_mask[mask]).to(torch.uint8)


def turned_about_x(gaussians: Gaussians) -> Gaussians:
    """The Gaussians turned by 180 degrees about the x axis, view-dependent colours included: from our world, with y up,
    into the one of splat files and viewers, with y down, and back."""
    turn = gaussians.means.new_tensor([1.0, -1.0, -1.0])
    half_turn = gaussians.quats.new_tensor([0.0, 1.0, 0.0, 0.0])
    rotation = torch.diag(turn).expand(len(gaussians), 3, 3)
    return dataclasses.replace(
        gaussians,
        means=gaussians.means * turn,
        quats=quaternion_multiply(half_turn.expand_as(gaussians.quats), gaussians.quats),
        sh=rotate_spherical_harmonics(gaussians.sh, rotation),
    )

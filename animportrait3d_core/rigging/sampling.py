"""How many points each triangle gets, and where on it they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput
from .frames import triangle_frames

PAPER_MIN_MULTIPLE = 7
PAPER_MAX_POINTS = 4_000_000
"""More than this from `paper_body_counts` is a mesh with a degenerate face, not detail: all counts are relative to the
smallest face. The real body gives about half a million."""


def whole_counts(shares: Tensor, generator: torch.Generator) -> Tensor:
    """Whole counts [F] of the fractional `shares` [F] of points.

    Systematic sampling: each count is its share rounded down or up, so is their sum; neither small nor large triangles
    are favoured, and neighbours in the list make up for each other. Whole shares stay as they are.

    >>> whole_counts(torch.tensor([2.0, 0.0, 4.0]), torch.Generator().manual_seed(0)).tolist()
    [2, 0, 4]
    """
    # The start stays off 0 and 1, where rounding errors of the sum would move whole shares.
    start = 0.01 + 0.98 * torch.rand((), generator=generator, dtype=torch.float64)
    steps = (torch.cumsum(shares.double(), 0) + start).floor().long()
    return torch.diff(steps, prepend=torch.zeros(1, dtype=torch.int64))


def paper_body_counts(vertices: Tensor, faces: Tensor, detailed: Tensor) -> tuple[Tensor, Tensor]:
    """The authors' points per body face [F] and per inner-cheek face [F].

    1 + 3m with m = max(7, (floor(k / k_min) - 1) // 3) of the triangle scale k; 3m is doubled on `detailed` faces (eyes
    and lips). Inside the cheek there is no lower bound: 1 + 3 (2 ((floor(k / k_min) - 1) // 3)). The 17,981 faces of
    the cropped SMPL-X, 3,896 of them detailed, get at least 477,398 points.

    Raises `InvalidInput` where a degenerate face lets the counts explode.
    """
    scale = triangle_frames(vertices, faces).scale
    multiple = ((scale / scale.min()).floor().long() - 1) // 3
    body = 1 + 3 * multiple.clamp_min(PAPER_MIN_MULTIPLE) * torch.where(detailed, 2, 1)
    if int(body.sum()) > PAPER_MAX_POINTS:
        raise InvalidInput(
            f"paper_body_counts: {int(body.sum())} points, expected at most {PAPER_MAX_POINTS}: face "
            f"{int(scale.argmin())} is {float(scale.median() / scale.min()):.3g} times smaller than the median face; "
            "mend the body's mesh, or use `budget` sampling."
        )
    return body, 1 + 6 * multiple


def paper_mesh_samples(vertices: Tensor, faces: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The authors' seven points [7 M, 3] on each of the M faces `chosen` (indices), and the face of each.

    The centroid c, and c + i/3 (v_k - c) for i = 1, 2 and the corners k, kind by kind: all centroids come first.
    """
    corners = vertices[faces[chosen]]
    center = corners.mean(dim=1)
    kinds = [center] + [center + i / 3 * (corners[:, k] - center) for i in (1, 2) for k in range(3)]
    return torch.cat(kinds), chosen.repeat(len(kinds))


def place_samples(vertices: Tensor, faces: Tensor, shares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points [N, 3] on the triangles and the face [N] of each: the centroid first, then points spread over the face.

    shares: [F] points per face, also fractions (`whole_counts`).

    The others follow a two-dimensional golden-ratio sequence with a random start per face, mapped to the triangle by
    (sqrt u1, u2): uniform like independent draws, without their clumps and holes, which show where points are few.
    """
    counts = whole_counts(shares, generator)
    face = torch.repeat_interleave(torch.arange(len(faces)), counts)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(face)) - first[face]
    start = torch.rand(len(faces), 2, generator=generator)
    step = torch.tensor([0.7548776662466927, 0.5698402909980532])
    u = (start[face] + (rank[:, None].double() * step).float()) % 1.0
    root = u[:, 0].sqrt()
    weights = torch.stack([1 - root, root * (1 - u[:, 1]), root * u[:, 1]], dim=-1)
    weights[rank == 0] = 1 / 3
    return (vertices[faces[face]] * weights[..., None]).sum(dim=1), face

"""How many points each triangle gets, and where on it they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import triangle_frames

PAPER_LEAST_MULTIPLE = 7


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
    and lips). Inside the cheek there is no lower bound: 1 + 3 (2 ((floor(k / k_min) - 1) // 3)).
    """
    scale = triangle_frames(vertices, faces).scale
    multiple = ((scale / scale.min()).floor().long() - 1) // 3
    body = 1 + 3 * multiple.clamp_min(PAPER_LEAST_MULTIPLE) * torch.where(detailed, 2, 1)
    return body, 1 + 6 * multiple


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

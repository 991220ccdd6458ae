"""Vertices that a body has beside those of its file: teeth, gums, tongue and the lining of the mouth.

Body assets carry them; a loader appends them to the checked arrays of the file (`with_mouth`), and from there on they
are vertices as all others. `mouth_making` makes them; the authors' own come from `authors_assets`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import IncompatibleCheckpoint, InvalidInput, check_finite, check_shape
from .reader import JOINTS, SHAPE_FLAVOURS

MADE, AUTHORS = "made", "authors"
MADE_VERSION = 1  # of the shapes and of how they are fitted


@dataclasses.dataclass(frozen=True)
class MouthPieces:
    """Added vertices; they are numbered after the V vertices of the file.

    vertices: [A, 3] float32, metres on the template.  jaw: [A] float32 in 0..1, weight of the jaw joint; the rest is
    the head's.  anchors: [A] int64, the file's vertex whose shape, expression and pose directions an added vertex
    copies, and anchor_share: [A] float32 in 0..1, how much of them.  lips: [L] int64 vertices of the file; the other
    share of the shape directions is their mean, so that pieces that copy nothing stay behind the lips of every shape,
    rigidly; none of them: the pieces follow no shape.  file_vertices: V.  origin: 'made' by us, or 'authors'.
    version: of the making.
    """

    vertices: Tensor
    jaw: Tensor
    anchors: Tensor
    anchor_share: Tensor
    lips: Tensor
    file_vertices: int
    origin: str = MADE
    version: int = MADE_VERSION

    def __post_init__(self) -> None:
        where, count = "MouthPieces", len(self.vertices)
        check_shape(where, "vertices", self.vertices, ["A", 3])
        for name in ("jaw", "anchors", "anchor_share"):
            check_shape(where, name, getattr(self, name), [count])
        check_shape(where, "lips", self.lips, ["L"])
        check_finite(where, "vertices", self.vertices)
        for name in ("jaw", "anchor_share"):
            values = getattr(self, name)
            if count and not (float(values.min()) >= 0 and float(values.max()) <= 1):
                raise InvalidInput(f"{where}: `{name}` leaves 0..1.")
        limit = self.file_vertices
        for name in ("anchors", "lips"):
            ids = getattr(self, name)
            if ids.dtype != torch.int64 or (len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < limit):
                raise InvalidInput(f"{where}: `{name}` are no int64 numbers in 0..{limit - 1}.")

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> MouthPieces:
        """The same pieces on another device or in another floating-point type."""
        return moved(self, device, dtype)


PIECE_TENSORS = ("vertices", "jaw", "anchors", "anchor_share", "lips")
PIECE_FIELDS = {"file_vertices": int, "origin": str, "version": int}


def with_mouth(arrays: Mapping[str, np.ndarray], pieces: MouthPieces) -> dict[str, np.ndarray]:
    """The checked arrays of a body file (`read_body_file`) with the added vertices; its faces stay as they are.

    Raises `IncompatibleCheckpoint` if the pieces were made for a file with another number of vertices.
    """
    found = len(arrays["v_template"])
    if found != pieces.file_vertices:
        raise IncompatibleCheckpoint(
            f"with_mouth: the added teeth belong to a body of {pieces.file_vertices} vertices, this one has {found}: "
            "body file and assets belong to different models."
        )
    share, anchors = pieces.anchor_share.cpu().numpy().astype(np.float64), pieces.anchors.cpu().numpy()
    jaw = pieces.jaw.cpu().numpy().astype(np.float64)
    weights = np.zeros((len(jaw), arrays["weights"].shape[1]))
    weights[:, JOINTS["jaw"]], weights[:, JOINTS["head"]] = jaw, 1 - jaw
    shape = share[:, None, None] * arrays["shapedirs"][anchors]
    if len(pieces.lips):
        betas = SHAPE_FLAVOURS[shape.shape[2]][0]
        lips = arrays["shapedirs"][pieces.lips.cpu().numpy(), :, :betas].mean(axis=0)
        shape[:, :, :betas] += (1 - share)[:, None, None] * lips
    added = {
        "v_template": pieces.vertices.cpu().numpy(),
        "weights": weights,
        "shapedirs": shape,
        "posedirs": share[:, None, None] * arrays["posedirs"][anchors],
    }
    grown = {name: np.concatenate([arrays[name], rows.astype(arrays[name].dtype)]) for name, rows in added.items()}
    no_joint = np.zeros((len(arrays["J_regressor"]), len(jaw)), dtype=arrays["J_regressor"].dtype)
    return {**arrays, **grown, "J_regressor": np.concatenate([arrays["J_regressor"], no_joint], axis=1)}

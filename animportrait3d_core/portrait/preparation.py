"""What meshes bring that is not the head: other heads beside it, a body below it, faces that look inwards.

Everything here is said in notes, sentences for the user.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..body.landmarks import ViewDetector, outer_eye_distance
from ..errors import InvalidInput
from ..head_frame import VIEW_BOTTOM
from ..meshes import Mesh, compact
from .alignment import HandAlignment, HeadAlignment
from .face_relief import face_relief
from .head_search import NoHead, SearchLimits, find_head
from .head_target import HeadTarget
from .seen_face import place_by_sight

OTHER_HEADS = SearchLimits(relief=0.6)
"""Surer than for the first head, which somebody says is there."""
MOST_HEADS = 4
LARGE = 0.3  # of the largest group's diagonal
MOST_PIECES = 2000
BUST = 3.5  # heads below the chin: what reaches further down is a whole body
INSIDE_OUT = 0.5


@dataclasses.dataclass(frozen=True)
class PlacedHead:
    """A mesh with one head, in the file's coordinates, and how it comes into the head frame."""

    mesh: Mesh
    alignment: HeadAlignment
    notes: tuple[str, ...] = ()


def find_largest_head(
    mesh: Mesh, target: HeadTarget, limits: SearchLimits | None = None, detect: ViewDetector | None = None
) -> PlacedHead:
    """The largest head of a mesh, without the others; raises what `find_head` raises.

    Pieces that lie apart are searched one by one: a search of them all looks for one head in their middle.  detect: a
    network for landmarks, which is asked where the relief is not a face's.
    """
    groups = _groups_apart(mesh)
    found = []
    for group in range(int(groups.max()) + 1 if bool((groups > 0).any()) else 0):
        try:
            found.append((find_head(compact(mesh, groups == group), target, OTHER_HEADS), group))
        except InvalidInput:  # no head in this one
            continue
    if not found:
        return _only_head(mesh, target, limits, detect)
    found.sort(key=lambda head: head[0].scale)
    alignment = found[0][0]
    if len(found) == 1:
        return PlacedHead(mesh, alignment)
    is_other = torch.zeros(int(groups.max()) + 2, dtype=torch.bool)
    is_other[[group for _, group in found[1:]]] = True
    left_out = is_other[groups]
    others = "; ".join(HandAlignment.of(head).words() for head, _ in found[1:])
    note = (
        f"{len(found)} heads in the mesh: the largest one is taken, {int(left_out.sum())} faces of the others are left "
        f"out. For another head keep only that in the file; the placements of the others: {others}"
    )
    return PlacedHead(compact(mesh, ~left_out), alignment, (note,))


def _only_head(mesh: Mesh, target: HeadTarget, limits: SearchLimits | None, detect: ViewDetector | None) -> PlacedHead:
    """The head by the relief of its face, or else by its landmarks in pictures."""
    try:
        return PlacedHead(mesh, find_head(mesh, target, limits))
    except NoHead:
        seen = None if detect is None else place_by_sight(mesh, target, detect)
        if seen is None:
            raise
    error = seen.residual / float(outer_eye_distance(target.landmarks))
    note = (
        f"the surface alone does not show a face; it is placed by the face in its pictures, {error:.0%} of the "
        "outer-eye distance from the body's landmarks"
    )
    return PlacedHead(mesh, seen, (note,))


def turned_outward(head: PlacedHead, target: HeadTarget) -> PlacedHead:
    """The head with its faces wound so that they look outwards, if those of the face do not."""
    relief = face_relief(head.mesh, target, head.alignment)
    if relief.inward <= INSIDE_OUT:
        return head
    mesh = dataclasses.replace(head.mesh, faces=head.mesh.faces.flip(1))
    if mesh.corner_uvs is not None:
        mesh = dataclasses.replace(mesh, corner_uvs=mesh.corner_uvs.flip(1))
    note = (
        f"{relief.inward:.0%} of the face is wound inside out: all faces are turned over. If the file was mirrored "
        "when it was written, left and right are exchanged; look at the parting of the hair, at scars and letters"
    )
    return dataclasses.replace(head, mesh=mesh, notes=(*head.notes, note))


def body_note(head: PlacedHead, target: HeadTarget) -> list[str]:
    """A sentence if the mesh is a whole body, of which the cameras see no more than the bust."""
    lowest = head.alignment.apply(head.mesh.vertices.double())[:, 1]
    below = (target.chin - float(lowest.min())) / target.height
    if below <= BUST:
        return []
    share = float((lowest[head.mesh.faces] < VIEW_BOTTOM).all(1).double().mean())
    return [
        f"the mesh goes on for {below:.1f} heads below the chin: of this whole body the bust is taken, {share:.0%} of "
        "its faces are cut off at the chest"
    ]


def _groups_apart(mesh: Mesh) -> Tensor:
    """Groups [F] of connected pieces whose boxes meet, from 0 the largest; -1 for those too small to be a head."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faces, vertices = mesh.faces.numpy(), mesh.vertices.double().numpy()
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    edges = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(vertices),) * 2)
    count, piece = connected_components(edges, directed=False)
    if count == 1 or count > MOST_PIECES:  # thousands are cards of hair, or a soup of triangles
        return torch.zeros(len(faces), dtype=torch.int64)
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, piece, vertices)
    np.maximum.at(high, piece, vertices)
    meet = ((low[:, None] <= high) & (low <= high[:, None])).all(-1)
    groups, group = connected_components(coo_matrix(meet), directed=False)
    sizes = np.zeros(groups)
    for number in range(groups):
        inside = group == number
        sizes[number] = np.linalg.norm(high[inside].max(0) - low[inside].min(0))
    order = np.argsort(-sizes, kind="stable")
    rank = np.full(groups, -1)
    large = order[sizes[order] > LARGE * sizes.max()][:MOST_HEADS]
    rank[large] = np.arange(len(large))
    return torch.from_numpy(rank[group[piece[faces[:, 0]]]]).long()

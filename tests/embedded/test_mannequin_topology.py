"""The mannequin's mesh: closed where it must be, wound outward, mirror symmetric, without degenerate triangles."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from animportrait3d_core.embedded.mannequin import Mannequin, build_mannequin


@pytest.fixture(scope="module")
def mannequin() -> Mannequin:
    return build_mannequin()


def _directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _border(faces: np.ndarray) -> np.ndarray:
    """Directed edges without an opposite."""
    edges = {tuple(edge) for edge in _directed_edges(faces).tolist()}
    return np.array([edge for edge in edges if edge[::-1] not in edges]).reshape(-1, 2)


def _sewn_faces(mannequin: Mannequin) -> np.ndarray:
    """Skin with everything that is sewn to it: rims, mouth sack, ears."""
    names = ("skin", "right_eye_rim", "left_eye_rim", "mouth_bag", "right_ear", "left_ear")
    return np.concatenate([mannequin.faces[mannequin.part_faces[name]] for name in names])


def test_size_and_ranges(mannequin):
    assert 10_000 <= len(mannequin.vertices) <= 13_000
    assert len(mannequin.vertices) > 9_930  # the smplx package indexes fixed vertices up to 9929
    assert mannequin.vertices[:, 1].min() > -0.1  # everything survives the head crop
    assert np.unique(mannequin.faces).size == len(mannequin.vertices)
    assert mannequin.corner_uvs.shape == (len(mannequin.faces), 3, 2)
    assert mannequin.corner_uvs.min() >= 0 and mannequin.corner_uvs.max() <= 1


def test_every_edge_is_used_at_most_once_per_direction(mannequin):
    edges = _directed_edges(mannequin.faces)
    assert len(np.unique(edges, axis=0)) == len(edges)


def _loops(border: np.ndarray) -> list[list[int]]:
    """Closed loops of vertices of a border."""
    following, loops = dict(border.tolist()), []
    assert len(following) == len(border)  # no border vertex is used twice
    while following:
        loop = [next(iter(following))]
        while (vertex := following.pop(loop[-1])) != loop[0]:
            loop.append(vertex)
        loops.append(loop)
    return loops


def test_the_skin_ends_below_and_inside_the_eyeballs_only(mannequin):
    loops = _loops(_border(_sewn_faces(mannequin)))
    assert len(loops) == 3
    lowest = mannequin.vertices[:, 1].min()
    below = [loop for loop in loops if np.abs(mannequin.vertices[loop, 1] - lowest).max() < 1e-9]
    assert len(below) == 1
    for loop in loops:
        if loop in below:
            continue
        joint = 23 if mannequin.vertices[loop[0], 0] > 0 else 24
        for vertices in (mannequin.vertices, mannequin.closed_vertices):
            assert np.linalg.norm(vertices[loop] - mannequin.joints[joint], axis=1).max() < 0.0132


@pytest.mark.parametrize("name", ["left_eye", "right_eye", "tongue"])
def test_closed_pieces_have_no_border_and_hold_a_positive_volume(mannequin, name):
    faces = mannequin.faces[mannequin.part_faces[name]]
    assert len(_border(faces)) == 0
    a, b, c = (mannequin.vertices[faces[:, k]] for k in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    expected = {"tongue": (3e-6, 3e-5)}.get(name, (0.9 * 4 / 3 * np.pi * 0.0132**3, 1.05 * 4 / 3 * np.pi * 0.0132**3))
    assert expected[0] < volume < expected[1]


def test_no_triangle_is_degenerate(mannequin):
    for vertices in (mannequin.vertices, mannequin.closed_vertices):
        a, b, c = (vertices[mannequin.faces[:, k]] for k in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
        longest = np.max([np.sum((p - q) ** 2, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
        assert area.min() > 1e-10  # m2: the smallest triangles of lids and teeth are about 0.01 mm2
        assert (area / longest).min() > 1e-3


def test_skin_faces_outward_by_ray_parity(mannequin):
    """From just above a face centre, a ray along the normal leaves the closed bust without entering it again."""
    import trimesh

    faces, points = _sewn_faces(mannequin), mannequin.vertices
    for loop in _loops(_border(faces)):
        fan = [[after, before, len(points)] for before, after in zip(loop, loop[1:] + loop[:1], strict=True)]
        faces = np.concatenate([faces, fan])
        points = np.concatenate([points, points[loop].mean(axis=0, keepdims=True)])
    closed = trimesh.Trimesh(points, faces, process=False)
    assert closed.is_watertight and closed.is_winding_consistent
    assert 0.012 < closed.volume < 0.018  # cubic metres of a bust
    chosen = np.random.default_rng(0).choice(len(mannequin.faces[mannequin.part_faces["skin"]]), 60, replace=False)
    above = closed.triangles_center[chosen] + 5e-4 * closed.face_normals[chosen]
    below = closed.triangles_center[chosen] - 5e-4 * closed.face_normals[chosen]
    assert not closed.contains(above).any()
    assert closed.contains(below).mean() > 0.95  # lids are thinner than the step in a few places


def test_template_is_mirror_symmetric(mannequin):
    from scipy.spatial import cKDTree

    for vertices in (mannequin.vertices, mannequin.closed_vertices):
        distance, _ = cKDTree(vertices).query(vertices * [-1, 1, 1])
        assert distance.max() < 1e-9


def test_texture_charts_do_not_overlap_and_hold_their_parts(mannequin):
    rectangles = list(mannequin.charts.values())
    for k, (u0, v0, u1, v1) in enumerate(rectangles):
        for other in rectangles[:k]:
            assert u1 <= other[0] or other[2] <= u0 or v1 <= other[1] or other[3] <= v0
    for name, faces in mannequin.part_faces.items():
        u0, v0, u1, v1 = mannequin.charts[name]
        corners = mannequin.corner_uvs[faces].reshape(-1, 2)
        assert (corners >= [u0, v0]).all() and (corners <= [u1, v1]).all()


def test_texture_of_the_face_is_finer_than_of_the_back(mannequin):
    def texture_area(region: str) -> float:
        uv = mannequin.corner_uvs[mannequin.face_regions[region]]
        first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        return float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2)

    assert texture_area("face") > 0.3
    assert texture_area("face") > 2 * texture_area("body")


def test_skin_texture_is_not_folded(mannequin):
    """All skin triangles keep one orientation in the texture, the seam at the back included."""
    uv = mannequin.corner_uvs[mannequin.part_faces["skin"]]
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    signed = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    assert (signed > 0).all()
    assert np.ptp(uv[..., 0], axis=1).max() < 0.05


def test_two_builds_are_bit_equal(mannequin):
    code = (
        "import hashlib, numpy as np\n"
        "from animportrait3d_core.embedded.mannequin import build_mannequin, identity_skin_displacement\n"
        "m = build_mannequin()\n"
        "arrays = (m.vertices, m.faces, m.shape_directions, m.expression_directions, m.eyelid_offsets,\n"
        "          m.skinning_weights, m.joint_regressor, m.corner_uvs, identity_skin_displacement(3))\n"
        "digest = hashlib.sha256(b''.join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()\n"
    )
    other = subprocess.run([sys.executable, "-c", code + "print(digest)"], capture_output=True, text=True, check=True)
    here: dict[str, str] = {}
    exec(code, here)  # the same lines, in a process that has drawn other things before
    assert len(here["digest"]) == 64
    assert other.stdout.strip() == here["digest"]

"""Clipping, shells, figures: clean borders, no cracks, rig equal to the body model, shape outside the basis."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.embedded.identities import exported_identity, sample_identity, true_parameters
from animportrait3d_core.embedded.identities.clipping import border_chains, clip_faces
from animportrait3d_core.embedded.identities.clothes import GARMENTS, build_cloth_shell, neckline
from animportrait3d_core.embedded.identities.figure import build_figure, template_origin
from animportrait3d_core.embedded.identities.hair import build_hair_shell
from animportrait3d_core.embedded.identities.hair_styles import STYLES
from animportrait3d_core.embedded.identities.refinement import split_faces
from animportrait3d_core.embedded.identities.rendering import pose_figure
from animportrait3d_core.embedded.identities.shells import grid_triangles
from animportrait3d_core.embedded.mannequin import build_mannequin, detail_rms
from animportrait3d_core.parts import FigurePart
from animportrait3d_core.render import rasterize_mesh

HAIRY = [name for name, style in STYLES.items() if style is not None]


def plane(rows: int = 24, columns: int = 30) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.meshgrid(np.linspace(1, -1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3), grid_triangles(rows, columns)


def area(points: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = points[faces].transpose(1, 0, 2)
    return 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


def open_edges(faces: np.ndarray) -> set[tuple[int, int]]:
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = set(map(tuple, directed.tolist()))
    assert len(known) == len(directed), "an edge is used twice in one direction"
    return {edge for edge in known if edge[::-1] not in known}


def test_a_cut_disc_has_the_area_and_outline_of_a_disc():
    points, faces = plane(80, 80)
    clipped = clip_faces(faces, 0.7 - np.linalg.norm(points, axis=1))
    kept = clipped.gather(points)
    assert area(kept, clipped.faces) == pytest.approx(np.pi * 0.49, rel=2e-3)
    radius = np.linalg.norm(kept[np.unique(clipped.border)], axis=1)
    # Linear interpolation of the distance along an edge of length h errs by at most h^2 / 8r.
    assert np.abs(radius - 0.7).max() < (2.9 / 79) ** 2 / (8 * 0.7)
    (chain,) = border_chains(clipped.border)
    assert chain[0] == chain[-1] and len(chain) == len(np.unique(clipped.border)) + 1


def test_a_cut_leaves_no_cracks_and_keeps_the_winding():
    points, faces = plane()
    scalar = np.sin(5 * points[:, 0]) + points[:, 1] + 0.3
    clipped = clip_faces(faces, scalar)
    kept = clipped.gather(points)
    border = set(map(tuple, clipped.border.tolist()))
    on_rim = np.isclose(np.abs(kept[:, 0]), 1) | np.isclose(np.abs(kept[:, 1]), 1)
    for start, end in open_edges(clipped.faces):
        assert (start, end) in border or (on_rim[start] and on_rim[end])
    a, b, c = kept[clipped.faces].transpose(1, 0, 2)
    assert (np.cross(b - a, c - a)[:, 2] >= 0).all()
    both = area(kept, clipped.faces)
    other = clip_faces(faces, -scalar)
    assert both + area(other.gather(points), other.faces) == pytest.approx(4.0, rel=1e-9)


def test_zero_on_a_vertex_is_no_special_case():
    points, faces = plane(5, 5)
    clipped = clip_faces(faces, points[:, 0])
    assert area(clipped.gather(points), clipped.faces) == pytest.approx(2.0, abs=1e-6)
    assert np.isfinite(clipped.gather(points)).all()


def turning(path: np.ndarray) -> np.ndarray:
    """Turning angle (radians) at the inner points of a path, tiny steps left out."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    keep = np.concatenate([[True], steps > 0.15])
    forward = np.diff(path[keep], axis=0)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    return np.arccos(np.clip((forward[:-1] * forward[1:]).sum(axis=1), -1, 1))


@pytest.mark.parametrize("garment", sorted(GARMENTS))
def test_necklines_are_smooth(garment):
    shell = build_cloth_shell(garment, 5)
    border = np.unique(shell.sheet.weld[shell.sheet.border], axis=0)
    chains = [chain for chain in border_chains(border[border[:, 0] != border[:, 1]]) if len(chain) > 60]
    assert len(chains) == 1 and chains[0][0] == chains[0][-1]
    angles = turning(shell.sheet.points[chains[0]])
    # A saw along whole triangles turns by 60 degrees at every tooth; one corner is the point of a V-neck.
    assert np.quantile(angles, 0.95) < np.deg2rad(25)
    assert np.mean(angles) < np.deg2rad(8)


@pytest.mark.parametrize("style", HAIRY)
def test_hair_borders_are_smooth_and_closed_by_a_wall(style):
    shell = build_hair_shell(style, 5)
    assert shell is not None
    sheet = shell.sheet
    assert np.isfinite(sheet.points).all()
    angles = np.concatenate([turning(sheet.points[chain]) for chain in border_chains(sheet.border) if len(chain) > 30])
    assert np.mean(angles) < np.deg2rad(22)
    welded = sheet.weld[sheet.faces]
    whole = (welded[:, 0] != welded[:, 1]) & (welded[:, 1] != welded[:, 2]) & (welded[:, 0] != welded[:, 2])
    rim = {edge for edge in open_edges(welded[whole])}
    upper = set(np.unique(sheet.border).tolist())
    assert not any(start in upper and end in upper for start, end in rim), "the cut edge itself is open"


@pytest.mark.parametrize("style", HAIRY)
def test_hair_has_no_spikes(style):
    shell = build_hair_shell(style, 8)
    assert shell is not None
    a, b, c = shell.sheet.points[shell.sheet.faces].transpose(1, 0, 2)
    longest = np.max(
        [np.linalg.norm(a - b, axis=1), np.linalg.norm(b - c, axis=1), np.linalg.norm(c - a, axis=1)], axis=0
    )
    assert longest.max() < 30.0
    assert np.quantile(longest, 0.99) < 16.0


def test_splitting_leaves_no_cracks():
    points, faces = plane(9, 9)
    uvs = points[faces][..., :2]
    chosen = np.linalg.norm(points[faces].mean(axis=1), axis=1) < 0.5
    new_points, new_faces, new_uvs, parent = split_faces(points, faces, uvs, chosen)
    assert area(new_points, new_faces) == pytest.approx(area(points, faces), rel=1e-12)
    np.testing.assert_allclose(new_uvs, new_points[new_faces][..., :2], atol=1e-12)
    rim = {tuple(sorted(edge)) for edge in open_edges(new_faces)}
    on_rim = np.isclose(np.abs(new_points[:, :2]).max(axis=1), 1)
    assert all(on_rim[start] and on_rim[end] for start, end in rim)
    assert (np.bincount(parent)[chosen] == 4).all()


def test_shape_lies_outside_the_basis():
    body = build_mannequin()
    basis = np.linalg.qr(body.shape_directions.reshape(-1, 10))[0]
    for seed in range(4):
        identity = sample_identity(seed)
        assert detail_rms(identity.displacement) >= 0.02
        inside = basis.T @ identity.displacement.ravel()
        assert np.linalg.norm(inside) < 1e-9 * max(1.0, np.linalg.norm(identity.displacement))


def test_identities_are_deterministic_and_differ():
    first, again, other = sample_identity(3), sample_identity(3), sample_identity(4)
    assert first.attributes == again.attributes
    np.testing.assert_array_equal(first.displacement, again.displacement)
    np.testing.assert_array_equal(build_figure(first).rest, build_figure(again).rest)
    assert np.abs(first.displacement - other.displacement).max() > 1e-3


def test_men_are_broader_than_women():
    def jaw_width(sex: str) -> float:
        body = build_mannequin()
        widths = []
        for seed in range(6):
            identity = sample_identity(seed, sex=sex)
            moved = body.vertices + body.shape_directions @ identity.betas + identity.displacement
            corners = moved[body.faces[body.landmark_faces]]
            points = np.einsum("nk,nkc->nc", body.landmark_barycentric, corners)
            widths.append(points[12, 0] - points[4, 0])
        return float(np.mean(widths))

    assert jaw_width("man") > jaw_width("woman") * 1.03


def posed_parameters():
    generator = torch.Generator().manual_seed(4)

    def some(size: int, amount: float) -> torch.Tensor:
        return amount * (2 * torch.rand(1, size, generator=generator) - 1)

    return {
        "expression": some(10, 0.8), "neck_pose": some(3, 0.3), "head_pose": some(3, 0.3), "jaw_pose": some(3, 0.2),
        "left_eye_pose": some(3, 0.3), "right_eye_pose": some(3, 0.3), "eyelids": some(2, 0.5) + 0.5,
        "global_orient": some(3, 0.3),
    }  # fmt: skip


def test_the_bare_figure_moves_as_the_body_model(tmp_path):
    from animportrait3d_core.body.model import load_body_model
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    body = load_body_model(*mannequin_body_files(tmp_path))
    identity = sample_identity(2)
    plain = type(identity)(**{**vars(identity), "displacement": np.zeros_like(identity.displacement)})
    parameters = true_parameters(plain).replace(**posed_parameters())
    ours = pose_figure(build_figure(plain), parameters)[body.assets.vertex_ids.numpy()]
    theirs = body(parameters).vertices[0].double().numpy()
    assert np.abs(ours - theirs).max() < 2e-5


def test_hair_and_clothes_follow_head_and_shoulders():
    figure = build_figure(exported_identity("viktor"))
    rest = true_parameters(exported_identity("viktor"))
    turned = rest.replace(
        head_pose=rest.head_pose + torch.tensor([[0.0, 0.5, 0.0]]), jaw_pose=torch.tensor([[0.3, 0.0, 0.0]])
    )
    moved = np.linalg.norm(pose_figure(figure, turned) - pose_figure(figure, rest), axis=1)
    hair = np.unique(figure.faces[figure.face_parts == FigurePart.HAIR])
    clothes = np.unique(figure.faces[figure.face_parts == FigurePart.CLOTHES])
    assert moved[hair].mean() > 0.05
    low = clothes[figure.rest[clothes, 1] < np.quantile(figure.rest[clothes, 1], 0.25)]
    assert moved[low].max() < 1e-6
    assert (figure.weights[hair, 3:] == 0).all(), "hair hangs on jaw or eyes"


def test_placement_stays_within_its_limits():
    for seed in range(5):
        parameters = true_parameters(sample_identity(seed))
        assert 2.78 * 0.969 < float(parameters.scale) < 2.78 * 1.031
        assert parameters.head_pose.abs().max() <= 0.06 and parameters.neck_pose.abs().max() <= 0.05


@pytest.mark.parametrize("garment", sorted(GARMENTS))
def test_no_skin_pokes_through_clothes(garment):
    body = build_mannequin()
    cameras = orbit_cameras([0, 90, 180, -90], [0, 10, 0, -5], 256, target=(0.0, -0.1, 0.0), fov_degrees=26.0)
    center = (body.vertices[body.faces].mean(axis=1) - template_origin()) * 1e3
    azimuth = np.degrees(np.arctan2(center[:, 0], center[:, 2] + 30))
    covered = neckline(GARMENTS[garment], azimuth) - center[:, 1] > 12.0
    for seed in (100, 101):
        identity = sample_identity(seed, garment=garment, hair_style="bald")
        figure = build_figure(identity)
        vertices = torch.from_numpy(pose_figure(figure, true_parameters(identity))).float()
        face = rasterize_mesh(vertices, torch.from_numpy(figure.faces), cameras).face_id.numpy()
        skin = (face >= 0) & (face < figure.num_body_faces)
        assert covered[face[skin]].sum() <= 4

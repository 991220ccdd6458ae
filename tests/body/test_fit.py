from __future__ import annotations

import dataclasses
import functools
import re

import pytest
import torch

from animportrait3d_core.body.fit import BodyFitSettings, _check_limits, fit_body
from animportrait3d_core.body.fit_start import start_from_mesh
from animportrait3d_core.body.fit_terms import body_regions
from animportrait3d_core.body.landmarks import Landmarks, mean_landmark_error
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.landmarks import NUM_FACE_LANDMARKS
from animportrait3d_core.meshes import Mesh, compact, vertex_normals
from animportrait3d_core.render import rasterize_mesh
from animportrait3d_core.views import Views

FRONT = torch.tensor([1.0, 1, 0, 0, 0, 0, 1, 1])
QUICK = BodyFitSettings(
    max_points=800, place_iterations=6, turn_iterations=4, shape_iterations=10, view_count=4, view_size=64
)


@dataclasses.dataclass(frozen=True)
class Subject:
    mesh: Mesh
    views: Views
    landmarks: torch.Tensor
    parameters: BodyParameters


def views_of(mesh: Mesh, size: int = 96) -> Views:
    cameras = orbit_cameras([0, 45, 90, 150, 210, 270, 315, 0], [0, 10, 0, 0, 0, 0, -10, 30], size)
    masks = (rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id >= 0).float()
    return Views(masks[..., None].expand(-1, -1, -1, 3), masks, cameras, torch.ones(3))


def make_subject(body, seed: int, detail: bool = True, dressed: bool = True) -> Subject:
    """A person of random shape, place and pose, with shape outside the fitted basis, a hair cap and a coat."""
    from animportrait3d_core.embedded.mannequin import identity_skin_displacement

    generator = torch.Generator().manual_seed(seed)
    neutral = body.neutral_parameters()
    parameters = neutral.replace(
        betas=torch.randn(1, body.num_betas, generator=generator).clamp(-2, 2),
        neck_pose=0.06 * torch.randn(1, 3, generator=generator),
        head_pose=0.06 * torch.randn(1, 3, generator=generator),
        scale=2.78 + 0.08 * torch.randn(1, 1, generator=generator),
    )
    eyes = body(neutral).landmarks[0, NUM_FACE_LANDMARKS:].mean(0)
    shift = 0.02 * torch.randn(1, 3, generator=generator)
    parameters = parameters.replace(translation=torch.tensor([[0, 0.42, 0.17]]) + shift - parameters.scale * eyes)
    shape = body.shape(parameters.betas)
    if detail:
        outside = torch.from_numpy(identity_skin_displacement(seed)).float()
        shape = dataclasses.replace(shape, vertices=shape.vertices + outside)
    output = body(parameters, shape)
    vertices, faces = output.vertices[0], body.faces_outward
    parts = [(vertices, faces)]
    if dressed:
        normals = vertex_normals(vertices, faces)
        wave = 0.6 + 0.4 * torch.sin(40 * vertices[:, :1] + 30 * vertices[:, 1:2])
        parts += [
            (vertices + depth * wave * normals, faces[body.region_faces(name)])
            for name, depth in (("scalp", 0.06), ("body", 0.03))
        ]
    starts = [0, len(vertices), 2 * len(vertices)]
    joined = torch.cat([part_faces + start for (_, part_faces), start in zip(parts, starts)])
    mesh = compact(Mesh(torch.cat([v for v, _ in parts]), joined), torch.ones(len(joined), dtype=torch.bool))
    return Subject(mesh, views_of(mesh), output.landmarks[0, :NUM_FACE_LANDMARKS], parameters)


@pytest.fixture(scope="module")
def person(mannequin_body):
    return functools.cache(lambda seed, detail=True, dressed=True: make_subject(mannequin_body, seed, detail, dressed))


def error_of(fit, subject: Subject) -> float:
    return mean_landmark_error(fit.body(fit.parameters).landmarks[0], subject.landmarks)


def test_recovers_a_body_inside_its_own_space(mannequin_body, person):
    subject = person(1, detail=False, dressed=False)
    fit = fit_body(
        subject.views, mannequin_body, subject.mesh, settings=dataclasses.replace(QUICK, shape_iterations=20)
    )
    assert error_of(fit, subject) < 0.005
    assert float(fit.parameters.scale) == pytest.approx(float(subject.parameters.scale), rel=0.01)
    assert float((fit.parameters.neck_pose + fit.parameters.head_pose
                  - subject.parameters.neck_pose - subject.parameters.head_pose).abs().max()) < 0.05  # fmt: skip
    assert fit.metrics["surface_rms"] < 0.002
    assert fit.metrics["silhouette_iou"] > 0.95


@pytest.mark.parametrize("seed", [2, 5])
def test_landmark_error_is_under_two_percent_with_landmarks(mannequin_body, person, seed):
    """The subject's detail outside the basis alone is 2.2 % of the distance between the eyes."""
    subject = person(seed)
    fit = fit_body(subject.views, mannequin_body, subject.mesh, Landmarks(points_3d=subject.landmarks), QUICK)
    assert error_of(fit, subject) < 0.02
    assert fit.metrics["landmark_error"] == pytest.approx(error_of(fit, subject), rel=0.1)
    assert fit.metrics["silhouette_inside"] > 0.95


def test_landmark_error_stays_near_without_landmarks(mannequin_body, person):
    errors = [error_of(fit_body(s.views, mannequin_body, s.mesh, settings=QUICK), s) for s in map(person, (2, 5))]
    assert sum(errors) / len(errors) < 0.022
    assert max(errors) < 0.03


def under_long_hair(subject: Subject) -> tuple[Mesh, torch.Tensor]:
    """The subject's mesh with the sides of head and jaw moved 0.02 outward, as under hair; which faces [F] moved."""
    mesh, jaw = subject.mesh, subject.landmarks[:17]
    sideways = (mesh.vertices[:, 0] - jaw[8, 0]).abs() / (jaw[:, 0] - jaw[8, 0]).abs().max()
    hidden = (sideways > 0.7) & (mesh.vertices[:, 1] > jaw[8, 1])
    vertices = mesh.vertices + 0.02 * hidden[:, None] * vertex_normals(mesh.vertices, mesh.faces)
    return Mesh(vertices, mesh.faces), hidden[mesh.faces].any(1)


@pytest.mark.parametrize("seed", [2, 5])
@pytest.mark.parametrize("with_landmarks", [False, True])
def test_known_hair_does_not_pull_the_jaw_outward(mannequin_body, person, seed, with_landmarks):
    subject = person(seed, dressed=False)
    mesh, hidden = under_long_hair(subject)
    landmarks = detected(subject) if with_landmarks else None
    blind, knowing = (
        fit_body(views_of(mesh), mannequin_body, mesh, landmarks, QUICK, covering=covering)
        for covering in (None, hidden)
    )
    assert error_of(knowing, subject) < (0.9 if with_landmarks else 0.7) * error_of(blind, subject)
    assert error_of(knowing, subject) < (0.015 if with_landmarks else 0.022)
    assert knowing.metrics["surface_rms"] < blind.metrics["surface_rms"]


def detected(subject: Subject, noise: float = 0.3) -> Landmarks:
    """Noisy detections in the four views from the front, in pixels of pictures where the eyes are 20 pixels apart."""
    pixels, _ = project(subject.views.cameras, subject.landmarks)
    pixels += noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    return Landmarks(points_2d=pixels, confidence=FRONT[:, None].expand(-1, NUM_FACE_LANDMARKS))


@pytest.mark.parametrize("seed", [2, 5])
def test_a_head_cut_at_the_neck_does_not_pull_the_shoulders_into_it(mannequin_body, person, seed):
    """As game heads are: the front of the neck a little longer than the nape."""
    subject = person(seed, dressed=False)
    below = subject.landmarks[8, 1] - subject.mesh.vertices[:, 1]
    kept = (below < 0.04 + 0.4 * (subject.mesh.vertices[:, 2] + 0.1).clamp(min=0))[subject.mesh.faces].all(1)
    head = compact(subject.mesh, kept)
    fit = fit_body(views_of(head), mannequin_body, head, detected(subject), QUICK)
    assert error_of(fit, subject) < 0.02
    assert float(fit.parameters.scale) == pytest.approx(float(subject.parameters.scale), rel=0.04)
    assert float(fit.parameters.neck_pose.abs().max()) < 0.25


def test_landmarks_of_pictures_place_the_body_without_a_mesh(mannequin_body, person):
    subject = person(5)
    fit = fit_body(subject.views, mannequin_body, None, detected(subject), QUICK)
    assert error_of(fit, subject) < 0.035
    assert "surface_rms" not in fit.metrics
    assert fit.metrics["landmark_reprojection"] < 0.03


def test_landmarks_may_be_of_other_views_than_the_silhouettes(mannequin_body, person):
    subject = person(2)
    close = orbit_cameras([-40, -15, 10, 35], [0, 10, -5, 15], 200, target=subject.landmarks.mean(0), fov_degrees=6)
    pixels, _ = project(close, subject.landmarks)
    fit = fit_body(subject.views, mannequin_body, None, Landmarks(points_2d=pixels, cameras=close), QUICK)
    assert fit.metrics["landmark_error"] < 0.02
    assert mean_landmark_error(mannequin_body(fit.parameters).landmarks[0], subject.landmarks) < 0.02
    with pytest.raises(InvalidInput, match="landmarks of 4 views, expected 8"):
        fit_body(subject.views, mannequin_body, None, Landmarks(points_2d=pixels), QUICK)


def test_a_few_wrong_landmarks_do_no_harm(mannequin_body, person):
    subject = person(6)
    wrong = subject.landmarks.clone()
    wrong[60:64] += 0.15
    fit = fit_body(subject.views, mannequin_body, subject.mesh, Landmarks(points_3d=wrong), QUICK)
    assert error_of(fit, subject) < 0.02


@pytest.mark.parametrize("change", ["turned", "larger", "elsewhere"])
def test_finds_heads_that_are_placed_unlike_the_standard(mannequin_body, person, change):
    subject = person(6)
    turn = torch.tensor([[0.94, 0.0, -0.342], [0, 1, 0], [0.342, 0, 0.94]])
    move = {
        "turned": lambda points: points @ turn,
        "larger": lambda points: 1.25 * points,
        "elsewhere": lambda points: points + torch.tensor([0.05, 0.12, -0.06]),
    }[change]
    moved = Mesh(move(subject.mesh.vertices), subject.mesh.faces)
    target = dataclasses.replace(subject, mesh=moved, views=views_of(moved), landmarks=move(subject.landmarks))
    assert error_of(fit_body(target.views, mannequin_body, target.mesh, settings=QUICK), target) < 0.03


@pytest.mark.parametrize("shift", [0.0, 0.12, -0.1])
def test_the_search_starts_near_the_face(mannequin_body, person, shift):
    """The grid steps by 0.04 in height and 0.08 in depth; sideways the portrait is centred, and steps do the rest."""
    subject = person(2)
    moved = Mesh(subject.mesh.vertices + torch.tensor([0.0, shift, 0.0]), subject.mesh.faces)
    regions = body_regions(mannequin_body, 800)
    starts = start_from_mesh(mannequin_body, mannequin_body.neutral_parameters(), moved, regions)
    assert len(starts) == 3
    true_eyes = subject.landmarks[36:48].mean(0) + torch.tensor([0.0, shift, 0.0])
    found = mannequin_body(starts[0]).landmarks[0, 36:48].mean(0)
    assert float((found - true_eyes).abs()[1:].max()) < 0.05


def test_same_seed_same_fit(mannequin_body, person):
    subject = person(2)
    short = dataclasses.replace(QUICK, place_iterations=3, turn_iterations=2, shape_iterations=3, allow_poor_fit=True)
    first = fit_body(subject.views, mannequin_body, subject.mesh, settings=short)
    with torch.inference_mode():
        second = fit_body(subject.views, mannequin_body, subject.mesh, settings=short)
    other = fit_body(
        subject.views, mannequin_body, subject.mesh, settings=short, generator=torch.Generator().manual_seed(9)
    )
    assert all(torch.equal(value, getattr(second.parameters, name)) for name, value in first.parameters.items())
    assert not torch.equal(first.parameters.betas, other.parameters.betas)
    assert not second.parameters.betas.is_inference()
    assert first.metrics == second.metrics


def test_limits_on_the_unknowns_are_kept(mannequin_body, person):
    subject = person(2)
    few = dataclasses.replace(QUICK, fit_expression=False, num_betas=3)
    fitted = fit_body(subject.views, mannequin_body, subject.mesh, settings=few).parameters
    assert int(fitted.betas.count_nonzero()) == 3
    assert int(fitted.expression.count_nonzero()) == 0
    for name in ("global_orient", "jaw_pose", "left_eye_pose", "right_eye_pose", "eyelids"):
        assert int(getattr(fitted, name).count_nonzero()) == 0, name


def test_progress_counts_every_step_and_may_end_the_fit(mannequin_body, person):
    subject = person(2)
    short = dataclasses.replace(QUICK, place_iterations=2, turn_iterations=1, shape_iterations=2, allow_poor_fit=True)
    seen = []
    fit_body(
        subject.views, mannequin_body, subject.mesh, settings=short,
        progress=lambda step, total, preview: seen.append((step, total)),
    )  # fmt: skip
    assert seen == [(step, 9) for step in range(1, 10)]

    def cancel(step, total, preview):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_body(subject.views, mannequin_body, subject.mesh, settings=short, progress=cancel)


def sphere_mesh() -> Mesh:
    import trimesh

    ball = trimesh.creation.icosphere(3, 0.3)
    return Mesh(torch.from_numpy(ball.vertices + [0, 0.4, 0]).float(), torch.from_numpy(ball.faces).long())


def test_a_fit_beyond_its_limits_says_which_term_and_which_view():
    poor = {
        "surface_rms": 0.01,
        "landmark_error": 0.12,
        "landmark_reprojection": 0.09,
        "worst_view": 7.0,
        "worst_view_reprojection": 0.31,
    }
    with pytest.raises(InvalidInput, match=r"landmark_error is 0.120 .* at most 0.100.* View 7 .*0.310"):
        _check_limits(poor, BodyFitSettings())
    with pytest.raises(InvalidInput, match=r"landmark_reprojection is 0.090 .* at most 0.080"):
        _check_limits(poor | {"landmark_error": 0.07}, BodyFitSettings(max_landmark_error=0.08))
    with pytest.raises(InvalidInput, match=r"surface_rms is 0.010 .* at most 0.009: .*error_limit"):
        _check_limits(poor, BodyFitSettings(max_surface_error=0.009))
    _check_limits(poor, BodyFitSettings(allow_poor_fit=True))
    _check_limits(poor | {"landmark_error": 0.1}, BodyFitSettings())


def test_the_limit_of_the_surface_is_asked_after_the_offsets_where_landmarks_show_a_face(mannequin_body, person):
    subject = person(2)
    landmarks = Landmarks(points_3d=subject.landmarks)
    metrics = fit_body(subject.views, mannequin_body, subject.mesh, landmarks, QUICK).metrics
    before, after = metrics["surface_rms_before"], metrics["surface_rms"]
    assert after < 0.6 * before
    between = dataclasses.replace(QUICK, max_surface_error=(before + after) / 2)
    assert fit_body(subject.views, mannequin_body, subject.mesh, landmarks, between).metrics["surface_rms"] == after
    for refused in (
        dataclasses.replace(between, max_shape_error=between.max_surface_error),
        dataclasses.replace(between, personal_offsets=False),
        dataclasses.replace(between, max_surface_error=0.9 * after),
    ):
        with pytest.raises(InvalidInput, match="surface_rms is .* expected at most"):
            fit_body(subject.views, mannequin_body, subject.mesh, landmarks, refused)
    with pytest.raises(InvalidInput, match="surface_rms is .* expected at most"):
        fit_body(subject.views, mannequin_body, subject.mesh, settings=between)


def test_what_is_no_head_is_refused(mannequin_body, person):
    head = person(2).mesh
    backwards = Mesh(head.vertices * torch.tensor([-1.0, 1, -1]), head.faces)
    for mesh in (sphere_mesh(), backwards):
        with pytest.raises(InvalidInput, match="surface_rms is .* expected at most|diverged at step"):
            fit_body(views_of(mesh), mannequin_body, mesh, settings=QUICK)


def test_bad_input_is_named(mannequin_body, person):
    subject = person(2)
    views, mesh = subject.views, subject.mesh
    with pytest.raises(InvalidInput, match="neither mesh nor landmarks"):
        fit_body(views, mannequin_body)
    without = views.masks.clone()
    without[[2, 5]] = 0.4
    with pytest.raises(InvalidInput, match=r"2 of 8 views show no foreground \(numbers 2, 5, counted from 0\)"):
        fit_body(dataclasses.replace(views, masks=without), mannequin_body, mesh)
    broken = mesh.vertices.clone()
    broken[3] = torch.nan
    with pytest.raises(InvalidInput, match="mesh.vertices"):
        fit_body(views, mannequin_body, Mesh(broken, mesh.faces))
    with pytest.raises(InvalidInput, match="2 faces"):
        fit_body(views, mannequin_body, Mesh(mesh.vertices, mesh.faces[:2]))
    with pytest.raises(ShapeMismatch, match=r"`covering` has shape \[5\], expected \[2\d+\]"):
        fit_body(views, mannequin_body, mesh, covering=torch.ones(5, dtype=torch.bool))
    with pytest.raises(InvalidInput, match=r"0 of the mesh's \d+ faces are skin, .* at least 100 of skin"):
        fit_body(views, mannequin_body, mesh, covering=torch.ones(len(mesh.faces), dtype=torch.bool))
    covering = torch.ones(len(mesh.faces), dtype=torch.bool)
    covering[mesh.vertices[mesh.faces].mean(1)[:, 1].argsort()[:150]] = False  # the chest alone is bare
    with pytest.raises(InvalidInput, match="surface_rms is inf .* does not lie on the mesh"):
        fit_body(views, mannequin_body, mesh, settings=QUICK, covering=covering)
    with pytest.raises(InvalidInput, match="landmarks of 3 views, expected 8"):
        fit_body(views, mannequin_body, mesh, Landmarks(points_2d=torch.zeros(3, 68, 2)))


def test_landmarks_in_space_that_cannot_be_right_are_named(mannequin_body, person):
    subject = person(2)

    def fit(points: torch.Tensor):
        return fit_body(subject.views, mannequin_body, subject.mesh, Landmarks(points_3d=points), QUICK)

    with pytest.raises(InvalidInput, match="left and right exchanged"):
        fit(subject.landmarks * torch.tensor([-1.0, 1, 1]))
    with pytest.raises(InvalidInput, match="the landmarks are no face"):
        fit(subject.landmarks[torch.randperm(68, generator=torch.Generator().manual_seed(2))])
    with pytest.raises(InvalidInput, match=r"a face turned by 1[78]\d degrees"):
        fit(subject.landmarks * torch.tensor([-1.0, 1, -1]))


def bad_detections(subject: Subject) -> dict[str, Landmarks]:
    """Detections that cannot be right, by what is said of them."""
    pixels, _ = project(subject.views.cameras, subject.landmarks)
    one, few, none = torch.zeros(8, 68), torch.zeros(8, 68), torch.zeros(8, 68)
    one[3] = 1
    few[0, 20:23] = few[3, 20:23] = 1
    lower, _ = project(subject.views.cameras, subject.landmarks - torch.tensor([0.0, 0.3, 0.0]))
    return {
        "no face found in any of the 8 views": Landmarks(points_2d=pixels, confidence=none),
        r"in 1 of 8 views \(view 3\)": Landmarks(points_2d=pixels, confidence=one),
        "3 landmarks can be placed in space, expected at least 4 of 68": Landmarks(points_2d=pixels, confidence=few),
        "of 8 views with a face, [01] agree": Landmarks(
            points_2d=96 * torch.rand(8, 68, 2, generator=torch.Generator().manual_seed(0))
        ),
        "(surface_rms|landmark_error) is .* expected at most": Landmarks(points_2d=lower),  # on the neck
    }


def test_detections_that_cannot_be_right_are_left_out(mannequin_body, person):
    """The surface is good: the result is that of a fit which has never seen them, and says so."""
    subject = person(2)
    blind = fit_body(subject.views, mannequin_body, subject.mesh, settings=QUICK)
    for reason, landmarks in bad_detections(subject).items():
        fit = fit_body(subject.views, mannequin_body, subject.mesh, landmarks, QUICK)
        assert torch.equal(fit.parameters.betas, blind.parameters.betas), reason
        (warning,) = fit.warnings
        assert re.search(f"the landmarks are left out, .*{reason}", warning)
        assert "landmark_error" not in fit.metrics


def test_without_a_good_surface_bad_detections_end_the_fit(mannequin_body, person):
    subject = person(2)
    *_, (reason, landmarks) = ((key, value) for key, value in bad_detections(subject).items() if "agree" in key)
    with pytest.raises(InvalidInput, match=reason):
        fit_body(subject.views, mannequin_body, None, landmarks, QUICK)
    strict = dataclasses.replace(QUICK, max_surface_error=1e-4)
    with pytest.raises(InvalidInput, match=f"surface_rms is .* The landmarks had been left out: .*{reason}"):
        fit_body(subject.views, mannequin_body, subject.mesh, landmarks, strict)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 3])
def test_embedded_identities_are_fitted_within_two_percent(mannequin_body, seed):
    from animportrait3d_core.embedded.identities import sample_identity, true_parameters
    from animportrait3d_core.embedded.identities.export import true_landmarks
    from animportrait3d_core.embedded.identities.figure import build_figure
    from animportrait3d_core.embedded.identities.rendering import pose_figure

    identity = sample_identity(seed)
    figure = build_figure(identity)
    vertices = torch.from_numpy(pose_figure(figure, true_parameters(identity))).float()
    mesh = Mesh(vertices, torch.from_numpy(figure.faces).long())
    truth = true_landmarks(identity)
    blind = fit_body(views_of(mesh), mannequin_body, mesh)
    guided = fit_body(views_of(mesh), mannequin_body, mesh, Landmarks(points_3d=truth))
    assert mean_landmark_error(guided.body(guided.parameters).landmarks[0], truth) < 0.02
    assert mean_landmark_error(blind.body(blind.parameters).landmarks[0], truth) < 0.025

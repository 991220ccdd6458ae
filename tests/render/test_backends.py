"""The choice of a back-end, what the user is told about it, and agreement of its parts with other libraries."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import intrinsics, orbit_cameras
from animportrait3d_core.errors import InvalidInput, MissingExtension
from animportrait3d_core.gaussians import SH_C0
from animportrait3d_core.render import available_backends, backends, gaussian_device, gsplat_gaussians, rasterize_mesh
from animportrait3d_core.render.benchmark import BenchmarkSettings, benchmark_rasterizers
from animportrait3d_core.render.gaussians import _checked_scene
from animportrait3d_core.render.nvdiffrast_mesh import clip_positions
from animportrait3d_core.render.threads import run_parallel
from animportrait3d_core.render.torch_projection import project_gaussians, spherical_harmonics_basis
from tests.render.conformance import splat_scene

ROOT = Path(__file__).resolve().parents[2]


def test_available_backends_say_what_runs_and_why_not():
    found = {backend.name: backend for backend in available_backends()}
    assert list(found) == [
        "gaussians/gsplat",
        "gaussians/numba",
        "gaussians/torch",
        "mesh/numba",
        "mesh/torch",
        "mesh/nvdiffrast",
    ]
    assert found["gaussians/torch"].usable and found["mesh/torch"].verified and found["gaussians/gsplat"].verified
    nvdiffrast = found["mesh/nvdiffrast"]
    assert not nvdiffrast.verified and "1/16 pixel" in nvdiffrast.reason and "non-commercial" in nvdiffrast.reason
    assert all(backend.reason for backend in found.values() if not backend.usable)


@pytest.mark.parametrize("kind", ["gaussians", "mesh"])
def test_without_numba_torch_is_used_and_the_user_told_once(kind, monkeypatch, caplog):
    monkeypatch.setattr(backends, "_installed", lambda package: False)
    monkeypatch.setattr(backends, "_told", set())
    with caplog.at_level(logging.WARNING, logger="animportrait3d.render"):
        for _ in range(3):
            assert backends.choose_backend(kind, "auto", torch.device("cpu"), torch.float32) == "torch"
    assert len(caplog.records) == 1
    assert "Numba is not installed (pip install numba)" in caplog.text and f"rasterize_{kind}" in caplog.text
    with pytest.raises(MissingExtension, match="pip install numba"):
        backends.choose_backend(kind, "numba", torch.device("cpu"), torch.float32)


def test_gpu_tensors_without_gsplat_are_announced_once(monkeypatch, caplog):
    monkeypatch.setattr(backends, "_told", set())
    monkeypatch.setattr(backends, "cuda_problem", lambda package, hint: f"{package} is not installed: {hint}")
    with caplog.at_level(logging.WARNING, logger="animportrait3d.render"):
        for _ in range(2):
            chosen = backends.choose_backend("gaussians", "auto", torch.device("cuda"), torch.float32)
    assert chosen in ("numba", "torch")
    assert caplog.text.count("gsplat is not installed: pip install 'gsplat>=1.5'") == 1


def test_gaussians_stay_on_the_cpu_unless_gsplat_is_ready(monkeypatch, caplog):
    monkeypatch.setattr(backends, "_told", set())
    monkeypatch.setattr(backends, "cuda_problem", lambda package, hint: f"{package} is not installed: {hint}")
    cpu = torch.device("cpu")
    with caplog.at_level(logging.WARNING, logger="animportrait3d.render"):
        assert [gaussian_device(wanted) for wanted in ("cpu", "mps", torch.device("cpu"))] == [cpu] * 3
        assert not caplog.records
        assert gaussian_device("cuda:1") == cpu == gaussian_device("cuda")
    assert caplog.text.count("gsplat is not installed") == 1
    # Installed, but never compiled: that takes minutes and belongs into the health check.
    monkeypatch.setattr(backends, "_told", set())
    monkeypatch.setattr(backends, "cuda_problem", lambda package, hint: "")
    monkeypatch.setattr(gsplat_gaussians, "_is_compiled", lambda: False)
    with caplog.at_level(logging.WARNING, logger="animportrait3d.render"):
        assert gaussian_device("cuda") == cpu
    assert caplog.text.count("gsplat is not compiled yet; `animportrait3d doctor` does it") == 1
    monkeypatch.setattr(gsplat_gaussians, "_is_compiled", lambda: True)
    monkeypatch.setattr(gsplat_gaussians, "compile_extension", lambda: "")
    assert gaussian_device("cuda:1") == torch.device("cuda:1")


def test_import_is_light():
    """Importing the package loads neither Numba nor a CUDA library; importing its twin does not need Numba at all."""
    code = (
        "import json, sys; sys.modules['numba'] = None; import torch; import animportrait3d_core.render as r;"
        "from animportrait3d_core.cameras import orbit_cameras as o; n = torch.rand(5, 3);"
        "i = r.rasterize_gaussians(n, torch.rand(5, 4), n * 0.1, n[:, 0], n, o([0.], [0.], 8), backend='torch');"
        "m = r.rasterize_mesh(n, torch.tensor([[0, 1, 2]]), o([0.], [0.], 8), backend='torch');"
        "print(json.dumps([list(i.color.shape), list(m.face_id.shape), 'gsplat' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, 8, 8, 3], [1, 8, 8], False]


def test_unknown_mesh_back_end_is_named():
    with pytest.raises(InvalidInput, match="unknown backend 'gsplat'; choose one of auto, numba, torch, nvdiffrast"):
        rasterize_mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), orbit_cameras([0.0], [0.0], 8), backend="gsplat")


def test_run_parallel_covers_every_task_once_and_passes_errors_on():
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for count in (0, 1, 2, 7, 100):
                seen = np.zeros(count, np.int64)

                def kernel(array: np.ndarray, begin: int, end: int) -> None:
                    array[begin:end] += 1

                run_parallel(kernel, count, seen)
                assert (seen == 1).all()

            def broken(begin: int, end: int) -> None:
                raise ValueError(f"from {begin}")

            with pytest.raises(ValueError, match="from"):
                run_parallel(broken, 10)
    finally:
        torch.set_num_threads(before)


def test_spherical_harmonics_match_scipy():
    """The real basis of 3DGS: sqrt(2) (-1)^m-less real and imaginary parts, ordered by degree and order."""
    special = pytest.importorskip("scipy.special")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("scipy < 1.15 has no sph_harm_y")
    directions = torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    basis = spherical_harmonics_basis(directions, 16).numpy()
    x, y, z = directions.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    column = 0
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = special.sph_harm_y(degree, abs(order), polar, azimuth)
            part = value.imag if order < 0 else value.real
            expected = part * (math.sqrt(2.0) if order else 1.0)
            # scipy's functions carry the Condon-Shortley phase, which 3DGS keeps.
            np.testing.assert_allclose(basis[:, column], expected, atol=1e-12, err_msg=f"l={degree} m={order}")
            column += 1
    assert basis[0, 0] == pytest.approx(SH_C0)


def test_projection_matches_gsplat():
    """Our torch projection against gsplat's own reference, which runs on the CPU, in float64."""
    pytest.importorskip("gsplat")
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics

    scene = splat_scene(200, seed=4)
    shape = {"quats": scene.quats, "scales": scene.scales, "opacities": scene.opacities}
    checked = _checked_scene(scene.means, shape, scene.colors, scene.cameras, None, None)
    ours = project_gaussians(checked)
    covariance, _ = _quat_scale_to_covar_preci(scene.quats, scene.scales, True, False, False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        scene.means, covariance, checked.world_to_camera, checked.K, checked.width, checked.height
    )
    shown = ours.radii > 0
    assert int(shown.sum()) > 200 and bool((radii.amax(-1)[shown] > 0).all())
    torch.testing.assert_close(ours.means2d[shown], means2d[shown], atol=1e-9, rtol=0)
    torch.testing.assert_close(ours.depths[shown], depths[shown], atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.conics[shown], conics[shown], atol=1e-9, rtol=1e-9)
    directions = torch.nn.functional.normalize(scene.means, dim=-1)
    colors = _spherical_harmonics(1, directions, scene.colors)
    basis = spherical_harmonics_basis(directions, 4)
    torch.testing.assert_close((basis[..., None] * scene.colors).sum(1), colors, atol=1e-9, rtol=0)


def test_nvdiffrast_clip_positions_are_opengl():
    """Pixel (0, 0)'s corner maps to (-1, -1), the opposite one to (1, 1), the near plane to -1."""
    K = intrinsics(60.0, 40, 24)[None].double()
    focal = float(K[0, 0, 0])
    corners = torch.tensor([[-20.0, -12.0, focal], [20.0, 12.0, focal]], dtype=torch.float64)[None] / focal
    clip = clip_positions(torch.cat([corners, corners * 0.01], dim=1), K, 40, 24)
    ndc = clip[..., :3] / clip[..., 3:]
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(ndc[0, :, :2], expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(ndc[0, 2:, 2], torch.tensor([-1.0, -1.0], dtype=torch.float64), atol=1e-7, rtol=0)
    assert (ndc[0, :2, 2] < 1).all()


def test_benchmark_reports_every_row():
    settings = BenchmarkSettings(gaussians=(50,), gaussian_sizes=(16, 20), faces=(60,), mesh_sizes=(16,), repeats=2)
    heard = []
    rows = benchmark_rasterizers(settings, report=heard.append)
    assert [row.name for row in rows] == [
        "50 Gaussians, SH 0, 16 x 16",
        "50 Gaussians, SH 0, 20 x 20",
        "50 faces, 6 channels, 16 x 16",
    ]
    assert heard == rows and all(row.total > 0 and min(row.stages.values()) > 0 for row in rows)
    assert list(rows[-1].stages) == ["raster", "interpolate", "antialias", "backward"]

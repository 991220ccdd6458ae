"""All formats that are read from files of users, each through the function that its node or command calls."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

from animportrait3d_core.animation.files import ReadSettings, files_of_motion, read_motion
from animportrait3d_core.avatar.io import load_avatar
from animportrait3d_core.body import reader
from animportrait3d_core.body.assets import load_body_assets
from animportrait3d_core.body.landmark_files import read_landmarks
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.export.ply import read_rigged_ply
from animportrait3d_core.mesh_files import load_mesh_with_report
from animportrait3d_core.mesh_files.companions import companion_files
from animportrait3d_core.networks import load_network
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait, read_generator
from animportrait3d_core.surface.color_field import load_color_field
from tests.fuzz import mesh_seeds, model_seeds, motion_seeds, network_seeds
from tests.fuzz.format import Format


def read_mesh(path: Path) -> None:
    """As the node does: the stamps of the files beside it first, then the mesh."""
    companion_files(path)
    mesh, report = load_mesh_with_report(path)
    assert torch.isfinite(mesh.vertices).all() and len(mesh.faces) > 0
    assert 0 <= int(mesh.faces.min()) <= int(mesh.faces.max()) < len(mesh.vertices)
    for colors in (mesh.vertex_colors, mesh.texture):
        assert colors is None or bool(((colors >= 0) & (colors <= 1)).all())
    assert mesh.corner_uvs is None or torch.isfinite(mesh.corner_uvs).all()
    report.summary()


def read_body(path: Path) -> None:
    with mock.patch.object(reader, "MIN_VERTICES", model_seeds.VERTICES):  # so that whole files are small
        assert set(reader.read_body_file(path)) == set(reader.BODY_ARRAYS)


def read_avatar(path: Path) -> None:
    """With the body at hand, or the file's own; posed once, since a file that loads must also pose."""
    licensed = b"assets.faces" not in path.read_bytes()
    avatar = load_avatar(path, model_seeds.body(False) if licensed else None)
    avatar.body(avatar.parameters)


def read_avatar_table(path: Path) -> None:
    body = model_seeds.body()
    read_rigged_ply(path, body, body.neutral_parameters())


def read_field(path: Path) -> None:
    assert torch.isfinite(load_color_field(path)(torch.linspace(0, 1, 12).reshape(4, 3))).all()


def read_checkpoint(path: Path) -> None:
    load_trigrid_portrait(path, model_seeds.generator_of(model_seeds.portrait()))


def read_decoder(path: Path) -> None:
    generator = read_generator(path)
    generator.decoder, generator.to_rgb  # noqa: B018


def read_network(path: Path) -> None:
    load_network(path, "landmarks" if b"landmarks" in path.read_bytes() else "parts")


def read_guidance(path: Path) -> None:
    load_guidance(GuidanceFiles(path.parent, controlnet=path.parent / "controlnet"))


def read_any_motion(path: Path) -> None:
    """As the node does, for a body of few vertices; one frame is posed, since a motion that loads must also move."""
    body = model_seeds.body()
    settings = ReadSettings(expressions="always", whole_folder=path.parent.name == "flame_param", follow=True)
    files_of_motion(path, settings.whole_folder)
    loaded = read_motion(path, body, body.neutral_parameters(), settings)
    assert all(bool(torch.isfinite(value).all()) for value in loaded.motion.parameters.to_tensors().values())
    assert torch.isfinite(body(loaded.motion.parameters[-1]).vertices).all() and loaded.motion.fps > 0


FORMATS = (
    Format("obj", mesh_seeds.obj_seeds, read_mesh),
    Format("ply-ascii", mesh_seeds.ply_ascii_seeds, read_mesh),
    Format("ply-binary", mesh_seeds.ply_binary_seeds, read_mesh),
    Format("glb", mesh_seeds.glb_seeds, read_mesh),
    Format("gltf", mesh_seeds.gltf_seeds, read_mesh),
    Format("stl", mesh_seeds.stl_seeds, read_mesh),
    Format("off", mesh_seeds.off_seeds, read_mesh),
    Format("body-npz", model_seeds.body_npz_seeds, read_body),
    Format("body-pkl", model_seeds.body_pickle_seeds, read_body),
    Format("body-zip", model_seeds.body_zip_seeds, read_body),
    Format("body-assets", model_seeds.body_assets_seeds, load_body_assets),
    Format("landmarks", model_seeds.landmark_seeds, read_landmarks),
    Format("avatar", model_seeds.avatar_seeds, read_avatar),
    Format("avatar-ply", model_seeds.rigged_ply_seeds, read_avatar_table),
    Format("trigrid", model_seeds.trigrid_seeds, load_trigrid_portrait),
    Format("trigrid-pth", model_seeds.trigrid_checkpoint_seeds, read_checkpoint),
    Format("generator", model_seeds.generator_seeds, read_decoder),
    Format("network", network_seeds.network_seeds, read_network),
    Format("guidance", network_seeds.guidance_seeds, read_guidance),
    Format("motion", motion_seeds.own_seeds, read_any_motion),
    Format("motion-npy", motion_seeds.authors_seeds, read_any_motion),
    Format("motion-npz", motion_seeds.flame_seeds, read_any_motion),
    Format("motion-folder", motion_seeds.folder_seeds, read_any_motion),
    Format("motion-csv", motion_seeds.csv_seeds, read_any_motion),
    Format("motion-json", motion_seeds.json_seeds, read_any_motion),
    Format("color-field", model_seeds.color_field_seeds, read_field),
    # Without its package a compressed file is refused at once, and there is nothing to try.
    *([Format("draco", mesh_seeds.draco_seeds, read_mesh)] if mesh_seeds.installed("DracoPy") else []),
    *([Format("meshopt", mesh_seeds.meshopt_seeds, read_mesh)] if mesh_seeds.installed("meshoptimizer") else []),
)

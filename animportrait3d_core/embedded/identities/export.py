"""Identities as mesh files: what a user's own static portrait would be. The light is baked into the colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...body.parameters import BodyParameters
from ...errors import InvalidInput
from ...files import cache_directory, made_files, write_json
from ...fingerprints import source_fingerprint
from ...landmarks import NUM_FACE_LANDMARKS
from ...mesh_files import save_mesh
from ...meshes import Mesh, sample_texture
from ..mannequin import build_mannequin
from .baking import baked_texture
from .figure import build_figure, figure_normals
from .identity import Identity, identity_from_prompt, true_parameters
from .refinement import split_faces
from .rendering import pose_figure, prepare_identity, scene_of
from .shading import default_lighting

# Name -> (prompt, seed, texture or vertex colours). No training set holds these seeds.
EXPORTED: dict[str, tuple[str, int, str]] = {
    "amara": (
        "a young woman, curly black hair, brown eyes, brown skin, arched black eyebrows, plum lipstick, teal sweater",
        910001,
        "texture",
    ),
    "viktor": (
        "a middle-aged man, short red hair, blue eyes, fair skin, thick red eyebrows, freckles, stubble, navy shirt",
        910002,
        "vertex colors",
    ),
}
PORTRAIT_NAMES = tuple(EXPORTED)
EXPORT_TEXTURE = 1024


def exported_identity(name: str) -> Identity:
    """The identity behind a name of `PORTRAIT_NAMES`."""
    if name not in EXPORTED:
        raise InvalidInput(f"exported_identity: no identity {name!r}, expected one of {', '.join(EXPORTED)}.")
    prompt, seed, _ = EXPORTED[name]
    return identity_from_prompt(prompt, seed)[0]


def identity_mesh(
    identity: Identity, parameters: BodyParameters | None = None, texture_size: int = EXPORT_TEXTURE
) -> Mesh:
    """One textured mesh in world space: skin, eyes, mouth, lashes, hair, clothes.

    parameters: one state; None is the portrait pose. The texture holds albedo times diffuse light of that pose, so the
    mesh is to be shown unlit.
    """
    prepared = prepare_identity(identity, texture_size)
    state = true_parameters(identity) if parameters is None else parameters[0]
    vertices = pose_figure(prepared.figure, state)
    normals = figure_normals(prepared.figure, vertices)
    texture = baked_texture(scene_of(prepared, vertices, normals, float(state.scale[0, 0])), default_lighting())
    return Mesh(
        torch.from_numpy(vertices).float(), torch.from_numpy(prepared.figure.faces),
        corner_uvs=torch.from_numpy(prepared.figure.corner_uvs), texture=torch.from_numpy(texture),
    )  # fmt: skip


def with_vertex_colors(mesh: Mesh) -> Mesh:
    """A textured identity mesh with vertex colours instead; the face is split finer first, eyes and lips twice."""
    body = build_mannequin()
    if mesh.corner_uvs is None or mesh.texture is None:
        raise InvalidInput("with_vertex_colors: the mesh has no texture to take colours from.")
    vertices, faces, uvs = mesh.vertices.double().numpy(), mesh.faces.numpy(), mesh.corner_uvs.double().numpy()
    chosen = np.zeros(len(faces), dtype=bool)
    regions = body.face_regions
    chosen[: len(body.faces)] = regions["face"] | regions["lips"] | regions["eye_region"] | regions["iris"]
    fine = np.zeros(len(faces), dtype=bool)
    fine[: len(body.faces)] = regions["lips"] | regions["eye_region"] | regions["iris"]
    vertices, faces, uvs, parent = split_faces(vertices, faces, uvs, chosen)
    vertices, faces, uvs, _ = split_faces(vertices, faces, uvs, fine[parent])
    corners = sample_texture(mesh.texture, torch.from_numpy(uvs).float())
    total = torch.zeros(len(vertices), 3).index_add(0, torch.from_numpy(faces.reshape(-1)), corners.reshape(-1, 3))
    count = torch.bincount(torch.from_numpy(faces.reshape(-1)), minlength=len(vertices)).clamp(min=1)
    return Mesh(
        torch.from_numpy(vertices).float(), torch.from_numpy(np.ascontiguousarray(faces)),
        vertex_colors=total / count[:, None],
    )  # fmt: skip


def true_landmarks(identity: Identity) -> torch.Tensor:
    """The 68 iBUG landmarks [68, 3] of the portrait pose in the world."""
    body = build_mannequin()
    vertices = pose_figure(build_figure(identity), true_parameters(identity))
    corners = vertices[body.faces[body.landmark_faces[:NUM_FACE_LANDMARKS]]]
    return torch.from_numpy(np.einsum("nk,nkc->nc", body.landmark_barycentric[:NUM_FACE_LANDMARKS], corners)).float()


def export_identities(output_dir: str | Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write `<name>.glb` and `<name>.json` (prompt and true landmarks, world space) for each name; returns all paths.

    The same code writes the same bytes. Raises `InvalidInput` for an unknown name.
    """
    folder = Path(output_dir)
    chosen = PORTRAIT_NAMES if names is None else tuple(names)
    identities = {name: exported_identity(name) for name in chosen}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, identity in identities.items():
        mesh = identity_mesh(identity)
        if EXPORTED[name][2] == "vertex colors":
            mesh = with_vertex_colors(mesh)
        written.append(save_mesh(mesh, folder / f"{name}.glb"))
        landmarks = [[round(float(x), 6) for x in point] for point in true_landmarks(identity)]
        path = folder / f"{name}.json"
        write_json(path, {"name": name, "prompt": EXPORTED[name][0], "landmarks": landmarks})
        written.append(path)
    return written


def code_version() -> str:
    """Short hash of the source that makes the identities: the cache key of everything made from them."""
    return source_fingerprint("embedded.identities")


def embedded_portrait_files(name: str, cache_dir: str | Path | None = None) -> tuple[Path, Path]:
    """Paths of an exported identity's GLB and JSON, written to the cache on first use.

    cache_dir: default `cache_directory()`; the files lie in a subfolder named by the version of the code.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_directory()
    folder = folder / "identities" / code_version()
    names = (f"{name}.glb", f"{name}.json")
    mesh, landmarks = made_files(folder, names, lambda: export_identities(folder, [name]))
    return mesh, landmarks

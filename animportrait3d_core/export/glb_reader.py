"""Reading back a GLB of ours: the head as a viewer would pose it, the splats, and the rig between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..avatar.model import RiggedAvatar
from ..errors import AnimPortraitError, InvalidInput
from ..files import require_file
from ..gaussians import Gaussians
from ..mesh_files.gltf_nodes import skinned_positions, world_transforms
from ..mesh_files.gltf_source import GltfSource, list_index
from ..mesh_files.parts import Notes
from ..mesh_files.report import LoadSettings
from .glb_splats import EXTENSION, RIG_ATTRIBUTES, RIG_VERSION, harmonics_names

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

_WHERE = "read_avatar_glb"


@dataclasses.dataclass(frozen=True)
class GlbHead:
    """The skinned head of a GLB, float64.

    positions: [n, 3] bind pose.  faces: [F, 3].  uvs: [n, 2], v down, or None.  joints: [n, 4] and weights: [n, 4].
    morphs: [K, n, 3] by morph_names.  clips: name -> (node, path) -> values [T, ...]; times: name -> [T] seconds.
    """

    source: GltfSource
    positions: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray | None
    joints: np.ndarray
    weights: np.ndarray
    morphs: np.ndarray
    morph_names: tuple[str, ...]
    clips: Mapping[str, Mapping[tuple[int, str], np.ndarray]]
    times: Mapping[str, np.ndarray]
    node: int

    def vertices(self, clip: str | None = None, frame: int = 0, weights: np.ndarray | None = None) -> np.ndarray:
        """Vertices [n, 3] that a viewer shows at a frame of a clip, or at rest; weights: [K] in place of the clip's."""
        nodes = [dict(node) for node in self.source.items("nodes")]
        mesh = self.source.items("meshes")[nodes[self.node]["mesh"]]
        shown = np.asarray(mesh.get("weights", []), dtype=np.float64)
        for (node, path), values in (self.clips[clip] if clip is not None else {}).items():
            if path == "weights":
                shown = values[frame]
            else:
                nodes[node][path] = values[frame]
        shown = shown if weights is None else weights
        moved = self.positions + np.einsum("k,knc->nc", shown, self.morphs)
        skin = nodes[self.node]["skin"]
        return skinned_positions(self.source, skin, moved, (self.joints, self.weights), world_transforms(nodes))[0]


@dataclasses.dataclass(frozen=True)
class GlbSplats:
    """The splats of a GLB: in the world at rest; relative to the triangles, with faces [N] and parts [N], or None."""

    world: Gaussians
    local: Gaussians | None
    binding: Tensor | None
    part_id: Tensor | None

    def on_body(self, body: BodyModel, parameters: BodyParameters) -> RiggedAvatar:
        """The avatar on the body and rest pose that it was exported from."""
        if self.local is None or self.binding is None or self.part_id is None:
            raise InvalidInput(f"{_WHERE}: the file holds splats without a rig, expected one with the head mesh.")
        return RiggedAvatar(self.local, self.binding, self.part_id, body, parameters)


@dataclasses.dataclass(frozen=True)
class GlbAvatar:
    """What a GLB of ours holds; head or splats may be None."""

    head: GlbHead | None
    splats: GlbSplats | None


def read_avatar_glb(path: str | Path) -> GlbAvatar:
    """Read a file of `write_avatar_glb`. Raises InvalidInput for a damaged one, or one that holds neither head nor
    splats."""
    path = require_file(_WHERE, path)
    try:
        source = GltfSource(path, LoadSettings(), Notes())
        return _avatar(source)
    except AnimPortraitError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"{_WHERE}: '{path}' is damaged or of another program ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def _avatar(source: GltfSource) -> GlbAvatar:
    head, splats = None, None
    for index, node in enumerate(source.items("nodes")):
        if "mesh" not in node:
            continue
        mesh = source.items("meshes")[list_index(node["mesh"])]
        primitive = mesh["primitives"][0]
        if EXTENSION in primitive.get("extensions", {}):
            splats = _splats(source, mesh, primitive["attributes"])
        elif "skin" in node:
            head = _head(source, index, mesh, primitive)
    if head is None and splats is None:
        raise InvalidInput(f"{_WHERE}: '{source.path}' holds neither a skinned mesh nor splats.")
    return GlbAvatar(head, splats)


def _head(source: GltfSource, node: int, mesh: dict[str, Any], primitive: dict[str, Any]) -> GlbHead:
    attributes = {name: source.accessor(index) for name, index in primitive["attributes"].items()}
    targets = [source.accessor(target["POSITION"]) for target in primitive.get("targets", [])]
    positions, names = attributes["POSITION"], tuple(mesh.get("extras", {}).get("targetNames", []))
    if len(names) != len(targets):
        raise InvalidInput(f"{_WHERE}: '{source.path}' names {len(names)} morph targets and has {len(targets)}.")
    clips, times = _clips(source, len(targets))
    return GlbHead(
        source=source,
        positions=positions,
        faces=source.accessor(primitive["indices"])[:, 0].reshape(-1, 3),
        uvs=attributes.get("TEXCOORD_0"),
        joints=attributes["JOINTS_0"],
        weights=attributes["WEIGHTS_0"],
        morphs=np.stack(targets) if targets else np.zeros((0, *positions.shape)),
        morph_names=names,
        clips=clips,
        times=times,
        node=node,
    )


def _clips(
    source: GltfSource, targets: int
) -> tuple[dict[str, dict[tuple[int, str], np.ndarray]], dict[str, np.ndarray]]:
    """Values and times of each animation by its name."""
    clips: dict[str, dict[tuple[int, str], np.ndarray]] = {}
    times: dict[str, np.ndarray] = {}
    for animation in source.items("animations"):
        tracks = clips.setdefault(str(animation["name"]), {})
        for channel in animation["channels"]:
            sampler = animation["samplers"][list_index(channel["sampler"])]
            path, values = channel["target"]["path"], source.accessor(sampler["output"])
            tracks[channel["target"]["node"], path] = values.reshape(-1, targets) if path == "weights" else values
            times[str(animation["name"])] = source.accessor(sampler["input"])[:, 0]
    return clips, times


def _splats(source: GltfSource, mesh: dict[str, Any], attributes: Mapping[str, int]) -> GlbSplats:
    def read(name: str) -> Tensor:
        return torch.from_numpy(source.finite(name, source.accessor(attributes[name]))).float()

    count = len([name for name in attributes if name.startswith(f"{EXTENSION}:SH_DEGREE_")])
    sh = torch.stack([read(name) for name in harmonics_names(count)], dim=1)
    opacity = read(f"{EXTENSION}:OPACITY")[:, 0]
    world = Gaussians(
        means=read("POSITION"),
        quats=read(f"{EXTENSION}:ROTATION")[:, [3, 0, 1, 2]],
        log_scales=read(f"{EXTENSION}:SCALE").log(),
        logit_opacities=torch.logit(opacity),
        sh=sh,
    )
    rig = mesh.get("extras", {}).get("animportrait3d_rig")
    if rig is None:
        return GlbSplats(world, None, None, None)
    if rig["version"] != RIG_VERSION:
        raise InvalidInput(f"{_WHERE}: '{source.path}' has a rig of version {rig['version']}, expected {RIG_VERSION}.")
    face, position, rotation, scale, part = (read(name) for name in RIG_ATTRIBUTES)
    local = dataclasses.replace(world, means=position, quats=rotation[:, [3, 0, 1, 2]], log_scales=scale.log())
    return GlbSplats(world, local, face[:, 0].round().long(), part[:, 0].round().to(torch.uint8))

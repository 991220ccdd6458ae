"""AP3D_PortraitFromMesh, AP3D_PortraitFromSplats, AP3D_LoadLandmarks: static heads from files, and landmarks."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from . import host
from .networks import EMBEDDED, chosen_network

if TYPE_CHECKING:
    from pathlib import Path

    from animportrait3d_core.body.landmarks import Landmarks, ViewDetector
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.meshes import Mesh
    from animportrait3d_core.portrait.preparation import PlacedHead
    from animportrait3d_core.portrait.protocol import Portrait

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
AXES = ["+x", "-x", "+y", "-y", "+z", "-z"]
COMPANION_SUFFIXES = (".mtl", ".bin", ".json", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tga", ".tif", ".tiff")
FILE_OPTION = host.input_file_option(MESH_SUFFIXES, host.Upload("upload mesh", "3d", COMPANION_SUFFIXES))

SPLAT_OPTION = host.input_file_option((".ply",), host.Upload("upload splats", "3d", ()))
NO_SPLATS = "(none)"
HAND_INPUTS = ("up", "face", "nod", "turn", "tilt", "scale", "move_x", "move_y", "move_z")


def portrait_files() -> list[str]:
    """The portraits that the pack makes itself, then the user's files."""
    from animportrait3d_core.embedded.identities import PORTRAIT_NAMES

    return [host.EMBEDDED_PREFIX + name for name in PORTRAIT_NAMES] + host.input_files(MESH_SUFFIXES)


def portrait_path(where: str, name: str) -> tuple[Path, Path]:
    """Path of the mesh, and of its landmark file beside it (which need not exist)."""
    if not name.startswith(host.EMBEDDED_PREFIX):
        path = host.input_file(where, name)
        return path, path.with_suffix(".json")
    from animportrait3d_core.embedded.identities import embedded_portrait_files

    return embedded_portrait_files(name[len(host.EMBEDDED_PREFIX) :])


def placed_head(
    mesh: Mesh, body: BodyModel, alignment: str, landmarks: Landmarks | None, by_hand: dict[str, Any]
) -> PlacedHead:
    """A mesh as the choice of `alignment` places it, turned outward, with what was seen of its body."""
    from animportrait3d_core.errors import InvalidInput
    from animportrait3d_core.portrait.alignment import HandAlignment, align_by_hand, align_by_landmarks
    from animportrait3d_core.portrait.head_target import head_target
    from animportrait3d_core.portrait.preparation import PlacedHead, body_note, find_largest_head, turned_outward

    target = head_target(body)
    if alignment == "find":
        head = find_largest_head(mesh, target, detect=_landmark_detector())
    elif alignment == "by hand":
        turns = (by_hand["nod"], by_hand["turn"], by_hand["tilt"])
        moves = (by_hand["move_x"], by_hand["move_y"], by_hand["move_z"])
        typed = HandAlignment(by_hand["up"], by_hand["face"], turns, by_hand["scale"], moves)
        head = PlacedHead(mesh, align_by_hand(typed))
    elif alignment == "none":
        head = PlacedHead(mesh, align_by_hand(HandAlignment()))
    elif landmarks is None or landmarks.points_3d is None:
        raise InvalidInput(
            "AP3D_PortraitFromMesh: alignment `landmarks` needs 3D landmarks; connect AP3D_LoadLandmarks, or "
            "choose `find` or `by hand`."
        )
    else:
        head = PlacedHead(mesh, align_by_landmarks(landmarks.points_3d, target))
    head = turned_outward(head, target)
    return dataclasses.replace(head, notes=(*head.notes, *body_note(head, target)))


def _landmark_detector() -> ViewDetector:
    """The pack's own network for landmarks, which is loaded when it is first asked."""
    from animportrait3d_core.networks import detect_landmarks

    network = functools.cache(lambda: chosen_network("AP3D_PortraitFromMesh", "landmarks", EMBEDDED))
    return lambda views: detect_landmarks(network(), views.images, None, views.normals)


class PortraitFromMesh:
    """A GLB, OBJ or PLY head becomes a portrait in the head frame."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Loads a static 3D head (GLB, glTF, OBJ, PLY, STL, OFF with a texture or vertex colours) and turns, scales and "
        "moves it into the head frame: by itself, by landmarks, or by hand. Models of ComfyUI's 3D nodes will "
        "do. Of whole bodies the bust is taken, of several heads the largest; things that are no head are refused."
    )
    SEARCH_ALIASES = ["load head", "GLB", "OBJ", "PLY", "3D scan", "head mesh", "import mesh", "upload mesh", "avatar"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PORTRAIT", "AP3D_MESH", "STRING", "IMAGE")
    RETURN_NAMES = ("portrait", "mesh", "prompt", "image")
    OUTPUT_TOOLTIPS = ("The portrait.", "Its surface in the head frame.", "Its description.", "It from four sides.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = portrait_files()
        turn = {"default": 0.0, "min": -180.0, "max": 180.0, "step": 0.5, "round": False, "advanced": True}
        move = {"default": 0.0, "min": -100.0, "max": 100.0, "step": 0.01, "round": False, "advanced": True}
        by_hand = "Only for the alignment `by hand`: "
        return {
            "required": {
                "file": (
                    files,
                    {"tooltip": "A head of the pack itself, or a mesh file in the input folder.", **FILE_OPTION},
                ),
                "body": ("AP3D_BODY", {"tooltip": "The body whose head the mesh is aligned to."}),
                "prompt": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": "Words that describe the subject; may stay empty."},
                ),
                "alignment": (
                    ["find", "landmarks", "by hand", "none"],
                    {
                        "default": "find",
                        "tooltip": "find: search axes, size and place. landmarks: by the points connected below. by "
                        "hand: by the axes below. none: the file is in the head frame already.",
                    },
                ),
                "shading": (
                    ["soft", "unlit"],
                    {
                        "default": "soft",
                        "tooltip": "soft: a gentle light shows the shape. unlit: as in the file, if that has colours.",
                    },
                ),
                "up": (
                    AXES,
                    {"default": "+y", "advanced": True, "tooltip": f"{by_hand}the file's axis that points up."},
                ),
                "face": (
                    AXES,
                    {"default": "+z", "advanced": True, "tooltip": f"{by_hand}the file's axis out of the face."},
                ),
                "nod": ("FLOAT", {**turn, "tooltip": f"{by_hand}degrees about the axis from ear to ear."}),
                "turn": ("FLOAT", {**turn, "tooltip": f"{by_hand}degrees about the vertical axis."}),
                "tilt": ("FLOAT", {**turn, "tooltip": f"{by_hand}degrees about the axis out of the face."}),
                "scale": (
                    "FLOAT",
                    {
                        "default": 2.78, "min": 1e-6, "max": 1e6, "step": 0.01, "round": False, "advanced": True,
                        "tooltip": f"{by_hand}head units per unit of the file; 2.78 for metres.",
                    },
                ),
                "move_x": ("FLOAT", {**move, "tooltip": f"{by_hand}to the subject's left, in head units."}),
                "move_y": ("FLOAT", {**move, "tooltip": f"{by_hand}upwards, in head units."}),
                "move_z": ("FLOAT", {**move, "tooltip": f"{by_hand}forwards, in head units."}),
            },
            "optional": {
                "landmarks": ("AP3D_LANDMARKS", {"tooltip": "Only for the alignment `landmarks`: points of the file."}),
                "model_3d": (
                    host.MODEL_3D,
                    {"tooltip": "In place of `file`: the model of ComfyUI's Load 3D, or a mesh of any 3D node."},
                ),
            },
        }  # fmt: skip

    @classmethod
    def IS_CHANGED(cls, file: str, **inputs: Any) -> str:
        from animportrait3d_core.mesh_files.companions import companion_files

        if file.startswith(host.EMBEDDED_PREFIX):
            return file
        return host.input_file_stamp("AP3D_PortraitFromMesh", file, companion_files)

    @host.plain_torch
    def execute(
        self,
        file: str,
        body: BodyModel,
        prompt: str,
        alignment: str,
        shading: Literal["soft", "unlit"],
        landmarks: Landmarks | None = None,
        model_3d: host.HostMesh | host.HostFile | None = None,
        **by_hand: Any,
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core import previews
        from animportrait3d_core.mesh_files import load_mesh_with_report
        from animportrait3d_core.portrait.alignment import HandAlignment, framing_warnings
        from animportrait3d_core.portrait.mesh import MeshRenderSettings, portrait_from_mesh
        from animportrait3d_core.portrait.reduction import reduce_faces

        if model_3d is None:
            mesh, report = load_mesh_with_report(portrait_path("AP3D_PortraitFromMesh", file)[0])
        else:
            mesh, report = host.mesh_of_host("AP3D_PortraitFromMesh", model_3d)
        reduced = reduce_faces(mesh)
        head = placed_head(reduced.mesh, body, alignment, landmarks, by_hand)
        placed, looks = head.alignment, MeshRenderSettings(shading=shading)
        portrait = portrait_from_mesh(head.mesh, placed, prompt, looks, report)
        host.warn("AP3D_PortraitFromMesh", report.warnings)
        doubts = [*([reduced.note] if reduced.note else []), *head.notes, *framing_warnings(portrait.surface)]
        if portrait.rendering.shading != shading:
            doubts.append(
                f"all of '{report.file_name}' has one colour, which `{shading}` would show as a flat shape: it gets "
                "soft light"
            )
        told = host.warn("AP3D_PortraitFromMesh", doubts)
        image = portrait.render(previews.preview_cameras(320), torch.ones(3)).images
        where = [] if alignment == "none" else [f"placed: {HandAlignment.of(placed).words()}"]
        lines = [report.summary(), *where, *told]
        ui = {**host.preview_images(image, "portrait"), "text": ["\n".join(lines)]}
        return host.node_result(portrait, portrait.mesh(), prompt, image, ui=ui)


class PortraitFromSplats:
    """A scan by Gaussian splatting becomes a portrait in the head frame."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Loads a head of 3D Gaussian splats (the PLY of 3DGS and of the usual apps), takes its surface out of the "
        "depths seen from all around, finds the head in it and moves the splats into the head frame. What stands "
        "around the head is left out."
    )
    SEARCH_ALIASES = ["3DGS", "Gaussian splatting", "splat PLY", "load splats", "scan", "radiance field"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PORTRAIT", "AP3D_MESH", "STRING", "IMAGE")
    RETURN_NAMES = ("portrait", "mesh", "prompt", "image")
    OUTPUT_TOOLTIPS = ("The portrait.", "Its surface in the head frame.", "Its description.", "It from four sides.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        shared = PortraitFromMesh.INPUT_TYPES()["required"]
        choices, options = shared["alignment"]
        required = {
            "file": (
                [NO_SPLATS, *host.input_files((".ply",))],
                {"default": NO_SPLATS, "tooltip": "A splat file in the input folder.", **SPLAT_OPTION},
            ),
            "body": shared["body"],
            "prompt": shared["prompt"],
            "alignment": ([name for name in choices if name != "landmarks"], options),
        }
        required |= {name: shared[name] for name in HAND_INPUTS}
        return {"required": required}

    @classmethod
    def IS_CHANGED(cls, file: str, **inputs: Any) -> str:
        return "" if file == NO_SPLATS else host.input_file_stamp("AP3D_PortraitFromSplats", file)

    @host.plain_torch
    def execute(self, file: str, body: BodyModel, prompt: str, alignment: str, **by_hand: Any) -> dict[str, Any]:
        import torch

        from animportrait3d_core import previews
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.export.ply import read_splat_ply
        from animportrait3d_core.portrait.alignment import HandAlignment, framing_warnings
        from animportrait3d_core.portrait.splats import portrait_from_splats, splat_surface

        where = "AP3D_PortraitFromSplats"
        if file == NO_SPLATS:
            raise InvalidInput(f"{where}: no file is chosen; upload a PLY of splats, or put it into the input folder.")
        gaussians = read_splat_ply(host.input_file(where, file), y_down=False)
        surface = splat_surface(gaussians, progress=host.ProgressBar())
        head = placed_head(surface, body, alignment, None, by_hand)
        portrait = portrait_from_splats(gaussians, head.alignment, prompt)
        mesh = portrait.mesh(progress=host.ProgressBar())
        told = host.warn(where, [*head.notes, *framing_warnings(mesh)])
        image = portrait.render(previews.preview_cameras(320), torch.ones(3)).images
        lines = [
            f"{file}: {len(gaussians)} splats, of which {len(portrait.gaussians)} are the portrait; its surface has "
            f"{len(mesh.faces)} faces",
            f"placed: {HandAlignment.of(head.alignment).words()}",
            *told,
        ]
        ui = {**host.preview_images(image, "portrait"), "text": ["\n".join(lines)]}
        return host.node_result(portrait, mesh, prompt, image, ui=ui)


class LoadLandmarks:
    """The 68 landmarks of a head, from the file beside its mesh."""

    CATEGORY = "AnimPortrait3D/portrait"
    DESCRIPTION = (
        "Reads 68 facial landmarks (iBUG order) in the coordinates of a mesh file, from the JSON of the same name: "
        '{"landmarks": [[x, y, z], ...]}. Connect a portrait to have them in its head frame.'
    )
    SEARCH_ALIASES = ["keypoints", "iBUG 68", "face landmarks", "facial landmarks", "68 points"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_LANDMARKS",)
    RETURN_NAMES = ("landmarks",)
    OUTPUT_TOOLTIPS = ("The 68 landmarks in space.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "file": (portrait_files(), {"tooltip": "The mesh whose landmark file is read.", **FILE_OPTION})
            },
            "optional": {
                "portrait": (
                    "AP3D_PORTRAIT",
                    {"tooltip": "The portrait made of that mesh: the landmarks are moved into its head frame."},
                )
            },
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **inputs: Any) -> str:
        if file.startswith(host.EMBEDDED_PREFIX):
            return file
        return host.input_file_stamp("AP3D_LoadLandmarks", str(PurePath(file).with_suffix(".json")))

    @host.plain_torch
    def execute(self, file: str, portrait: Portrait | None = None) -> dict[str, Any]:
        from animportrait3d_core.body.landmark_files import read_landmarks
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.portrait.mesh import MeshPortrait

        _, path = portrait_path("AP3D_LoadLandmarks", file)
        landmarks = read_landmarks(path)
        if portrait is not None and not isinstance(portrait, MeshPortrait):
            raise InvalidInput(
                f"AP3D_LoadLandmarks: the portrait is of kind '{portrait.kind}', expected the one of the mesh that the "
                "landmarks belong to; leave `portrait` unconnected if they are in the head frame already."
            )
        if portrait is not None and portrait.alignment is not None:
            landmarks = dataclasses.replace(landmarks, points_3d=portrait.alignment.apply(landmarks.positions))
        return host.node_result(landmarks)


NODE_CLASS_MAPPINGS = {
    "AP3D_PortraitFromMesh": PortraitFromMesh,
    "AP3D_PortraitFromSplats": PortraitFromSplats,
    "AP3D_LoadLandmarks": LoadLandmarks,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_PortraitFromMesh": "Portrait from Mesh",
    "AP3D_PortraitFromSplats": "Portrait from Splats",
    "AP3D_LoadLandmarks": "Load Landmarks",
}

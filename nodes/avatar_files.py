"""The avatar kept and handed on: AP3D_SaveAvatar, AP3D_LoadAvatar, AP3D_ExportAvatar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.rigging.frames import QuaternionOrder

NEWEST = "(newest)"
AVATAR_SUFFIXES = (".safetensors",)


def avatar_files() -> list[str]:
    """The avatars in the output and the input folder, newest first."""
    from animportrait3d_core.avatar.io import is_avatar_file

    return host.made_files(AVATAR_SUFFIXES, is_avatar_file)


def avatar_path(file: str) -> Path:
    """The file of a choice."""
    from animportrait3d_core.errors import MissingModelFile

    if file != NEWEST:
        return host.made_file("AP3D_LoadAvatar", file)
    found = avatar_files()
    if not found:
        raise MissingModelFile(
            f"AP3D_LoadAvatar: no avatar lies in '{host.output_folder()}' or '{host.input_folder()}'; save one with "
            "Save Avatar, or upload one."
        )
    return host.made_file("AP3D_LoadAvatar", found[0])


class SaveAvatar:
    """The avatar as one safetensors file."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Saves the avatar with its rig as one safetensors file in the output folder; Load Avatar reads it back. The "
        "file holds the graph: drop it on the canvas."
    )
    SEARCH_ALIASES = ["write avatar", "safetensors", "avatar", "keep", "checkpoint"]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("Where the file lies.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to save."}),
                "filename": ("STRING", {"default": "avatar", "tooltip": "Name in the output folder, without suffix."}),
            },
            "hidden": host.GRAPH_INPUTS,
        }

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        filename: str,
        graph_prompt: Mapping[str, Any] | None = None,
        graph_extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.avatar.io import save_avatar

        target = host.save_path("AP3D_SaveAvatar", filename, ".safetensors")
        save_avatar(avatar, target.path, host.graph_texts(graph_prompt, graph_extra))
        return host.node_result(str(target.path), ui={"text": [str(target.path)], "ap3d_files": [target.ui_entry()]})


class LoadAvatar:
    """An avatar that was saved."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Loads a saved avatar: the newest, or one out of the list of those in the output and the input folder (press R "
        "after saving)."
    )
    SEARCH_ALIASES = ["open avatar", "safetensors", "avatar", "talking head", "import avatar"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR", "AP3D_BODY", "STRING")
    RETURN_NAMES = ("avatar", "body", "prompt")
    OUTPUT_TOOLTIPS = ("The avatar.", "The body it is rigged to.", "The prompt it was made with.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "file": (
                    [NEWEST, *avatar_files()],
                    {
                        "default": NEWEST,
                        "tooltip": "The newest avatar, or which one; [output]: as it was saved, else of the input "
                        "folder.",
                        **host.made_file_option(AVATAR_SUFFIXES, host.Upload("upload avatar", "avatars")),
                    },
                )
            },
            "optional": {
                "body": (
                    "AP3D_BODY",
                    {"tooltip": "Needed for avatars of licensed bodies, whose files do not contain the body."},
                )
            },
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **inputs: Any) -> str:
        return host.stamp_of(lambda: [avatar_path(file)])

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:
        # Named here so that the host does not insist on its list, which is as old as the last look at it.
        if file == NEWEST or avatar_path(file).is_file():
            return True
        return f"AP3D_LoadAvatar: no avatar '{file}' in the output or the input folder; press R and choose one."

    @host.plain_torch
    def execute(self, file: str, body: BodyModel | None = None) -> dict[str, Any]:
        from animportrait3d_core.avatar.io import load_avatar

        path = avatar_path(file)
        avatar = load_avatar(path, body=body)
        return host.node_result(avatar, avatar.body, avatar.prompt, ui={"text": [str(path)]})


class ExportAvatar:
    """The avatar as a PLY file for other programs."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Writes the avatar as PLY. splat: plain 3D Gaussians in the world at rest, for any splat viewer (turned to the "
        "viewers' y-down axes). rigged: the authors' columns with bindings and part masks, relative to the triangles; "
        "viewers show it as fog, and its name ends in _rigged."
    )
    SEARCH_ALIASES = ["ply", "splat", "3DGS file", "avatar", "gaussian splatting", "3DGS", "download"]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING", "SPLAT")
    RETURN_NAMES = ("path", "splat")
    OUTPUT_TOOLTIPS = (
        "Where the file lies.",
        "The avatar at rest for ComfyUI's own splat nodes, whatever the layout of the file.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to export."}),
                "filename": ("STRING", {"default": "avatar", "tooltip": "Name in the output folder, without suffix."}),
                "layout": (
                    ["splat", "rigged"],
                    {"default": "splat", "tooltip": "splat: for viewers. rigged: for the authors' tools."},
                ),
                "quaternion_order": (
                    ["corrected", "legacy"],
                    {
                        "default": "corrected",
                        "tooltip": "legacy: the order in which the authors' viewer turns them. Only for `rigged`.",
                    },
                ),
            }
        }

    @host.plain_torch
    def execute(
        self, avatar: RiggedAvatar, filename: str, layout: str, quaternion_order: QuaternionOrder
    ) -> dict[str, Any]:
        from animportrait3d_core.avatar import pose_avatar
        from animportrait3d_core.export import write_rigged_ply, write_splat_ply

        name = f"{filename}_rigged" if layout == "rigged" and not filename.endswith("_rigged") else filename
        target = host.save_path("AP3D_ExportAvatar", name, ".ply")
        if layout == "rigged":
            write_rigged_ply(avatar, target.path, quaternion_order=quaternion_order)
        else:
            write_splat_ply(pose_avatar(avatar, avatar.parameters), target.path)
        return host.node_result(
            str(target.path), host.host_splat(avatar), ui={"text": [str(target.path)], "3d": [target.ui_entry()]}
        )


NODE_CLASS_MAPPINGS = {
    "AP3D_SaveAvatar": SaveAvatar,
    "AP3D_LoadAvatar": LoadAvatar,
    "AP3D_ExportAvatar": ExportAvatar,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_SaveAvatar": "Save Avatar",
    "AP3D_LoadAvatar": "Load Avatar",
    "AP3D_ExportAvatar": "Export Avatar",
}

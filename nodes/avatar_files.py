"""The avatar kept: AP3D_SaveAvatar, AP3D_LoadAvatar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.model import BodyModel

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


NODE_CLASS_MAPPINGS = {
    "AP3D_SaveAvatar": SaveAvatar,
    "AP3D_LoadAvatar": LoadAvatar,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_SaveAvatar": "Save Avatar",
    "AP3D_LoadAvatar": "Load Avatar",
}

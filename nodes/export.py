"""AP3D_ExportAvatar: the avatar in other programs' formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.rigging.frames import QuaternionOrder

LAYOUTS = ("splat", "rigged", "frames", "animated", "glb", "glb_mesh", "glb_splats")
"""Names of `export.formats.FORMATS`, which costs an import that a start of the host should not pay for."""


class ExportAvatar:
    """The avatar as PLY or GLB for other programs."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Writes the avatar for other programs. PLY: plain splats at rest or one file for every frame of a motion, the "
        "authors' rigged columns, or one animated file. GLB: the skinned head with joints, morph targets, a texture "
        "baked from the splats and the motion as a clip, and the splats as KHR_gaussian_splatting."
    )
    SEARCH_ALIASES = [
        "ply", "glb", "gltf", "splat", "3dgs", "ARKit", "gaussian splatting", "avatar", "download", "blender", "unity",
        "morph targets", "blendshapes",
    ]  # fmt: skip
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING", "SPLAT")
    RETURN_NAMES = ("path", "splat")
    OUTPUT_TOOLTIPS = (
        "Where the file, or the folder of frames, lies.",
        "The avatar at rest for ComfyUI's own splat nodes, whatever the layout of the file.",
    )
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        layout_words = (
            "splat: for splat viewers. rigged: for the authors' tools. frames: a PLY for each frame of the motion. "
            "animated: one PLY with the motion. glb: head and splats. glb_mesh: the head. glb_splats: the splats."
        )
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to export."}),
                "filename": ("STRING", {"default": "avatar", "tooltip": "Name in the output folder, without suffix."}),
                "layout": (list(LAYOUTS), {"default": "splat", "tooltip": layout_words}),
                "quaternion_order": (
                    ["corrected", "legacy"],
                    {
                        "default": "corrected",
                        "tooltip": "legacy: the order in which the authors' viewer turns them. Only for `rigged`.",
                    },
                ),
            },
            "optional": {
                "motion": (
                    "AP3D_MOTION",
                    {"tooltip": "What it does: needed by `frames` and `animated`, a clip in `glb` and `glb_mesh`."},
                ),
                "texture_size": (
                    "INT",
                    {
                        "default": 1024, "min": 0, "max": 8192, "step": 256,
                        "tooltip": "Texels per side of the head's texture in a GLB; 0: colours of vertices alone.",
                    },
                ),
                "expressions": (
                    "INT",
                    {
                        "default": 50, "min": 0, "max": 100,
                        "tooltip": "How many of the body's expression coefficients become morph targets of a GLB, "
                        "beside lids and ARKit's 52 shapes.",
                    },
                ),
                "include_licensed_body": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Write the template of a licensed body, such as SMPL-X, too. Only where your "
                        "licence allows what you do with the file; without it such a GLB holds the splats alone.",
                    },
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        filename: str,
        layout: str,
        quaternion_order: QuaternionOrder,
        motion: Motion | None = None,
        **choices: Any,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit import arkit_map
        from animportrait3d_core.embedded.corner_uvs import corner_uvs_of
        from animportrait3d_core.export.formats import (
            ExportSettings,
            ExportSources,
            export_avatar,
            export_format,
            export_name,
        )

        where = "AP3D_ExportAvatar"
        target = host.save_path(where, export_name(filename, layout), export_format(layout).suffix)
        sources = ExportSources(motion)
        if export_format(layout).has_head:
            sources = ExportSources(motion, corner_uvs_of(avatar.body), arkit_map(avatar.body))
        settings = ExportSettings(quaternion_order, **choices)
        notes = export_avatar(avatar, target.path, layout, sources, settings, host.ProgressBar())
        ui: dict[str, Any] = {"text": [str(target.path), *host.warn(where, notes)]}
        if target.path.is_file():
            ui["3d"] = [target.ui_entry()]
        return host.node_result(str(target.path), host.host_splat(avatar), ui=ui)


NODE_CLASS_MAPPINGS = {"AP3D_ExportAvatar": ExportAvatar}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_ExportAvatar": "Export Avatar"}

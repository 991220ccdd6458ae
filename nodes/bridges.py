"""AP3D_AvatarToSplat, AP3D_AvatarToMesh: the avatar in a pose, for the host's own 3D nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar

CATEGORY = "AnimPortrait3D/avatar"
FRAME = (
    "INT",
    {"default": 0, "min": 0, "max": 1000000, "tooltip": "Which frame of the motion, counted from 0."},
)
MOTION = ("AP3D_MOTION", {"tooltip": "What it does; without it the avatar is at rest."})
SPLAT_OUTPUTS = {
    host.SPLAT: ("splat", "The splats, in the axes of splat files."),
    host.FILE_3D_PLY: ("ply", "The same as a PLY file in memory."),
}
MESH_OUTPUTS = {
    host.MESH: ("mesh", "The head's surface with its baked texture, or its colours, in the pose."),
    host.FILE_3D_GLB: ("glb", "The head with skin and morph targets, standing in the pose, as a GLB file in memory."),
}
SPLAT_SOCKETS = host.known_sockets(*SPLAT_OUTPUTS)
MESH_SOCKETS = host.known_sockets(*MESH_OUTPUTS)
"""Types that this host does not know are left out: newer ones come last, so that the others keep their places."""


def in_pose(where: str, avatar: RiggedAvatar, motion: Motion | None, frame: int) -> RiggedAvatar:
    """The avatar resting in a frame of a motion; `InvalidInput` where there is no such frame, or of another body."""
    from animportrait3d_core.avatar import resting_in
    from animportrait3d_core.errors import InvalidInput
    from animportrait3d_core.export.glb_clips import check_motion

    count = 1 if motion is None else len(motion)
    if frame >= count:
        told = f"the motion has {count} frames" if motion is not None else "no motion is connected"
        raise InvalidInput(f"{where}: there is no frame {frame}: {told}; choose 0 to {count - 1}.")
    if motion is None:
        return avatar
    check_motion(where, avatar, motion, "motion")
    return resting_in(avatar, motion.parameters[[frame]])


class AvatarToSplat:
    """The avatar's splats in a pose, on the host's own sockets."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The avatar in one frame of a motion, or at rest, as splats for ComfyUI's own 3D nodes: to look at, render, "
        "merge and save there."
    )
    SEARCH_ALIASES = ["splat", "gaussian splat", "ply", "file 3d", "pose to splat", "preview 3d"]
    FUNCTION = "execute"
    RETURN_TYPES = SPLAT_SOCKETS
    RETURN_NAMES = tuple(SPLAT_OUTPUTS[kind][0] for kind in SPLAT_SOCKETS)
    OUTPUT_TOOLTIPS = tuple(SPLAT_OUTPUTS[kind][1] for kind in SPLAT_SOCKETS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to hand on."}), "frame": FRAME},
            "optional": {"motion": MOTION},
        }

    @host.plain_torch
    def execute(self, avatar: RiggedAvatar, frame: int, motion: Motion | None = None) -> dict[str, Any]:
        from animportrait3d_core.avatar import pose_avatar
        from animportrait3d_core.export import write_splat_ply
        from animportrait3d_core.files import temporary_directory

        posed = in_pose("AP3D_AvatarToSplat", avatar, motion, frame)
        made = {host.SPLAT: host.host_splat(posed)}
        with temporary_directory() as folder:
            write_splat_ply(pose_avatar(posed, posed.parameters), folder / "avatar.ply")
            made[host.FILE_3D_PLY] = host.host_file(folder / "avatar.ply")
        return host.node_result(*(made[kind] for kind in SPLAT_SOCKETS))


class AvatarToMesh:
    """The avatar's head as a mesh in a pose, on the host's own sockets."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The head in one frame of a motion, or at rest, as a mesh in the avatar's colours for ComfyUI's own 3D nodes, "
        "and as a GLB with skin and morph targets."
    )
    SEARCH_ALIASES = ["mesh", "glb", "file 3d", "pose to mesh", "textured mesh", "preview 3d"]
    FUNCTION = "execute"
    RETURN_TYPES = MESH_SOCKETS
    RETURN_NAMES = tuple(MESH_OUTPUTS[kind][0] for kind in MESH_SOCKETS)
    OUTPUT_TOOLTIPS = tuple(MESH_OUTPUTS[kind][1] for kind in MESH_SOCKETS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to hand on."}),
                "frame": FRAME,
                "texture_size": (
                    "INT",
                    {
                        "default": 1024, "min": 0, "max": 8192, "step": 256,
                        "tooltip": "Texels per side of the texture; 0: colours of vertices instead.",
                    },
                ),
                "include_licensed_body": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "The mesh is the body's. Tick for a licensed body (SMPL-X) only where your licence "
                        "allows what you do with it.",
                    },
                ),
            },
            "optional": {"motion": MOTION},
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        frame: int,
        texture_size: int,
        include_licensed_body: bool,
        motion: Motion | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.animation.arkit import arkit_map
        from animportrait3d_core.embedded.corner_uvs import corner_uvs_of
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.export import GlbSettings, baked_surface, write_avatar_glb
        from animportrait3d_core.export.baking import BakeSettings
        from animportrait3d_core.export.licences import refusal_of_mesh
        from animportrait3d_core.files import temporary_directory

        where, body = "AP3D_AvatarToMesh", avatar.body
        refusal = refusal_of_mesh(body, include_licensed_body)
        if refusal:
            raise InvalidInput(f"{where}: {refusal}")
        posed = in_pose(where, avatar, motion, frame)
        bake = BakeSettings(texture_size=texture_size)
        surface, notes = baked_surface(posed, corner_uvs_of(body), bake, host.ProgressBar())
        made = {host.MESH: host.host_mesh(surface.mesh(body(posed.parameters).vertices[0]), unlit=True)}
        if host.FILE_3D_GLB in MESH_SOCKETS:
            settings = GlbSettings(splats=False, bake=bake, include_licensed_body=include_licensed_body)
            with temporary_directory() as folder:
                path = folder / "avatar.glb"
                report = write_avatar_glb(posed, path, face_shapes=arkit_map(body), settings=settings, surface=surface)
                made[host.FILE_3D_GLB], notes = host.host_file(path), notes + report.notes
        ui = {"text": host.warn(where, notes)} if notes else {}
        return host.node_result(*(made[kind] for kind in MESH_SOCKETS), ui=ui)


NODES = {
    "AP3D_AvatarToSplat": (AvatarToSplat, "Avatar to Splat", SPLAT_SOCKETS),
    "AP3D_AvatarToMesh": (AvatarToMesh, "Avatar to Mesh", MESH_SOCKETS),
}
NODE_CLASS_MAPPINGS = {node_id: made for node_id, (made, _, sockets) in NODES.items() if sockets}
NODE_DISPLAY_NAME_MAPPINGS = {node_id: name for node_id, (_, name, sockets) in NODES.items() if sockets}

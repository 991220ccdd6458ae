"""AP3D_SplitPartsByDistance, AP3D_RigPoints, AP3D_ColorPoints: from a surface to points on the body's faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.meshes import Mesh
    from animportrait3d_core.parts import MeshParts
    from animportrait3d_core.rigging.points import RiggedPoints
    from animportrait3d_core.surface.color_field import ColorField
    from animportrait3d_core.views import Views

PREVIEW_SIZE = 320


class SplitPartsByDistance:
    """Hair, clothes and skin of the portrait's mesh by its distance to the fitted body."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Divides the portrait's surface into skin, hair and clothes by its distance to the fitted body: what lies "
        "close to the bare face is skin, the rest is hair or clothes, whichever of scalp and torso is nearer."
    )
    SEARCH_ALIASES = ["segment mesh", "hair", "clothes", "asset mesh", "separate hair", "parts"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PARTS", "IMAGE")
    RETURN_NAMES = ("parts", "image")
    OUTPUT_TOOLTIPS = ("The mesh with a part for each face.", "The parts in colours from four sides.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mesh": ("AP3D_MESH", {"tooltip": "The portrait's surface in the head frame."}),
                "fit": ("AP3D_FIT", {"tooltip": "The body fitted to it."}),
                "skin_distance": (
                    "FLOAT",
                    {
                        "default": 0.02, "min": 0.0, "max": 0.5, "step": 0.001, "round": False,
                        "tooltip": "Surface closer to the bare face than this is skin. A head is 0.65 high.",
                    },
                ),
                "cover_distance": (
                    "FLOAT",
                    {
                        "default": 0.008, "min": 0.0, "max": 0.5, "step": 0.001, "round": False,
                        "tooltip": "The same for scalp and torso: closer is bare skin, farther is hair or clothes.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, mesh: Mesh, fit: BodyFit, skin_distance: float, cover_distance: float) -> dict[str, Any]:
        from animportrait3d_core import previews
        from animportrait3d_core.parts import MeshParts
        from animportrait3d_core.rigging.points import PointSettings, PosedBody, split_parts

        settings = PointSettings(skin_distance=skin_distance, cover_distance=cover_distance)
        parts = MeshParts(mesh, split_parts(mesh, PosedBody.of(fit.body, fit.parameters), settings))
        colors = previews.PART_COLORS[parts.part_of_face.long()]
        image = previews.colored_faces(mesh, colors, previews.preview_cameras(PREVIEW_SIZE))
        return host.node_result(parts, image, ui=host.preview_images(image, "parts"))


class RigPoints:
    """Points on body, hair and clothes, each bound to a face of the body."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Samples points on the fitted body, on hair and on clothes, and binds each to a face of the body: body points "
        "to their own face, hair to the nearest scalp face, clothes to the nearest torso face (paper, section 3.1.2)."
    )
    SEARCH_ALIASES = ["bind points", "rig", "point cloud", "rigging", "skinning", "smplx", "gaussian splatting"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_POINTS", "IMAGE")
    RETURN_NAMES = ("points", "image")
    OUTPUT_TOOLTIPS = ("Points bound to body faces, without colours yet.", "The points, coloured by part.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "parts": ("AP3D_PARTS", {"tooltip": "The portrait's mesh, divided into skin, hair and clothes."}),
                "fit": ("AP3D_FIT", {"tooltip": "The body fitted to it."}),
                "count": (
                    "INT",
                    {
                        "default": 30000, "min": 1000, "max": 2000000, "step": 1000,
                        "tooltip": "Number of points, which become Gaussians. Not used by the `paper` sampling.",
                    },
                ),
                "sampling": (
                    ["budget", "paper"],
                    {"default": "budget", "tooltip": "paper: the authors' counts per face, half a million points."},
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1, "tooltip": "Seed of the sampling."}),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, parts: MeshParts, fit: BodyFit, count: int, sampling: str, seed: int) -> dict[str, Any]:
        import dataclasses

        import torch

        from animportrait3d_core import previews
        from animportrait3d_core.rigging.coverage import lost_surface
        from animportrait3d_core.rigging.points import PointSettings, PosedBody, sample_points

        settings = PointSettings.paper() if sampling == "paper" else PointSettings()
        settings = dataclasses.replace(settings, count=count)
        body = PosedBody.of(fit.body, fit.parameters)
        generator = torch.Generator().manual_seed(seed)
        points = sample_points(parts.mesh, parts.part_of_face, body, settings, generator)
        told = host.warn("AP3D_RigPoints", lost_surface(parts.mesh, parts.part_of_face.numpy(), points).warnings())
        colors = previews.PART_COLORS[points.part_id.long()]
        image = previews.points_image(points.positions, colors, previews.preview_cameras(PREVIEW_SIZE), points.spacing)
        return host.node_result(points, image, ui={**host.preview_images(image, "points"), "text": told})


COLOR_METHODS = ["nearest surface", "hash grid", "none"]


class ColorPoints:
    """Colours of the points from the portrait's surface or its views."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Gives each point the portrait's colour: from the surface nearest to it, or from a hash-grid colour field that "
        "is trained on the views (paper, appendix A1.3). Teeth and the inside of the mouth, which a closed mouth hides,"
        " get generic ones."
    )
    SEARCH_ALIASES = [
        "texture points",
        "appearance initialization",
        "hash grid",
        "colour field",
        "vertex color",
        "gaussian colors",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_POINTS", "IMAGE")
    RETURN_NAMES = ("points", "image")
    OUTPUT_TOOLTIPS = ("The points with colours.", "The coloured points.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "points": ("AP3D_POINTS", {"tooltip": "Points bound to the body."}),
                "mesh": ("AP3D_MESH", {"tooltip": "The portrait's surface; with colours for `nearest surface`."}),
                "fit": ("AP3D_FIT", {"tooltip": "The body fitted to it: it tells the eyes from the lids."}),
            },
            "optional": {
                "views": ("AP3D_VIEWS", {"tooltip": "Views of the portrait; the hash grid learns its colours from."}),
                "close_views": ("AP3D_VIEWS", {"tooltip": "More views for the hash grid, as large as the others."}),
                "method": (
                    COLOR_METHODS,
                    {
                        "default": "nearest surface",
                        "tooltip": "hash grid: learned from the views. nearest surface: the mesh's own colours. "
                        "none: grey, to see what the colours are good for.",
                    },
                ),
                "iterations": (
                    "INT",
                    {"default": 600, "min": 1, "max": 20000, "step": 50, "tooltip": "Training steps of the hash grid."},
                ),
                "seed": (
                    "INT",
                    {"default": 0, "min": 0, "max": 2**32 - 1, "tooltip": "Start of the hash grid, order of pixels."},
                ),
            },
        }

    @host.plain_torch
    def execute(
        self,
        points: RiggedPoints,
        mesh: Mesh,
        fit: BodyFit,
        views: Views | None = None,
        close_views: Views | None = None,
        method: str = "nearest surface",
        iterations: int = 600,
        seed: int = 0,
    ) -> dict[str, Any]:
        from animportrait3d_core import previews
        from animportrait3d_core.rigging.points import PosedBody, color_points, uncolored_points

        if method == "none":
            colored = uncolored_points(points)
        else:
            field = self._field(mesh, views, close_views, iterations, seed) if method == "hash grid" else None
            colored = color_points(points, mesh, PosedBody.of(fit.body, fit.parameters), field)
        cameras = previews.preview_cameras(PREVIEW_SIZE)
        image = previews.points_image(colored.positions, colored.colors, cameras, colored.spacing)
        return host.node_result(colored, image, ui=host.preview_images(image, "points"))

    @staticmethod
    def _field(mesh: Mesh, views: Views | None, close_views: Views | None, iterations: int, seed: int) -> ColorField:
        """The colour field of the views."""
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.surface.color_training import ColorFieldSettings, train_color_field
        from animportrait3d_core.views import concatenate_views

        if views is None:
            raise InvalidInput(
                "AP3D_ColorPoints: `hash grid` learns from views, but none are connected; connect `views`, or choose "
                "`nearest surface`."
            )
        seen = views if close_views is None else concatenate_views([views, close_views])
        settings = ColorFieldSettings(iterations=iterations)
        bar = host.ProgressBar(iterations)
        return train_color_field(mesh, seen, settings, seed, bar, host.device_with_room(), host.runs_folder())


NODE_CLASS_MAPPINGS = {
    "AP3D_SplitPartsByDistance": SplitPartsByDistance,
    "AP3D_RigPoints": RigPoints,
    "AP3D_ColorPoints": ColorPoints,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_SplitPartsByDistance": "Split Parts by Distance",
    "AP3D_RigPoints": "Rig Points",
    "AP3D_ColorPoints": "Color Points",
}

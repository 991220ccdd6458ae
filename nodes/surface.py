"""AP3D_EstimateNormals, AP3D_RefineMesh: from pictures to normals, from normals to a finer surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .networks import EMBEDDED, chosen_network, network_choices, network_option, network_stamp

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.meshes import Mesh
    from animportrait3d_core.surface import RefineSettings, ViewNormals
    from animportrait3d_core.views import Views

NORMAL_IMAGES = "normal images"
PREVIEW_SIZE = 320
SHOWN = 8


class EstimateNormals:
    """Camera-space normals of the views."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Finds the surface normal at every pixel of the views, in the space of their cameras: with a normals network, "
        "or from normal pictures that another node made. Normals keep the fine shape that a raw mesh has lost."
    )
    SEARCH_ALIASES = [
        "normal map",
        "normal estimation",
        "Unique3D",
        "NormalBae",
        "DSINE",
        "StableNormal",
        "normals",
        "surface normals",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_NORMALS", "IMAGE")
    RETURN_NAMES = ("normals", "images")
    OUTPUT_TOOLTIPS = ("Normals of all views.", "The normals as pictures, n / 2 + 1/2 over white, OpenGL axes.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "The views, with masks that are 1 on the subject."}),
                "network": (
                    [*network_choices("normals"), NORMAL_IMAGES],
                    {
                        "default": EMBEDDED,
                        "tooltip": "A normals network: the pack's own (made for its embedded portraits), or a folder "
                        "in models/ap3d_normals. Or the normal images that are connected.",
                        **network_option("normals"),
                    },
                ),
                "coding": (
                    ["OpenGL", "DirectX", "OpenCV"],
                    {
                        "default": "OpenGL",
                        "tooltip": "Axes of the normal images. OpenGL: green points up, blue at the viewer. DirectX: "
                        "green points down. OpenCV: green down, blue away. Not used with a network.",
                    },
                ),
            },
            "optional": {
                "normal_images": ("IMAGE", {"tooltip": "One picture per view, in their order: n / 2 + 1/2."}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, network: str, **inputs: Any) -> str:
        return network_stamp("AP3D_EstimateNormals", "normals", network)

    @host.plain_torch
    def execute(self, views: Views, network: str, coding: str, normal_images: Tensor | None = None) -> dict[str, Any]:
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.networks import estimate_normals
        from animportrait3d_core.surface import ViewNormals, normal_images_of, normals_for_views

        where = "AP3D_EstimateNormals"
        if (normal_images is not None) != (network == NORMAL_IMAGES):
            state = "connected" if normal_images is not None else "not connected"
            raise InvalidInput(
                f"{where}: network is '{network}' and normal_images is {state}; choose '{NORMAL_IMAGES}' to use normal "
                "pictures of another node, a network to do without."
            )
        if normal_images is not None:
            normals = normals_for_views(normal_images, views, coding)
        else:
            model = chosen_network(where, "normals", network)
            found = estimate_normals(model, views.images, views.masks, host.ProgressBar(len(views)))
            normals = ViewNormals(found, views.masks)
        images = normal_images_of(normals)
        shown = images[:: max(1, len(images) // SHOWN)][:SHOWN]
        return host.node_result(normals, images, ui=host.preview_images(shown, "normals"))


class RefineMesh:
    """A raw surface with the detail of the normals."""

    CATEGORY = "AnimPortrait3D/initialization"
    DESCRIPTION = (
        "Moves the vertices of a raw mesh until its rendered normals and silhouettes are those of the views (paper, "
        "equation A2), remeshing it finer on the way. The result is wound outward and carries the raw mesh's colours."
    )
    SEARCH_ALIASES = [
        "mesh optimization",
        "remesh",
        "decimate",
        "normal loss",
        "continuous remeshing",
        "smooth mesh",
        "mesh detail",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_MESH", "IMAGE", "MESH")
    RETURN_NAMES = ("mesh", "image", "mesh_3d")
    OUTPUT_TOOLTIPS = (
        "The refined mesh.",
        "Each side of it before (left) and after (right).",
        "The refined mesh for ComfyUI's own 3D nodes: preview, save as GLB, bake.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "mesh": ("AP3D_MESH", {"tooltip": "The raw surface, for example of Extract Mesh."}),
                "normals": ("AP3D_NORMALS", {"tooltip": "Normals of the views."}),
                "views": ("AP3D_VIEWS", {"tooltip": "The views that the normals were estimated from."}),
                "preset": (
                    ["draft", "paper"],
                    {
                        "default": "draft",
                        "tooltip": "draft: about a minute on two cores, 30,000 faces. paper: the authors' weights, "
                        "2400 steps, 512 pixels and 60,000 faces.",
                    },
                ),
                "iterations": (
                    "INT",
                    {"default": 0, "min": 0, "max": 20000, "tooltip": "Optimisation steps; 0 takes the preset's."},
                ),
                "face_budget": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 1000000, "step": 1000,
                        "tooltip": "Faces of the result at most; 0 takes the preset's.",
                    },
                ),
                "smoothness": (
                    "FLOAT",
                    {
                        "default": 1.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": False,
                        "tooltip": "Factor of the weight that keeps neighbouring faces alike: raise it if noise in the "
                        "normals shows as dents, lower it if detail is missing.",
                    },
                ),
                "rotation": (
                    ["camera_to_world", "legacy"],
                    {
                        "default": "camera_to_world",
                        "tooltip": "How normals are turned into the world. legacy: the authors' transposed matrix, "
                        "which is off by up to 10 degrees; only to compare with their results.",
                    },
                ),
                "seed": (
                    "INT",
                    {"default": 0, "min": 0, "max": 2**32 - 1, "tooltip": "Order in which the views are drawn."},
                ),
                "raw_weight": (
                    "FLOAT",
                    {
                        "default": 1.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": False,
                        "tooltip": "Factor of how much the raw mesh's own normals count beside the estimated ones "
                        "(draft: as much, paper: not at all). 0 for normals of a strong estimator.",
                    },
                ),
            }
        }  # fmt: skip

    @host.plain_torch
    def execute(self, mesh: Mesh, normals: ViewNormals, views: Views, preset: str, **inputs: Any) -> dict[str, Any]:
        import torch

        from animportrait3d_core import previews
        from animportrait3d_core.surface import refine_mesh

        settings = self._settings(preset, inputs)
        bar = host.ProgressBar(settings.iterations)
        refined = refine_mesh(mesh, normals, views, settings, inputs["seed"], bar, host.runs_folder())
        cameras = previews.preview_cameras(PREVIEW_SIZE)
        before, after = (previews.shaded_mesh(value.vertices, value.faces, cameras) for value in (mesh, refined.mesh))
        image = torch.cat([before, after], dim=2)
        ui = {**host.preview_images(image, "refined"), "text": [refined.summary()]}
        return host.node_result(refined.mesh, image, host.host_mesh(refined.mesh), ui=ui)

    @staticmethod
    def _settings(preset: str, inputs: dict[str, Any]) -> RefineSettings:
        """The preset with what the user changed."""
        import dataclasses

        from animportrait3d_core.surface import RefineSettings

        settings = RefineSettings.preset(preset)
        changes = {name: inputs[name] for name in ("iterations", "face_budget") if inputs[name]}
        changes |= {"consistency_weight": settings.consistency_weight * inputs["smoothness"]}
        changes |= {"raw_weight": settings.raw_weight * inputs["raw_weight"], "rotation": inputs["rotation"]}
        return dataclasses.replace(settings, **changes)


NODE_CLASS_MAPPINGS = {"AP3D_EstimateNormals": EstimateNormals, "AP3D_RefineMesh": RefineMesh}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_EstimateNormals": "Estimate Normals", "AP3D_RefineMesh": "Refine Mesh"}

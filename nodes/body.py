"""AP3D_LoadSMPLX, AP3D_FitSMPLX: the parametric body and its fit to the portrait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from pathlib import Path

    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.fit import BodyFit
    from animportrait3d_core.body.landmarks import Landmarks
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.body.parameters import BodyParameters
    from animportrait3d_core.meshes import Mesh
    from animportrait3d_core.parts import MeshParts
    from animportrait3d_core.views import Views

EMBEDDED_BODY = "embedded mannequin"
BODY_SUFFIXES = (".npz", ".pkl", ".zip")
ASSET_SUFFIXES = (".safetensors",)
OWN_ASSETS = "(of the body)"
SMPLX_HINT = (
    "SMPL-X is obtained from smpl-x.is.tue.mpg.de after registration, for non-commercial research; the embedded "
    "mannequin works without it."
)
BODY_SUBJECTS = "AP3D_AVATAR,AP3D_FIT,AP3D_BODY"


def body_at_rest(subject: RiggedAvatar | BodyFit | BodyModel) -> tuple[BodyModel, BodyParameters]:
    """The body of one of BODY_SUBJECTS in its rest pose: that of the fit, or of a body alone its neutral one."""
    from animportrait3d_core.body.model import BodyModel
    from animportrait3d_core.portrait.head_target import standard_placement

    if isinstance(subject, BodyModel):
        return subject, standard_placement(subject)
    return subject.body, subject.parameters


class LoadSMPLX:
    """A body: the embedded mannequin, or a SMPL-X file of the user's."""

    CATEGORY = "AnimPortrait3D/body"
    DESCRIPTION = (
        "Loads the parametric body: the mannequin that comes with this pack, or a SMPL-X file (npz, pkl or zip) from "
        f"models/smplx with its body assets. {SMPLX_HINT}"
    )
    SEARCH_ALIASES = ["SMPL-X", "FLAME", "3DMM", "mannequin", "body model", "smplx", "SMPL", "rig", "head model"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_BODY", "IMAGE")
    RETURN_NAMES = ("body", "image")
    OUTPUT_TOOLTIPS = ("The body model with its assets.", "The neutral body from four sides.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        bodies = [EMBEDDED_BODY, *host.model_files("smplx", BODY_SUFFIXES)]
        assets = [OWN_ASSETS, *host.model_files("smplx", ASSET_SUFFIXES)]
        return {
            "required": {
                "body": (
                    bodies,
                    {
                        "default": EMBEDDED_BODY,
                        "tooltip": f"A file in models/smplx. {SMPLX_HINT}",
                        **host.model_file_option("smplx", BODY_SUFFIXES),
                    },
                ),
                "assets": (
                    assets,
                    {
                        "default": OWN_ASSETS,
                        "tooltip": "Head crop, eyelids, landmarks, regions and teeth. (of the body): the mannequin's "
                        "own; for a SMPL-X file they are made from that file. Or a file that 'animportrait3d convert "
                        "body-assets' wrote (safetensors).",
                        **host.model_file_option("smplx", ASSET_SUFFIXES),
                    },
                ),
                "eyelid_mode": (
                    ["fixed", "paper"],
                    {
                        "default": "fixed",
                        "tooltip": "fixed: lids turn with the head. paper: as the authors' code adds them.",
                    },
                ),
            }
        }

    @classmethod
    def IS_CHANGED(cls, body: str, assets: str, **inputs: Any) -> str:
        names = [name for name in (body, assets) if name not in (EMBEDDED_BODY, OWN_ASSETS)]
        return "\n".join([body, *(host.model_file_stamp("AP3D_LoadSMPLX", "smplx", name) for name in names)])

    @host.plain_torch
    def execute(self, body: str, assets: str, eyelid_mode: str) -> dict[str, Any]:
        from animportrait3d_core import previews
        from animportrait3d_core.body.assets import TEETH_WORDS
        from animportrait3d_core.body.model import load_body_model
        from animportrait3d_core.portrait.head_target import standard_placement
        from animportrait3d_core.progress import behind

        assets_path: Path | None
        if body == EMBEDDED_BODY:
            from animportrait3d_core.embedded.mannequin import mannequin_body_files

            body_path, assets_path = mannequin_body_files()
        else:
            body_path = host.model_file("AP3D_LoadSMPLX", "smplx", body)
            made = assets == OWN_ASSETS
            assets_path = None if made else host.model_file("AP3D_LoadSMPLX", "smplx", assets)
        model = behind(lambda: load_body_model(body_path, assets_path, eyelid_mode=eyelid_mode))
        vertices = model(standard_placement(model)).vertices[0]
        image = previews.shaded_mesh(vertices, model.faces_outward, previews.preview_cameras(320))
        ui = host.preview_images(image, "body")
        found = model.assets
        words = TEETH_WORDS[found.teeth_origin]
        if assets_path is None:
            size = f"{len(found.vertex_ids)} vertices, {len(found.faces)} faces"
            ui |= {"text": [f"Body assets were made from '{body}': {size}. {words}"]}
        elif body != EMBEDDED_BODY:
            ui |= {"text": [f"Body assets from '{assets}'. {words}"]}
        return host.node_result(model, image, ui=ui)


class FitSMPLX:
    """The body fitted to the views and the surface of a portrait."""

    CATEGORY = "AnimPortrait3D/body"
    DESCRIPTION = (
        "Fits shape, pose, scale and position of the body to the portrait, by silhouettes, distance to its surface "
        "and by landmarks where they are given (paper, section 3.1.1)."
    )
    SEARCH_ALIASES = ["head tracking", "register body", "SMPL-X fit", "smplx", "face fitting", "3DMM", "head fit"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_FIT", "IMAGE")
    RETURN_NAMES = ("fit", "image")
    OUTPUT_TOOLTIPS = (
        "The fitted body parameters with the body.",
        "The body laid over the views: its landmarks blue, the detected ones from red (unsure) to green (sure).",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.body.fit import BodyFitSettings

        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "Views of the portrait."}),
                "body": ("AP3D_BODY", {"tooltip": "The body to fit."}),
                "fit_expression": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Also fit the expression: exacter, even for neutral portraits."},
                ),
                "error_limit": (
                    "FLOAT",
                    {
                        "default": BodyFitSettings.max_surface_error,
                        "min": 0.001, "max": 10.0, "step": 0.001, "round": False,
                        "tooltip": "A fit whose face is farther than this from the surface (root mean square, over the "
                        "distance of the outer eye corners) is refused.",
                    },
                ),
                "personal_offsets": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "With a surface: smooth offsets make the body this person, where the body's own "
                        "shapes do not reach. Off: the body is what its shape coefficients say.",
                    },
                ),
            },
            "optional": {
                "mesh": ("AP3D_MESH", {"tooltip": "The portrait's surface; makes the fit far more exact."}),
                "landmarks": ("AP3D_LANDMARKS", {"tooltip": "Facial landmarks, if they are known or detected."}),
                "parts": (
                    "AP3D_PARTS",
                    {
                        "tooltip": "The surface with its parts, in place of `mesh`: the body is drawn to the skin and "
                        "only has to stay under hair and clothes. More exact where hair hides the jaw."
                    },
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        views: Views,
        body: BodyModel,
        fit_expression: bool,
        error_limit: float,
        personal_offsets: bool,
        mesh: Mesh | None = None,
        landmarks: Landmarks | None = None,
        parts: MeshParts | None = None,
    ) -> dict[str, Any]:
        import torch

        from animportrait3d_core.body.fit import BodyFitSettings
        from animportrait3d_core.body.landmark_images import fit_image
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.parts import AvatarPart
        from animportrait3d_core.portrait.body_fit import fit_to_portrait
        from animportrait3d_core.portrait.fit_report import contour_image, fit_verdict

        if mesh is not None and parts is not None:
            raise InvalidInput("AP3D_FitSMPLX: `mesh` and `parts` are connected; connect one, `parts` brings its mesh.")
        covering = None
        if parts is not None:
            mesh, covering = parts.mesh, parts.part_of_face != AvatarPart.SKIN
        settings = BodyFitSettings(
            fit_expression=fit_expression, max_surface_error=error_limit, personal_offsets=personal_offsets
        )
        fit = fit_to_portrait(views, body, mesh, landmarks, settings, host.ProgressBar(), covering)
        host.report_metrics("fit", fit.metrics)
        image = fit_image(views, fit, landmarks)
        shown = image if mesh is None else torch.cat([image, contour_image(fit, mesh, image.shape[1])])
        lines = [*host.warn("AP3D_FitSMPLX", fit.warnings), *fit_verdict(fit).lines()]
        ui = host.preview_images(shown, "fit") | ({"text": ["\n".join(lines)]} if lines else {})
        return host.node_result(fit, image, ui=ui)


NODE_CLASS_MAPPINGS = {"AP3D_LoadSMPLX": LoadSMPLX, "AP3D_FitSMPLX": FitSMPLX}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_LoadSMPLX": "Load SMPL-X Body", "AP3D_FitSMPLX": "Fit SMPL-X Body"}

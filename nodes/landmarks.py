"""AP3D_DetectLandmarks: the 68 landmarks of the face in the views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .networks import EMBEDDED, chosen_network, network_choices, network_option, network_stamp

if TYPE_CHECKING:
    from animportrait3d_core.views import Views


class DetectLandmarks:
    """Facial landmarks in the views from the front."""

    CATEGORY = "AnimPortrait3D/body"
    DESCRIPTION = (
        "Finds the 68 facial landmarks in the views whose camera is within the given angle of the front. Connect them "
        "to Fit SMPL-X Body, which places them in space and leaves out single points and whole views that contradict "
        "the others."
    )
    SEARCH_ALIASES = [
        "face landmarks",
        "keypoints",
        "iBUG 68",
        "face alignment",
        "STAR",
        "face detection",
        "facial landmarks",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_LANDMARKS", "IMAGE")
    RETURN_NAMES = ("landmarks", "image")
    OUTPUT_TOOLTIPS = (
        "Pixels and confidence of 68 landmarks in each view; confidence 0 in views without a face, which may be all.",
        "The views that were looked at, with the points from red (unsure) to green (sure).",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "Views of the portrait, some of them from the front."}),
                "network": (
                    network_choices("landmarks"),
                    {
                        "default": EMBEDDED,
                        "tooltip": "The pack's own network, or a network folder in models/ap3d_landmarks.",
                        **network_option("landmarks"),
                    },
                ),
                "most_yaw": (
                    "FLOAT",
                    {
                        "default": 75.0, "min": 10.0, "max": 180.0, "step": 1.0, "round": False,
                        "tooltip": "Views whose camera is farther from the front than this, in degrees, are left out.",
                    },
                ),
            }
        }  # fmt: skip

    @classmethod
    def IS_CHANGED(cls, network: str, **inputs: Any) -> str:
        return network_stamp("AP3D_DetectLandmarks", "landmarks", network)

    @host.plain_torch
    def execute(self, views: Views, network: str, most_yaw: float) -> dict[str, Any]:
        import torch

        from animportrait3d_core.body.landmark_images import detections_image
        from animportrait3d_core.body.landmarks import Landmarks, landmarks_of_views
        from animportrait3d_core.cameras import yaw_of
        from animportrait3d_core.networks import detect_landmarks

        model = chosen_network("AP3D_DetectLandmarks", "landmarks", network)
        landmarks = landmarks_of_views(
            views, lambda seen: detect_landmarks(model, seen.images, host.ProgressBar(), seen.normals), most_yaw
        )
        looked_at = torch.nonzero(yaw_of(views.cameras).abs() <= most_yaw).squeeze(1)
        pixels, confidence = landmarks.detections
        shown = Landmarks(points_2d=pixels[looked_at], confidence=confidence[looked_at])
        image = detections_image(views[looked_at], shown)
        has_face = confidence.amax(1) > 0
        host.report_metrics("landmarks", {"views": float(len(looked_at)), "views_with_face": float(has_face.sum())})
        ui = host.preview_images(image[:8], "landmarks")
        if not bool(has_face.any()):
            ui |= {"text": host.warn("AP3D_DetectLandmarks", [self._no_face(views, len(looked_at), most_yaw)])}
        return host.node_result(landmarks, image, ui=ui)

    @staticmethod
    def _no_face(views: Views, count: int, most_yaw: float) -> str:
        return (
            f"no face found in any of the {count} views within {most_yaw:.0f} degrees of the front (of {len(views)} "
            f"views, {views.cameras.width} x {views.cameras.height} pixels). Check that they show one face, upright "
            "and at least 40 pixels high, or choose another network; the body is fitted by the surface alone."
        )


NODE_CLASS_MAPPINGS = {"AP3D_DetectLandmarks": DetectLandmarks}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_DetectLandmarks": "Detect Landmarks"}

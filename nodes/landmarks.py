"""AP3D_DetectLandmarks, AP3D_LandmarksFromHost: the 68 landmarks of the face in the views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import host
from .networks import EMBEDDED, chosen_network, network_choices, network_option, network_stamp

if TYPE_CHECKING:
    from animportrait3d_core.body.landmarks import Landmarks
    from animportrait3d_core.views import Views

NO_FILE = "(none)"
FaceLandmarks = Mapping[str, Any]
"""The host's value: faces of each picture."""


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
            },
            "optional": {
                "close_views": (
                    "AP3D_VIEWS",
                    {"tooltip": "Views of the face alone, looked at in place of the others: lids and lips are larger."},
                ),
            },
        }  # fmt: skip

    @classmethod
    def IS_CHANGED(cls, network: str, **inputs: Any) -> str:
        return network_stamp("AP3D_DetectLandmarks", "landmarks", network)

    @host.plain_torch
    def execute(self, views: Views, network: str, most_yaw: float, close_views: Views | None = None) -> dict[str, Any]:
        import torch

        from animportrait3d_core.body.landmark_images import detections_image
        from animportrait3d_core.body.landmarks import Landmarks, landmarks_of_views
        from animportrait3d_core.cameras import yaw_of
        from animportrait3d_core.networks import detect_landmarks

        model = chosen_network("AP3D_DetectLandmarks", "landmarks", network)
        views = views if close_views is None else close_views
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


class LandmarksFromHost:
    """Landmarks of other detectors: the host's MediaPipe, or a file."""

    CATEGORY = "AnimPortrait3D/body"
    DESCRIPTION = (
        "Takes the faces that the host's MediaPipe Face Landmarker finds in the pictures of the views (478 points), or "
        "a file of MediaPipe or face-alignment, as the 68 landmarks of the views. With `landmarks` of Detect Landmarks "
        "the sources are brought to a consensus, point by point."
    )
    SEARCH_ALIASES = ["MediaPipe", "face landmarker", "face-alignment", "478 points", "face mesh", "keypoints"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_LANDMARKS", "IMAGE")
    RETURN_NAMES = ("landmarks", "image")
    OUTPUT_TOOLTIPS = (
        "Pixels and confidence of 68 landmarks in each view; confidence 0 in views without a face.",
        "Views with a face, with the points from red (unsure) to green (sure).",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = [NO_FILE, *host.input_files((".json",))]
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "The views whose pictures the other detector was given."}),
                "file": (
                    files,
                    {
                        "default": NO_FILE,
                        "tooltip": "A JSON file with the points of each view, by MediaPipe or face-alignment, in the "
                        "input folder.",
                        **host.input_file_option((".json",)),
                    },
                ),
            },
            "optional": {
                "face_landmarks": (
                    "FACE_LANDMARKS",
                    {"tooltip": "Of MediaPipe Face Landmarker, which got the `images` of these views."},
                ),
                "landmarks": ("AP3D_LANDMARKS", {"tooltip": "Another source in the same views: Detect Landmarks."}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, file: str, **inputs: Any) -> str:
        return "" if file == NO_FILE else host.input_file_stamp("AP3D_LandmarksFromHost", file)

    @host.plain_torch
    def execute(
        self, views: Views, file: str, face_landmarks: FaceLandmarks | None = None, landmarks: Landmarks | None = None
    ) -> dict[str, Any]:
        import dataclasses

        import torch

        from animportrait3d_core.body.foreign_landmarks import (
            consensus_of_sources,
            landmarks_of_host,
            read_foreign_landmarks,
        )
        from animportrait3d_core.body.landmark_images import detections_image
        from animportrait3d_core.body.landmarks import Landmarks as Found
        from animportrait3d_core.errors import InvalidInput

        size, sources = (views.cameras.height, views.cameras.width), []
        if face_landmarks is not None:
            sources.append(landmarks_of_host(face_landmarks, len(views), size))
        if file != NO_FILE:
            path = host.input_file("AP3D_LandmarksFromHost", file)
            sources.append(read_foreign_landmarks(path, len(views), size))
        seen = [dataclasses.replace(source, cameras=views.cameras) for source in sources]
        sources = seen if landmarks is None else [landmarks, *seen]
        if not sources:
            raise InvalidInput(
                "AP3D_LandmarksFromHost: there are no landmarks: connect `face_landmarks`, or choose a file."
            )
        found = consensus_of_sources(sources)
        pixels, confidence = found.detections
        has_face = confidence.amax(1) > 0
        host.report_metrics("landmarks", {"views": float(len(views)), "views_with_face": float(has_face.sum())})
        shown = torch.nonzero(has_face).squeeze(1) if bool(has_face.any()) else torch.arange(1)
        image = detections_image(views[shown], Found(points_2d=pixels[shown], confidence=confidence[shown]))
        text = f"{int(has_face.sum())} of {len(views)} views show a face; {len(sources)} sources"
        return host.node_result(found, image, ui=host.preview_images(image[:8], "landmarks") | {"text": [text]})


NODE_CLASS_MAPPINGS = {"AP3D_DetectLandmarks": DetectLandmarks, "AP3D_LandmarksFromHost": LandmarksFromHost}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_DetectLandmarks": "Detect Landmarks",
    "AP3D_LandmarksFromHost": "Landmarks from Host",
}

"""AP3D_MatteViews, AP3D_SegmentViews, AP3D_CorrectLabels, AP3D_FaceRevote: from pictures to parts of the surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from . import host
from .networks import EMBEDDED, chosen_network, network_choices, network_option, network_stamp

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.meshes import Mesh
    from animportrait3d_core.networks import ImageNetwork
    from animportrait3d_core.segmentation import ViewLabels
    from animportrait3d_core.views import Views

LABEL_IMAGES = "label images"
NO_NETWORK = "none"
CLASS_COLOURS = "class colours"
PREVIEW_SIZE = 320
NETWORK_TOOLTIP = "A parts network: the pack's own, or a folder in models/ap3d_segmentation."
VIEWS_TOOLTIP = "Which views were painted, as '0, 3-5', counted from 0, one mask each. Empty: one mask for every view."


def painted_classes() -> list[str]:
    """What can be painted: every class but the background."""
    from animportrait3d_core.parts import PART_CLASSES

    return [name for name in PART_CLASSES if name != "background"]


def spread_over(images: Tensor, count: int) -> Tensor:
    """At most `count` pictures, taken evenly from a batch."""
    return images[:: max(1, len(images) // count)][:count]


def seen_parts(where: str, choice: str, views: Views) -> tuple[ImageNetwork, Tensor]:
    """The parts network of a choice, and the probabilities [B, H, W, C] that it sees in the views."""
    from animportrait3d_core.networks import segment_images

    network = chosen_network(where, "parts", choice, on_surfaces=views.normals is not None)
    return network, segment_images(network, views.images, host.ProgressBar(len(views)), views.normals)


class MatteViews:
    """Other foreground masks for the views."""

    CATEGORY = "AnimPortrait3D/views"
    DESCRIPTION = (
        "Gives the views other mattes and composites them over their background once: the field's own weights (which "
        "Render Views already delivers), the foreground of a parts network, or masks from any other node."
    )
    SEARCH_ALIASES = ["matting", "foreground mask", "MODNet", "remove background", "alpha", "rembg", "segmentation"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_VIEWS", "IMAGE", "MASK")
    RETURN_NAMES = ("views", "images", "masks")
    OUTPUT_TOOLTIPS = ("The views with the new mattes.", "Their pictures.", "Their masks.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "Rendered or retouched views."}),
                "method": (
                    ["field", "network", "mask"],
                    {
                        "default": "field",
                        "tooltip": "field: keep the masks the views have. network: all that the parts network does not "
                        "take for background. mask: the masks that are connected.",
                    },
                ),
                "network": (
                    network_choices("parts"),
                    {"default": EMBEDDED, "tooltip": NETWORK_TOOLTIP, **network_option("parts")},
                ),
            },
            "optional": {"mask": ("MASK", {"tooltip": "One mask per view, white on the person."})},
        }

    @classmethod
    def IS_CHANGED(cls, network: str, **inputs: Any) -> str:
        return network_stamp("AP3D_MatteViews", "parts", network)

    @host.plain_torch
    def execute(self, views: Views, method: str, network: str, mask: Tensor | None = None) -> dict[str, Any]:
        from animportrait3d_core.errors import InvalidInput
        from animportrait3d_core.networks import parts_matte
        from animportrait3d_core.segmentation import matte_views

        where = "AP3D_MatteViews"
        if (mask is not None) != (method == "mask"):
            state = "connected" if mask is not None else "not connected"
            raise InvalidInput(f"{where}: method '{method}' and the mask is {state}; choose 'mask' to use a mask.")
        matted = views
        if method == "network":
            model, found = seen_parts(where, network, views)
            matted = matte_views(views, parts_matte(model, found))
        elif mask is not None:
            matted = matte_views(views, mask)
        shown = host.preview_images(spread_over(matted.images, 8), "mattes")
        return host.node_result(matted, matted.images, matted.masks, ui=shown)


class SegmentViews:
    """Class labels of the views."""

    CATEGORY = "AnimPortrait3D/segmentation"
    DESCRIPTION = (
        "Labels every pixel of the views as face, hair, clothes, eyes, lips, mouth or background: with a parts "
        "network, or from label pictures of another program. A separate hair network or mask overrules its hair."
    )
    SEARCH_ALIASES = [
        "face parsing",
        "Sapiens",
        "human parsing",
        "hair segmentation",
        "labels",
        "segment",
        "hair mask",
        "face mask",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_LABELS", "IMAGE", "IMAGE")
    RETURN_NAMES = ("labels", "overlay", "class_colours")
    OUTPUT_TOOLTIPS = (
        "Labels of the views.",
        "The labels in colours over the pictures.",
        "The colours alone; painted over, they may come back as label images of the set 'class colours'.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.segmentation import LABEL_SETS

        networks = network_choices("parts")
        return {
            "required": {
                "views": ("AP3D_VIEWS", {"tooltip": "The views to label."}),
                "network": (
                    [*networks, LABEL_IMAGES],
                    {
                        "default": EMBEDDED,
                        "tooltip": f"{NETWORK_TOOLTIP} Or the label images that are connected.",
                        **network_option("parts"),
                    },
                ),
                "label_set": (
                    [*LABEL_SETS, CLASS_COLOURS],
                    {
                        "default": next(iter(LABEL_SETS)),
                        "tooltip": "What the label images hold: grey pictures of label numbers (number / 255) of this "
                        "label set, or our class colours. Not used with a network.",
                    },
                ),
                "hair_network": (
                    [NO_NETWORK, *networks],
                    {
                        "default": NO_NETWORK,
                        "tooltip": "A second network whose hair replaces that of the first.",
                        **network_option("parts"),
                    },
                ),
            },
            "optional": {
                "label_images": ("IMAGE", {"tooltip": "One label picture per view, for the choice 'label images'."}),
                "hair_mask": ("MASK", {"tooltip": "One hair mask per view, white on hair; replaces the hair labels."}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, network: str, hair_network: str, **inputs: Any) -> str:
        return "\n".join(network_stamp("AP3D_SegmentViews", "parts", choice) for choice in (network, hair_network))

    @host.plain_torch
    def execute(
        self,
        views: Views,
        network: str,
        label_set: str,
        hair_network: str,
        label_images: Tensor | None = None,
        hair_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.errors import InvalidInput, check_shape
        from animportrait3d_core.segmentation import labels_from_image, labels_from_probabilities, with_hair
        from animportrait3d_core.segmentation.images import class_images, label_overlay

        where = "AP3D_SegmentViews"
        if (label_images is not None) != (network == LABEL_IMAGES):
            state = "connected" if label_images is not None else "not connected"
            raise InvalidInput(f"{where}: network '{network}' and label images are {state}; use '{LABEL_IMAGES}'.")
        if hair_mask is not None and hair_network != NO_NETWORK:
            raise InvalidInput(f"{where}: both a hair mask and hair network '{hair_network}' are given, expected one.")
        if label_images is not None:
            check_shape(where, "label_images", label_images, [len(views), "H", "W", "C"])
            labels = labels_from_image(label_images, label_set, where)
        else:
            model, probabilities = seen_parts(where, network, views)
            labels = labels_from_probabilities(probabilities, model.classes, where)
        if hair_network != NO_NETWORK:
            model, answer = seen_parts(where, hair_network, views)
            hair_mask = answer[..., model.classes.index("hair")]
        if hair_mask is not None:
            labels = with_hair(labels, hair_mask)
        overlay = label_overlay(views.images, labels)
        shown = host.preview_images(spread_over(overlay, 8), "labels")
        return host.node_result(labels, overlay, class_images(labels), ui=shown)


class CorrectLabels:
    """Labels corrected by hand."""

    CATEGORY = "AnimPortrait3D/segmentation"
    DESCRIPTION = (
        "Sets the class of what was painted in some of the views. On the surface it overrules every other view. Chain "
        "several of these nodes to paint several classes; one class can also be painted at Face Revote itself."
    )
    SEARCH_ALIASES = ["paint", "manual correction", "mask editor", "fix segmentation", "labels", "edit segmentation"]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_LABELS", "IMAGE")
    RETURN_NAMES = ("labels", "class_colours")
    OUTPUT_TOOLTIPS = ("The corrected labels.", "The labels in class colours.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "labels": ("AP3D_LABELS", {"tooltip": "The labels to correct."}),
                "mask": ("MASK", {"tooltip": "What was painted: one mask for each of the painted views."}),
                "class_name": (painted_classes(), {"default": "hair", "tooltip": "The class of what is painted."}),
                "views": ("STRING", {"default": "", "tooltip": VIEWS_TOOLTIP}),
            }
        }

    @host.plain_torch
    def execute(self, labels: ViewLabels, mask: Tensor, class_name: str, views: str) -> dict[str, Any]:
        from animportrait3d_core.segmentation import paint_labels, parse_view_indices
        from animportrait3d_core.segmentation.images import class_images

        chosen = parse_view_indices(views, len(labels), "AP3D_CorrectLabels")
        corrected = paint_labels(labels, mask, class_name, chosen)
        images = class_images(corrected)
        return host.node_result(corrected, images, ui=host.preview_images(images[chosen][:8], "labels"))


class FaceRevote:
    """Hair, clothes and skin of the surface by the vote of the views."""

    CATEGORY = "AnimPortrait3D/segmentation"
    DESCRIPTION = (
        "Projects the labels of all views onto the surface and averages them over the views in which each face is "
        "really visible (paper, section 3.1). Smooths along the surface, joins small islands; what is painted as a "
        "correction overrules every view."
    )
    SEARCH_ALIASES = [
        "segment mesh",
        "MeshSegmenter",
        "asset mesh",
        "hair mesh",
        "clothing mesh",
        "voting",
        "parts",
        "labels to mesh",
    ]
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_PARTS", "IMAGE", "STRING", "MESH")
    RETURN_NAMES = ("parts", "image", "report", "mesh_3d")
    OUTPUT_TOOLTIPS = (
        "The mesh with a part for each face.",
        "The parts in colours from four sides.",
        "What was seen, left out and changed.",
        "The mesh in the colours of its parts, for ComfyUI's own 3D preview.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.segmentation import RevoteSettings

        usual = RevoteSettings()
        return {
            "required": {
                "mesh": ("AP3D_MESH", {"tooltip": "The portrait's surface in the head frame."}),
                "labels": ("AP3D_LABELS", {"tooltip": "Labels of the views."}),
                "views": ("AP3D_VIEWS", {"tooltip": "The views that were labelled: their cameras are needed."}),
                "profile": (
                    ["fixed", "legacy"],
                    {
                        "default": "fixed",
                        "tooltip": "legacy: the authors' binary votes of the views from level and above, unsmoothed.",
                    },
                ),
                "smoothing": (
                    "FLOAT",
                    {
                        "default": usual.smoothing, "min": 0.0, "max": 0.2, "step": 0.001, "round": False,
                        "tooltip": "Radius over which votes are blended along the surface. A head is 0.65 high.",
                    },
                ),
                "least_island": (
                    "FLOAT",
                    {
                        "default": usual.least_island, "min": 0.0, "max": 1.0, "step": 0.0005, "round": False,
                        "tooltip": "Islands of less than this area join what surrounds them: 0.003 is 2 x 2 cm.",
                    },
                ),
                "correction_class": (
                    painted_classes(),
                    {"default": "hair", "tooltip": "The right class of what the correction mask paints."},
                ),
                "correction_views": ("STRING", {"default": "", "tooltip": VIEWS_TOOLTIP}),
            },
            "optional": {
                "correction": (
                    "MASK",
                    {"tooltip": "Painted over some of the views' pictures: overrules all views on what it covers."},
                )
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        mesh: Mesh,
        labels: ViewLabels,
        views: Views,
        profile: Literal["fixed", "legacy"],
        smoothing: float,
        least_island: float,
        correction_class: str,
        correction_views: str,
        correction: Tensor | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core import previews
        from animportrait3d_core.segmentation import RevoteSettings, paint_labels, parse_view_indices, revote_faces

        where = "AP3D_FaceRevote"
        if correction is not None:
            chosen = parse_view_indices(correction_views, len(labels), where)
            labels = paint_labels(labels, correction, correction_class, chosen)
        settings = RevoteSettings(profile=profile, smoothing=smoothing, least_island=least_island)
        voted = revote_faces(mesh, labels, views.cameras, settings, host.ProgressBar(len(views)))
        host.warn(where, voted.report.warnings())
        text = voted.report.summary()
        colors = previews.PART_COLORS[voted.parts.part_of_face.long()]
        image = previews.colored_faces(mesh, colors, previews.preview_cameras(PREVIEW_SIZE))
        shown = {**host.preview_images(image, "parts"), "text": [text]}
        return host.node_result(voted.parts, image, text, host.host_mesh(mesh, colors), ui=shown)


NODE_CLASS_MAPPINGS = {
    "AP3D_MatteViews": MatteViews,
    "AP3D_SegmentViews": SegmentViews,
    "AP3D_CorrectLabels": CorrectLabels,
    "AP3D_FaceRevote": FaceRevote,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_MatteViews": "Matte Views",
    "AP3D_SegmentViews": "Segment Views",
    "AP3D_CorrectLabels": "Correct Labels",
    "AP3D_FaceRevote": "Face Revote",
}

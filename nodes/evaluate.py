"""AP3D_EvaluateAvatar, AP3D_ContactSheet: numbers and one picture of what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.body.landmarks import Landmarks
    from animportrait3d_core.portrait.protocol import Portrait

STAGES = ("initial", "pretrained", "full", "refined")


class EvaluateAvatar:
    """Likeness at rest and holes in motion, as numbers in the report."""

    CATEGORY = "AnimPortrait3D/avatar"
    DESCRIPTION = (
        "Measures the avatar: psnr_portrait against the portrait's own renders at cameras that no training saw, and "
        "coverage, the opacity inside the face in the worst frame of the motion. The numbers go into report.json."
    )
    SEARCH_ALIASES = ["metrics", "PSNR", "quality", "report", "avatar", "evaluate", "benchmark"]
    FUNCTION = "execute"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("metrics",)
    OUTPUT_TOOLTIPS = ("The numbers as text.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to measure."}),
                "portrait": ("AP3D_PORTRAIT", {"tooltip": "The portrait it was made from."}),
                "motion": ("AP3D_MOTION", {"tooltip": "The motion in which holes are looked for."}),
                "stage": (list(STAGES), {"default": "initial", "tooltip": "Under which name the report lists them."}),
                "size": ("INT", {"default": 256, "min": 64, "max": 1024, "step": 8, "tooltip": "Pixels per side."}),
            },
            "optional": {
                "true_landmarks": (
                    "AP3D_LANDMARKS",
                    {"tooltip": "Landmarks known to be right: the fit's error to them is reported, nothing else."},
                )
            },
        }

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        portrait: Portrait,
        motion: Motion,
        stage: str,
        size: int,
        true_landmarks: Landmarks | None = None,
    ) -> dict[str, Any]:
        from animportrait3d_core.evaluation.avatar import (
            doubts,
            fit_landmark_error,
            motion_coverage,
            portrait_likeness,
        )

        metrics: dict[str, float] = {"gaussians": len(avatar)}
        metrics |= portrait_likeness(avatar, portrait, size, host.ProgressBar(told="portrait"))
        metrics |= motion_coverage(avatar, motion, size, progress=host.ProgressBar(len(motion), told="motion"))
        if true_landmarks is not None:
            truth = true_landmarks.positions
            metrics["landmark_error_fit"] = fit_landmark_error(avatar.body, avatar.parameters, truth)
        host.report_metrics(stage, metrics)
        told = host.warn("AP3D_EvaluateAvatar", doubts(metrics))
        text = "\n".join(f"{name}: {value:.4g}" for name, value in metrics.items())
        return host.node_result(text, ui={"text": ["\n".join([text, *told])]})


class ContactSheet:
    """Pictures of several batches as one sheet, saved as PNG."""

    CATEGORY = "AnimPortrait3D/views"
    DESCRIPTION = (
        "Picks pictures evenly from up to eight batches, sets them in captioned rows and saves the sheet as PNG. The "
        "file holds the graph: drop it on the canvas."
    )
    SEARCH_ALIASES = ["grid", "overview", "image sheet", "contact sheet", "collage", "turntable"]
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("sheet", "path")
    OUTPUT_TOOLTIPS = ("The sheet as one picture.", "Where the file lies.")
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        row = {"tooltip": "One batch of pictures becomes one row; a lone wide picture fills it."}
        return {
            "required": {
                "columns": ("INT", {"default": 6, "min": 1, "max": 24, "tooltip": "Pictures per row."}),
                "tile_size": (
                    "INT",
                    {"default": 256, "min": 32, "max": 1024, "step": 8, "tooltip": "Pixels per picture."},
                ),
                "captions": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": "One caption a line, from the first row on."},
                ),
                "filename": (
                    "STRING",
                    {"default": "contact_sheet", "tooltip": "Name in the output folder, without suffix."},
                ),
            },
            "optional": {
                **{f"row_{number}": ("IMAGE", row) for number in range(1, 9)},
                "lines": ("INT", {"default": 1, "min": 1, "max": 8, "tooltip": "Lines of pictures per batch."}),
            },
            "hidden": host.GRAPH_INPUTS,
        }

    @host.plain_torch
    def execute(
        self,
        columns: int,
        tile_size: int,
        captions: str,
        filename: str,
        lines: int = 1,
        graph_prompt: Mapping[str, Any] | None = None,
        graph_extra: Mapping[str, Any] | None = None,
        **rows: Tensor | None,
    ) -> dict[str, Any]:
        from animportrait3d_core import previews
        from animportrait3d_core.errors import InvalidInput

        # A row that is left out takes its caption along.
        words = [*captions.splitlines(), *[""] * 6]
        connected = [(int(name[-1]), row) for name, row in sorted(rows.items()) if row is not None]
        if not connected:
            raise InvalidInput("AP3D_ContactSheet: no pictures are connected, expected at least one row.")
        batches, told = [row for _, row in connected], [words[number - 1] for number, _ in connected]
        sheet = previews.contact_sheet(batches, told, columns, tile_size, lines)
        target = host.save_path("AP3D_ContactSheet", filename, ".png")
        previews.write_png(sheet, target.path, host.graph_texts(graph_prompt, graph_extra))
        return host.node_result(sheet[None], str(target.path), ui={"images": [target.ui_entry()]})


NODE_CLASS_MAPPINGS = {"AP3D_EvaluateAvatar": EvaluateAvatar, "AP3D_ContactSheet": ContactSheet}
NODE_DISPLAY_NAME_MAPPINGS = {"AP3D_EvaluateAvatar": "Evaluate Avatar", "AP3D_ContactSheet": "Contact Sheet"}

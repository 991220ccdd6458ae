"""The ablation's tables in Markdown: medians, every person's paired differences, shares of the ceiling, and fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from .ablation import ROWS, Cells, Metrics

BASE, CEILING, WHOLE = ROWS[0].name, "ceiling: true renders", "whole method"
SHOWN_METRICS = {
    "psnr_image": "image",
    "psnr_face": "face",
    "psnr_eyes": "eyes",
    "psnr_eyes_closed": "closed eyes",
    "psnr_mouth": "mouth",
    "landmark_error": "landmark error",
    "label_iou": "label IoU",
    "expression_error": "expression error",
}
"""Columns by metric."""
SHARED_METRICS = ("psnr_face", "psnr_eyes_closed", "psnr_mouth")
"""Whose gains are compared with the ceiling's."""
FILLED_METRICS = ("eyes_closed", "mouth")
"""Regions whose mean true colour is a rival."""
MISSING = ""


def ablation_report(cells: Cells) -> str:
    """Markdown of all tables that the cells allow."""
    tables = [
        ("Medians over people; rows after the first are medians of each person's difference to it.", medians(cells)),
        ("Shares of the gain that true renders bring (medians over people).", shares(cells)),
        ("Regions filled with their own mean true colour, beside the avatar before and after (dB).", fills(cells)),
        ("Every person; rows after the first are differences to it.", people_table(cells)),
    ]  # fmt: skip
    return "\n\n".join(f"{title}\n\n{table}" for title, table in tables if table)


def medians(cells: Cells) -> str:
    """A line for each row."""
    lines = []
    for row, people in cells.items():
        differences = [_shown(cells, row, name) for name in people]
        values = [_format(_median(one.get(metric) for one in differences), row) for metric in SHOWN_METRICS]
        lines.append([f"**{row}**" if row == WHOLE else row, *values, str(len(people))])
    return _markdown(["row", *SHOWN_METRICS.values(), "people"], lines)


def people_table(cells: Cells) -> str:
    """A line for each row and person."""
    lines = []
    for row, people in cells.items():
        for name in people:
            shown = _shown(cells, row, name)
            lines.append([row, name, *(_format(shown.get(metric), row) for metric in SHOWN_METRICS)])
    return _markdown(["row", "person", *SHOWN_METRICS.values()], lines)


def shares(cells: Cells) -> str:
    """Each row's gain as a share of the ceiling's for the same person; nothing without a ceiling."""
    lines = []
    for row in (row for row in cells if row not in (BASE, CEILING)):
        found = []
        for metric in SHARED_METRICS:
            both = [name for name in cells[row] if name in cells.get(CEILING, {}) and name in cells.get(BASE, {})]
            ratios = [_shown(cells, row, name)[metric] / _shown(cells, CEILING, name)[metric] for name in both]
            found.append(f"{median(ratios):.2f}" if ratios else MISSING)
        if any(found):
            lines.append([row, *found])
    return _markdown(["row", *(SHOWN_METRICS[metric] for metric in SHARED_METRICS)], lines)


def fills(cells: Cells) -> str:
    """What a region filled with its mean true colour would reach, and what the avatar does before and after."""
    lines = []
    for name in (name for name in cells.get(WHOLE, {}) if name in cells.get(BASE, {})):
        before, after = cells[BASE][name], cells[WHOLE][name]
        values = [
            value
            for region in FILLED_METRICS
            for value in (after[f"psnr_flat_{region}"], before[f"psnr_{region}"], after[f"psnr_{region}"])
        ]
        lines.append([name, *(f"{value:.1f}" for value in values)])
    names = [SHOWN_METRICS[f"psnr_{region}"] for region in FILLED_METRICS]
    columns = [column for name in names for column in (f"{name}, filled", "before", "after")]
    return _markdown(["person", *columns], lines)


def _shown(cells: Cells, row: str, name: str) -> Metrics:
    """Metrics of the base itself, differences of the rows after it; only what both have."""
    found, base = cells[row][name], cells.get(BASE, {}).get(name, {})
    if row == BASE:
        return found
    return {metric: found[metric] - base[metric] for metric in SHOWN_METRICS if metric in found and metric in base}


def _median(values: Iterable[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return median(kept) if kept else None


def _format(value: float | None, row: str) -> str:
    return MISSING if value is None else f"{value:.4g}" if row == BASE else f"{value:+.3g}"


def _markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)

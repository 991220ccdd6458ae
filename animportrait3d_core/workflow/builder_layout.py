"""Where the nodes of a built graph stand, and where its long links run: so that none runs behind a node.

A graph is laid out in columns from left to right, in one row or more. A link from one column to the next is drawn as it
is; any other is led by two reroutes, one behind the node that it comes from and one before the node that it goes to,
through a lane of its own above the row, or through the gap above its target if both stand in one column.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .subgraphs import INPUT_NODE_ID, OUTPUT_NODE_ID

GAP, MARGIN, TITLE_HEIGHT = 60, 14, 78
COLUMN_GAP, ROW_GAP = 58, 60
# Rows of widgets are as high as Nodes 2.0 draws them (the classic canvas takes 24), and so is its line below them: the
# name of the pack, or the button that opens a box.
SLOT_HEIGHT, WIDGET_HEIGHT, FOOT_HEIGHT, MULTILINE_HEIGHT, PICTURE_HEIGHT = 20, 28, 28, 80, 240
TEXT_HEIGHT, TEXT_LINE_HEIGHT = 36, 13
NOTE_LINE_HEIGHT, NOTE_CHARACTER_WIDTH = 17, 7
LANE_HEIGHT, FIRST_LANE, LANE_SIDE, BELOW_GAP, BELOW_STEP = 12, 22, 24, 10, 6
TITLE_BAR, END_WIDTH, END_GAP = 30, 140, 100
VIEW_WIDTH, VIEW_HEIGHT, VIEW_LEFT, VIEW_TOP = 1780, 900, 75, 95
STAGE_COLORS = ("#3f789e", "#8a5a9e", "#a1683f", "#5a8a4a", "#9e4f5c", "#4a8a8a")


@dataclass
class Column:
    """Nodes below each other, with a frame around them if it has a title.

    new_row: whether it begins a row.  beside: whether it stands on the right of all rows.
    """

    width: int
    title: str = ""
    new_row: bool = False
    beside: bool = False
    nodes: list[dict[str, Any]] = field(default_factory=list)


def node_height(sockets: int, rows: int, multiline: int, shown: int) -> int:
    """Sockets (of the side that has more), widgets of one row and of several, and room for what the node shows."""
    given = SLOT_HEIGHT * sockets + WIDGET_HEIGHT * rows + MULTILINE_HEIGHT * multiline
    return 10 + given + FOOT_HEIGHT + shown


def shown_height(picture: bool, text_lines: int) -> int:
    """Room for what a node will show below its widgets."""
    return (PICTURE_HEIGHT if picture else 0) + (TEXT_HEIGHT + TEXT_LINE_HEIGHT * text_lines if text_lines else 0)


def note_height(text: str, width: int) -> int:
    """Room for a note in Markdown."""
    per_line = width // NOTE_CHARACTER_WIDTH
    return 30 + NOTE_LINE_HEIGHT * sum(1 + len(line) // per_line for line in text.splitlines())


@dataclass(frozen=True)
class _Place:
    """Where a node stands: its row and column, its left and right edge, and its top with the title bar."""

    row: int
    column: int
    left: float = 0
    right: float = 0
    top: float = 0


class Layout:
    """Nodes of columns in their rows, with lanes for the links that need one.

    links: the objects of a subgraph's links; those that are led get a `parentId`.  ends: how many inputs and outputs a
    subgraph has, by the node ids of its ends.  size: width and height of it all.
    """

    def __init__(self, columns: Sequence[Column], links: Sequence[dict[str, Any]], ends: Mapping[int, int]) -> None:
        self.columns, self.links = columns, links
        self.rows = list(itertools.accumulate(int(column.new_row) for column in columns))
        self.places = {
            node["id"]: _Place(row, index)
            for index, (row, column) in enumerate(zip(self.rows, columns))
            for node in column.nodes
        }
        self.places |= {end: _Place(0, index) for end, index in zip(ends, (-1, len(columns)))}
        self.lanes: dict[tuple[int, int, int], int] = {}
        for link in links:
            if self._needs_lane(link):
                row = self._lane_row(link)
                used = sum(key[0] == row for key in self.lanes)
                self.lanes.setdefault((row, link["origin_id"], link["origin_slot"]), used)
        self.tops: list[float] = []
        self.frames: list[dict[str, Any]] = []
        self._stand()
        self.bounds = {end: self._end(index, count) for (end, count), index in zip(ends.items(), (-1, len(columns)))}

    def _is_beside(self, place: _Place) -> bool:
        return 0 <= place.column < len(self.columns) and self.columns[place.column].beside

    def _needs_lane(self, link: Mapping[str, Any]) -> bool:
        origin, target = self.places[link["origin_id"]], self.places[link["target_id"]]
        if self._is_beside(target):
            rest = zip(self.rows[origin.column + 1 :], self.columns[origin.column + 1 :])
            return any(row == origin.row and not column.beside for row, column in rest)
        return origin.row != target.row or target.column not in (origin.column, origin.column + 1)

    def _lane_row(self, link: Mapping[str, Any]) -> int:
        origin, target = self.places[link["origin_id"]], self.places[link["target_id"]]
        return origin.row if self._is_beside(target) else target.row

    def _stand(self) -> None:
        """Give all nodes their positions, and stages their frames."""
        bottom = 0.0
        widths = [self._width(row) for row in range(max(self.rows, default=-1) + 1)]
        right = max(widths, default=0.0)
        for row, width in enumerate(widths):
            count = sum(key[0] == row for key in self.lanes)
            top = bottom + (LANE_HEIGHT * count + FIRST_LANE if count else ROW_GAP) if row else 0.0
            self.tops.append(top)
            # Rows end where what stands beside them begins.
            x = right - width if any(column.beside for column in self.columns) else 0.0
            for column in self._in_row(row):
                bottom = max(bottom, self._stand_in(column, x, top))
                x += column.width + 2 * MARGIN + COLUMN_GAP
        for column in (column for column in self.columns if column.beside):
            bottom = max(bottom, self._stand_in(column, right, 0.0))
            right += column.width + 2 * MARGIN + COLUMN_GAP
        self.size = (right, bottom)

    def _in_row(self, row: int) -> list[Column]:
        return [column for column, of in zip(self.columns, self.rows) if of == row and not column.beside]

    def _width(self, row: int) -> float:
        return sum(column.width + 2 * MARGIN + COLUMN_GAP for column in self._in_row(row))

    def _stand_in(self, column: Column, x: float, top: float) -> float:
        """Give the nodes of a column their positions; return where it ends."""
        y = top + (TITLE_HEIGHT if column.title else TITLE_BAR)
        for node in column.nodes:
            node["pos"], node["size"] = [x, y], [column.width, node["size"][1]]
            place = self.places[node["id"]]
            self.places[node["id"]] = _Place(place.row, place.column, x, x + column.width, y - TITLE_BAR)
            # The title bar of a node stands above its position, and the badge with the name of its pack above that.
            y += (0 if node["flags"].get("collapsed") else node["size"][1]) + GAP
        end = y - GAP + MARGIN
        if column.title:
            color = STAGE_COLORS[len(self.frames) % len(STAGE_COLORS)]
            bounding = [x - MARGIN, top, column.width + 2 * MARGIN, end - top]
            frame = {"id": len(self.frames) + 1, "title": column.title, "bounding": bounding, "color": color}
            self.frames.append({**frame, "font_size": 24, "flags": {}})
        return end

    def _end(self, index: int, count: int) -> list[float]:
        """Left, top, width and height of the inputs or outputs of a subgraph, `count` of them."""
        width = sum(column.width + 2 * MARGIN + COLUMN_GAP for column in self.columns) - 2 * MARGIN - COLUMN_GAP
        left = width + END_GAP if index >= 0 else -END_WIDTH - END_GAP
        end = OUTPUT_NODE_ID if index >= 0 else INPUT_NODE_ID
        self.places[end] = _Place(0, index, left, left + END_WIDTH, TITLE_BAR)
        return [left, TITLE_BAR, END_WIDTH, 40 + SLOT_HEIGHT * count]

    def reroutes(self, ids: itertools.count) -> list[dict[str, Any]]:
        """Corners of the links in lanes and of those between two nodes of a column, with ids from `ids`."""
        found: dict[tuple, dict[str, Any]] = {}
        for link in self.links:
            origin, target = self.places[link["origin_id"]], self.places[link["target_id"]]
            row = self._lane_row(link)
            output = (row, link["origin_id"], link["origin_slot"])
            lane: tuple[int, ...] = output
            if self._needs_lane(link):
                y = self.tops[row] - FIRST_LANE - LANE_HEIGHT * self.lanes[output]
            elif target.column == origin.column:
                lane, y = (*output, link["target_id"]), target.top - BELOW_GAP - BELOW_STEP * link["origin_slot"]
            else:
                continue
            behind = _corner(found, (*lane, "behind"), [origin.right + LANE_SIDE, y], None, ids)
            before = _corner(found, (*lane, target.column), [target.left - LANE_SIDE, y], behind["id"], ids)
            link["parentId"] = before["id"]
            for corner in (behind, before):
                corner["linkIds"].append(link["id"])
        return list(found.values())


def _corner(
    found: dict[tuple, dict[str, Any]], key: tuple, pos: list[float], parent: int | None, ids: itertools.count
) -> dict[str, Any]:
    if key not in found:
        found[key] = {"id": next(ids), **({} if parent is None else {"parentId": parent}), "pos": pos, "linkIds": []}
    return found[key]


def layers(nodes: Iterable[dict[str, Any]], links: Sequence[dict[str, Any]], width: int) -> list[Column]:
    """Columns in which each node stands behind all that it is linked to. `nodes` stand behind their origins, too."""
    columns: list[Column] = []
    found: dict[int, int] = {}
    for node in nodes:
        origins = (link["origin_id"] for link in links if link["target_id"] == node["id"])
        layer = found[node["id"]] = 1 + max((found.get(origin, -1) for origin in origins), default=-1)
        if layer == len(columns):
            columns.append(Column(width))
        columns[layer].nodes.append(node)
    return columns


def box_colors(stage: int) -> dict[str, str]:
    """Colours of a folded box in a stage: the title in the stage's own, darker."""
    channels = (int(STAGE_COLORS[stage % len(STAGE_COLORS)][start : start + 2], 16) for start in (1, 3, 5))
    return {"color": "#" + "".join(f"{channel * 2 // 3:02x}" for channel in channels), "bgcolor": "#2b2f33"}


def opening_view(layout: Layout) -> dict[str, Any]:
    """Scale and offset with which a graph opens: all of it on a screen of 1920 x 1080, if it can be read then."""
    lanes = LANE_HEIGHT * (1 + sum(key[0] == 0 for key in layout.lanes))
    width, height = layout.size[0] + MARGIN, layout.size[1] + lanes
    scale = round(max(0.5, min(1.0, VIEW_WIDTH / max(width, 1), VIEW_HEIGHT / max(height, 1))), 3)
    return {"scale": scale, "offset": [round(VIEW_LEFT / scale + MARGIN), round(VIEW_TOP / scale + lanes)]}

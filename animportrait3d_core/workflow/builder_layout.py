"""Where the nodes of a built graph stand, and where its long links run: so that none runs behind a node.

A graph is laid out in columns from left to right. A link from one column to the next is drawn as it is; any other is
led by two reroutes, one behind the node that it comes from and one before the node that it goes to, through a lane of
its own above all columns, or through the gap above its target if both stand in one column.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .subgraphs import INPUT_NODE_ID, OUTPUT_NODE_ID

GAP, MARGIN, TITLE_HEIGHT = 60, 14, 78
COLUMN_GAP = 58
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
    """Nodes below each other, with a frame around them if it has a title."""

    width: int
    title: str = ""
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
    """Where a node stands: its column, its left and right edge, and its top with the title bar."""

    column: int
    left: float = 0
    right: float = 0
    top: float = 0


class Layout:
    """Nodes in their columns, with lanes for the links that need one.

    links: the objects of a subgraph's links; those that are led get a `parentId`.  ends: how many inputs and outputs a
    subgraph has, by the node ids of its ends.  size: width and height of it all.
    """

    def __init__(self, columns: Sequence[Column], links: Sequence[dict[str, Any]], ends: Mapping[int, int]) -> None:
        self.columns, self.links = columns, links
        self.places = {node["id"]: _Place(index) for index, column in enumerate(columns) for node in column.nodes}
        self.places |= {end: _Place(index) for end, index in zip(ends, (-1, len(columns)))}
        self.lanes: dict[tuple[int, int], int] = {}
        for link in links:
            if self._needs_lane(link):
                self.lanes.setdefault((link["origin_id"], link["origin_slot"]), len(self.lanes))
        self.frames: list[dict[str, Any]] = []
        self._stand()
        self.bounds = {end: self._end(index, count) for (end, count), index in zip(ends.items(), (-1, len(columns)))}

    def _needs_lane(self, link: Mapping[str, Any]) -> bool:
        origin, target = self.places[link["origin_id"]], self.places[link["target_id"]]
        return target.column not in (origin.column, origin.column + 1)

    def _stand(self) -> None:
        """Give all nodes their positions, and stages their frames, which end in one line."""
        x = 0.0
        bottoms = []
        for column in self.columns:
            bottoms.append(self._stand_in(column, x))
            x += column.width + 2 * MARGIN + COLUMN_GAP
        self.size = (x, max(bottoms, default=0.0))
        for frame in self.frames:
            frame["bounding"][3] = self.size[1]

    def _stand_in(self, column: Column, x: float) -> float:
        """Give the nodes of a column their positions; return where it ends."""
        y = TITLE_HEIGHT if column.title else TITLE_BAR
        for node in column.nodes:
            node["pos"], node["size"] = [x, y], [column.width, node["size"][1]]
            place = self.places[node["id"]]
            self.places[node["id"]] = _Place(place.column, x, x + column.width, y - TITLE_BAR)
            # The title bar of a node stands above its position, and the badge with the name of its pack above that.
            y += (0 if node["flags"].get("collapsed") else node["size"][1]) + GAP
        if column.title:
            color = STAGE_COLORS[len(self.frames) % len(STAGE_COLORS)]
            bounding = [x - MARGIN, 0.0, column.width + 2 * MARGIN, 0.0]
            frame = {"id": len(self.frames) + 1, "title": column.title, "bounding": bounding, "color": color}
            self.frames.append({**frame, "font_size": 24, "flags": {}})
        return y - GAP + MARGIN

    def _end(self, index: int, count: int) -> list[float]:
        """Left, top, width and height of the inputs or outputs of a subgraph, `count` of them."""
        width = sum(column.width + 2 * MARGIN + COLUMN_GAP for column in self.columns) - 2 * MARGIN - COLUMN_GAP
        left = width + END_GAP if index >= 0 else -END_WIDTH - END_GAP
        end = OUTPUT_NODE_ID if index >= 0 else INPUT_NODE_ID
        self.places[end] = _Place(index, left, left + END_WIDTH, TITLE_BAR)
        return [left, TITLE_BAR, END_WIDTH, 40 + SLOT_HEIGHT * count]

    def reroutes(self, ids: itertools.count) -> list[dict[str, Any]]:
        """Corners of the links in lanes and of those between two nodes of a column, with ids from `ids`."""
        found: dict[tuple, dict[str, Any]] = {}
        for link in self.links:
            origin, target = self.places[link["origin_id"]], self.places[link["target_id"]]
            output = (link["origin_id"], link["origin_slot"])
            lane: tuple[int, ...] = output
            if self._needs_lane(link):
                y: float = -FIRST_LANE - LANE_HEIGHT * self.lanes[output]
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
    lanes = LANE_HEIGHT * (1 + len(layout.lanes))
    width, height = layout.size[0] + MARGIN, layout.size[1] + lanes
    scale = round(max(0.5, min(1.0, VIEW_WIDTH / max(width, 1), VIEW_HEIGHT / max(height, 1))), 3)
    return {"scale": scale, "offset": [round(VIEW_LEFT / scale + MARGIN), round(VIEW_TOP / scale + lanes)]}

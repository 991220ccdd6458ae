"""What a graph under construction is made of: its nodes and their outputs, and the scopes in which they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput
from .builder_layout import Column
from .definitions import NodeDefinition


@dataclass(frozen=True)
class Output:
    """An output of a node in a builder, to be given to a later node."""

    node: BuiltNode
    slot: int


@dataclass
class BuiltNode:
    """A node in a builder; index it by output name or number."""

    node_id: int
    definition: NodeDefinition
    json: dict[str, Any]
    scope: Scope
    output_names: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, output: str | int) -> Output:
        names = self.definition.return_names
        slot = names.index(output) if isinstance(output, str) and output in names else output
        if not isinstance(slot, int) or not 0 <= slot < len(names):
            class_type = self.definition.class_type
            raise InvalidInput(f"WorkflowBuilder: {class_type} has no output {output!r}; it has {', '.join(names)}.")
        return Output(self, slot)


@dataclass
class Scope:
    """One graph: the whole, or what lies in a folded box.

    ports: the inputs and outputs of a subgraph as they are stored.  values: of the inputs that are widgets, by slot.
    multiline: slots of those that are several lines high.
    taken, given: slots by the output (node id, slot) that the box takes from outside, or gives from within.
    """

    box: BuiltNode | None = None
    title: str = ""
    columns: list[Column] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    ports: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"inputs": [], "outputs": []})
    values: dict[int, Any] = field(default_factory=dict)
    multiline: set[int] = field(default_factory=set)
    taken: dict[tuple[int, int], int] = field(default_factory=dict)
    given: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """All nodes, in the order in which they were added."""
        return sorted((node for column in self.columns for node in column.nodes), key=lambda node: node["id"])

    @property
    def around(self) -> list[Scope]:
        """This scope and those that it lies in, from the inside."""
        return [self, *(self.box.scope.around if self.box is not None else [])]


@dataclass(frozen=True)
class Source:
    """What a link comes from, in one scope; `links` is where its link ids are noted."""

    scope: Scope
    node_id: int
    slot: int
    kind: str
    name: str
    links: list[int]

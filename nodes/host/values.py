"""What a node returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def node_result(*outputs: Any, ui: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The return value of a V1 node: outputs in the order of RETURN_TYPES, and what the frontend shows."""
    return {"result": outputs, "ui": dict(ui or {})}

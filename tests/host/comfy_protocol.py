"""A prompt as ComfyUI's server runs it, told to the browser in the same messages; what each node shows is written down.

The order and the fields are those of execution.py, progress.py and server.py of ComfyUI 0.3.64 and 0.33.0.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests.host.websocket import BINARY, TEXT, Websocket

PREVIEW, PROGRESS_TEXT, PREVIEW_WITH_METADATA = 1, 3, 4  # kinds of binary messages
JPEG = 1
_PROMPTS = itertools.count(1)


@dataclass(frozen=True)
class Script:
    """What a node shows: pictures of its progress, then its result or its error."""

    previews: tuple[tuple[int, int, int], ...] = ()
    """Colours of the progress pictures."""
    texts: tuple[str, ...] = ()
    output: Callable[[str], Mapping[str, Any]] | None = None
    """The `ui` of the result, given the id of the node."""
    errors: tuple[str, ...] = ("",)
    """The error of each run, or "" for the result; after the last one the first again."""
    work: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """The `ui` of a node that really runs, given its inputs as the prompt has them."""
    pause: float = 0.05
    """Seconds between two progress pictures."""
    keeps: bool = False
    """Whether a node that has run with the same inputs does not run again."""


def solid(color: tuple[int, int, int], kind: str, size: int = 96) -> bytes:
    """A picture of one colour; kind: "PNG" or "JPEG"."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), color).save(stream, kind, quality=95)
    return stream.getvalue()


class Job:
    """One queued prompt. `features`: what the browser says that it can. `attempts`: runs so far by kind of node.

    `kept`: what has run and is kept, in all jobs.  After `run`, `outputs` of the nodes that ran.
    """

    def __init__(
        self,
        prompt: Mapping[str, Any],
        scripts: Mapping[str, Script],
        browser: Websocket,
        features: Mapping[str, Any],
        attempts: Counter[str],
        kept: set[str],
    ) -> None:
        self.id, self._prompt, self._scripts, self._kept = f"test-{next(_PROMPTS)}", prompt, scripts, kept
        self.entry = [1, self.id, prompt, {}, []]
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self._browser, self._features, self._attempts = browser, features, attempts
        self._states: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        """Every node in the order of the prompt, until one fails."""
        self._queue(1)
        self._tell("execution_start", {"timestamp": _now()})
        kept = [node_id for node_id in self._prompt if self._asked(node_id) in self._kept]
        self._tell("execution_cached", {"nodes": kept, "timestamp": _now()})
        run = [(node_id, node["class_type"]) for node_id, node in self._prompt.items() if node_id not in kept]
        failed = not all(self._run(*node) for node in run)
        self._tell("executing", {"node": None})
        if not failed:
            self._tell("execution_success", {"timestamp": _now()})
        self._queue(0)

    def _asked(self, node_id: str) -> str:
        """A node's kind and inputs, and those of the nodes before it."""
        node = self._prompt[node_id]
        inputs = {
            name: self._asked(value[0]) if isinstance(value, list) else value for name, value in node["inputs"].items()
        }
        return json.dumps([node["class_type"], inputs], sort_keys=True)

    def _run(self, node_id: str, class_type: str) -> bool:
        script = self._scripts.get(class_type, Script())
        self._tell("executing", {"node": node_id, "display_node": node_id})
        self._progress(node_id, 0, 1, "running")
        for step, color in enumerate(script.previews, 1):
            self._progress(node_id, step, len(script.previews), "running")
            self._picture(node_id, color)
            time.sleep(script.pause)
        for text in script.texts:
            name = node_id.encode()
            self._send_binary(PROGRESS_TEXT, struct.pack(">I", len(name)) + name + text.encode())
        error = script.errors[self._attempts[class_type] % len(script.errors)]
        self._attempts[class_type] += 1
        if error:
            self._fail(node_id, class_type, error)
            return False
        output = script.output(node_id) if script.output is not None else None
        if script.work is not None:
            output = script.work(self._prompt[node_id]["inputs"])
        if script.keeps:
            self._kept.add(self._asked(node_id))
        if output is not None:
            self.outputs[node_id] = output
            self._tell("executed", {"node": node_id, "display_node": node_id, "output": output})
        self._progress(node_id, 1, 1, "finished")
        return True

    def _fail(self, node_id: str, class_type: str, message: str) -> None:
        self._progress(node_id, 1, 1, "error")
        told = {"node_id": node_id, "node_type": class_type, "executed": [], "exception_message": message}
        told |= {"exception_type": "InvalidInput", "traceback": ["a line"], "current_inputs": {}, "current_outputs": []}
        self._tell("execution_error", told | {"timestamp": _now()})

    def _progress(self, node_id: str, value: int, most: int, state: str) -> None:
        own = {"node_id": node_id, "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
        self._states[node_id] = {"value": value, "max": most, "state": state, "prompt_id": self.id, **own}
        self._tell("progress_state", {"nodes": self._states})

    def _picture(self, node_id: str, color: tuple[int, int, int]) -> None:
        picture = solid(color, "JPEG")
        if not self._features.get("supports_preview_metadata"):
            self._send_binary(PREVIEW, struct.pack(">I", JPEG) + picture)
            return
        said = {"node_id": node_id, "prompt_id": self.id, "display_node_id": node_id, "parent_node_id": None}
        metadata = json.dumps({**said, "real_node_id": node_id, "image_type": "image/jpeg"}).encode()
        self._send_binary(PREVIEW_WITH_METADATA, struct.pack(">I", len(metadata)) + metadata + picture)

    def _queue(self, remaining: int) -> None:
        self._send("status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self._send(kind, {**data, "prompt_id": self.id})

    def _send(self, kind: str, data: Mapping[str, Any]) -> None:
        self._browser.send(TEXT, json.dumps({"type": kind, "data": data}).encode())

    def _send_binary(self, kind: int, body: bytes) -> None:
        self._browser.send(BINARY, struct.pack(">I", kind) + body)


def _now() -> int:
    """Milliseconds."""
    return int(time.time() * 1000)

"""A small server in ComfyUI's place: the frontend's files, fixed answers, node definitions, and a queue that plays."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from animportrait3d_core.workflow.definitions import define_node
from tests.host.comfy_protocol import Job, Script
from tests.host.websocket import TEXT, Websocket, accept_key

WEB = Path(__file__).parents[2] / "web"
KINDS = {".png": "image/png", ".mp4": "video/mp4", ".js": "text/javascript"}


def object_info(classes: Mapping[str, type], names: Mapping[str, str]) -> dict[str, Any]:
    """What ComfyUI's /object_info would say."""
    info = {}
    for node_id, node_class in classes.items():
        declared = node_class.INPUT_TYPES()
        definition = define_node(node_id, node_class)
        info[node_id] = {
            "input": declared,
            "input_order": {section: list(entries) for section, entries in declared.items()},
            "output": definition.return_types,
            "output_is_list": [False] * len(definition.return_types),
            "output_name": definition.return_names,
            "name": node_id,
            "display_name": names.get(node_id, node_id),
            "description": "",
            "python_module": "custom_nodes.animportrait3d",
            "category": getattr(node_class, "CATEGORY", "core"),
            "output_node": definition.is_output,
        }
    return info


def answers(info: Mapping[str, Any]) -> dict[str, Any]:
    """JSON answers to what the frontend asks; all else is not found."""
    return {
        "/users": {"storage": "server", "migrated": True},
        "/extensions": [f"/extensions/pack/{name}.js" for name in ("node_results", "kept_results", "preview_avatar")],
        "/object_info": info,
        "/system_stats": {"system": {"argv": [], "comfyui_version": "0.3.64"}, "devices": []},
        "/queue": {"queue_running": [], "queue_pending": []},
        "/history": {},
        "/internal/logs": "",
        "/jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False}},
        "/prompt": {"exec_info": {"queue_remaining": 0}},
        "/embeddings": [],
        "/i18n": {},
        "/features": {},
        "/userdata": [],
        "/models": [],
        "/experiment/models": [],
        "/workflow_templates": {},
        "/global_subgraphs": {},
    }


class FrontendServer(http.server.ThreadingHTTPServer):
    """Serves a frontend's folder `static`; `scripts`: what nodes show when run; `pictures`: the folder of /view.

    `policy`: the content security policy of every answer.
    """

    daemon_threads = True

    def __init__(
        self,
        static: Path,
        info: Mapping[str, Any],
        scripts: Mapping[str, Script] | None = None,
        pictures: Path = WEB,
        policy: str = "",
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.static, self.known, self.scripts, self.pictures = static, answers(info), dict(scripts or {}), pictures
        self.policy = policy
        self.settings: dict[str, Any] = {"Comfy.TutorialCompleted": True, "Comfy.Validation.Workflows": False}
        self.browser: Websocket | None = None
        self.features: dict[str, Any] = {}
        self.attempts: Counter[str] = Counter()
        self.kept: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def queue(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Start to run a prompt; what /prompt answers."""
        assert self.browser is not None, "a prompt came before the websocket"
        job = Job(prompt, self.scripts, self.browser, self.features, self.attempts, self.kept)
        # ComfyUI's queue, too, begins when the answer is on its way.
        threading.Timer(0.2, self._run, [job]).start()
        return {"prompt_id": job.id, "number": 1, "node_errors": {}}

    def _run(self, job: Job) -> None:
        running = self.known["/queue"]["queue_running"]
        running.append(job.entry)
        job.run()
        running.clear()
        self.known["/history"][job.id] = {"prompt": job.entry, "outputs": job.outputs}


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: FrontendServer
    protocol_version = "HTTP/1.1"

    def __init__(self, request: Any, address: Any, server: FrontendServer) -> None:
        super().__init__(request, address, server, directory=str(server.static))

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        path = address.path.removeprefix("/api")
        if path == "/ws":
            self._converse()
        elif path == "/settings":
            self._answer_json(self.server.settings)
        elif path in self.server.known:
            self._answer_json(self.server.known[path])
        elif path == "/view":
            self._answer_file(self.server.pictures / urllib.parse.parse_qs(address.query)["filename"][0])
        elif path.startswith("/extensions/pack/"):
            self._answer_file(WEB / Path(path).name)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        path = urllib.parse.urlsplit(self.path).path.removeprefix("/api")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if path == "/prompt":
            self._answer_json(self.server.queue(body["prompt"]))
            return
        if path.startswith("/settings/"):
            self.server.settings[path.removeprefix("/settings/")] = body
        self._answer_json({})

    def end_headers(self) -> None:
        if self.server.policy:
            self.send_header("Content-Security-Policy", self.server.policy)
        super().end_headers()

    def _answer_json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), "application/json")

    def _answer_file(self, file: Path) -> None:
        if not file.is_file():
            self.send_error(404)
            return
        self._answer(file.read_bytes(), KINDS.get(file.suffix, "application/octet-stream"))

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _converse(self) -> None:
        """The websocket, for as long as the page is open."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        self.close_connection = True
        browser = Websocket(self.rfile, self.wfile)
        status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "test"}
        browser.send(TEXT, json.dumps({"type": "status", "data": status}).encode())
        self.server.browser = browser
        while (message := browser.receive()) is not None:
            told = json.loads(message) if message else {}
            if told.get("type") == "feature_flags":
                self.server.features = told["data"]
                flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
                browser.send(TEXT, json.dumps(flags).encode())

    def log_message(self, *_: Any) -> None:
        """The requests of a page are no news."""

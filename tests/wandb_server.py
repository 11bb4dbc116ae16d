"""A stand-in of the W&B server on 127.0.0.1 that keeps its state in memory.

It answers the GraphQL operations that wandb, its public Api and wandb-workspaces send, and stores history and summary
(file_stream), files and artifacts as they come: a step that is logged twice is stored twice. It answers an unknown
operation, variable or path with an error, and an unknown field with null. It records each in `unknown`, for which the
fixture fails the test.

It was written from the requests of wandb 0.31 and wandb-workspaces 0.4, not from the server's schema. Tests against it
do not prove that the real server accepts the same requests, gives the same answers, displays a table or report as
intended, or lists an upload as quickly.
"""

import base64
import gzip
import json
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.graphql_select import operation
from tests.wandb_graphql import answer
from tests.wandb_state import ENTITY, RequestError, Run, State

KEY = "0" * 40


class Server(State):
    """A running stand-in: `with Server() as server:`."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.requests: list[str] = []  # operations and paths, in order of arrival
        self.mode = "ok"  # ok, 500, 429, hang, gone
        self.held: Callable[[str], bool] = lambda request: False  # which requests hang, in any mode
        self._released = threading.Event()
        self._connections: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None
        self.port = 0

    def __enter__(self) -> "Server":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.fail("gone")

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that make wandb use this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def fail(self, mode: str) -> None:
        """Set the mode: ok, 500 and 429 (answer with that status), hang (never answer), gone (refuse connections)."""
        self.mode = mode
        self.held = lambda request: False
        if mode != "hang":
            self._released.set()
            self._released = threading.Event()
        if mode == "gone" and self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
            for connection in list(self._connections):
                ignore_closed(connection.shutdown, socket.SHUT_RDWR)
        if mode != "gone" and self._http is None:
            self._open()

    def delete(self, run: str, entity: str = ENTITY, name: str = "sweeper") -> None:
        """Delete a run. Its id cannot be used again, as on the real server."""
        project = self.project(entity, name)
        del project.runs[run]
        project.deleted.add(run)

    def _open(self) -> None:
        server = self

        class Bound(_Handler):
            stand_in = server

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), ConnectionError):  # clients are killed in tests
                    server.unknown.append(traceback.format_exc())

        self._http = Http(("127.0.0.1", self.port), Bound)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def ignore_closed(call: Callable[..., object], *arguments: object) -> None:
    """Call a function, and ignore the OSError of a closed connection."""
    with suppress(OSError):
        call(*arguments)


class _Handler(BaseHTTPRequestHandler):
    stand_in: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.stand_in._connections.add(self.connection)

    def finish(self) -> None:
        self.stand_in._connections.discard(self.connection)
        ignore_closed(super().finish)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        server, path = self.stand_in, unquote(self.path)
        graphql = json.loads(body) if path == "/graphql" else None
        request = f"graphql {operation(graphql['query'])}" if graphql else f"{self.command} {path}"
        server.requests.append(request)
        if server.mode == "hang" or server.held(request):
            server._released.wait(600)  # until the mode changes; the client has given up by then
            self.close_connection = True
            return None
        if server.mode in ("500", "429"):
            return self._reply({"errors": [{"message": f"made to answer {server.mode}"}]}, int(server.mode))
        if not path.startswith("/storage/") and not self._has_key():
            return self._reply({"errors": [{"message": "user is not logged in"}]}, 401)
        try:
            with server.lock:
                content = answer(server, graphql) if graphql else _path(server, self.command, path, body)
        except RequestError as error:
            status, message = error.args
            return self._reply({"errors": [{"message": message}]}, status)
        return self._reply(content)

    def _has_key(self) -> bool:
        expected = base64.b64encode(f"api:{KEY}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _reply(self, answer: Any, status: int = 200) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


# Paths: file_stream, and the storage of files and artifacts.


def _path(server: Server, method: str, path: str, body: bytes) -> Any:
    if (match := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)) and method == "POST":
        entity, project, run = match.groups()
        _stream(server, server.project(entity, project).runs[run], json.loads(body))
        return {}
    if match := re.fullmatch(r"/storage/run/([^/]+)/([^/]+)/([^/]+)/(.+)", path):
        entity, project, name, file = match.groups()
        owner = server.project(entity, project).runs[name]
        if method == "GET":
            return owner.files[file]
        owner.files[file] = body
        return {}
    if match := re.fullmatch(r"/storage/artifact/([^/]+)/(.+)", path):
        artifact, file = server.manifests[match[1]], match[2]
        if method == "GET":
            return artifact.files[file]
        artifact.files[file] = body
        return {}
    server.unknown.append(f"{method} {path}")
    raise RequestError(404, "unknown path")


_STREAM_KEYS = {"files", "uploaded", "complete", "exitcode", "dropped"}


def _stream(server: Server, run: Run, body: dict[str, Any]) -> None:
    if extra := set(body) - _STREAM_KEYS:
        server.unknown.append(f"file_stream with {extra}")
    for name, chunk in body.get("files", {}).items():
        rows = [json.loads(line) for line in chunk["content"]]
        if name == "wandb-history.jsonl":
            # A client resends a line whose answer was lost. Overwriting it with another line would lose data.
            for number, row in enumerate(rows, chunk["offset"]):
                if number < len(run.rows) and run.rows[number] != row:
                    server.unknown.append(f"line {number} of {run.id} is overwritten: {run.rows[number]} with {row}")
                elif number > len(run.rows):
                    server.unknown.append(f"line {number} of {run.id} is sent before line {len(run.rows)}")
                elif number == len(run.rows):
                    run.rows.append(row)
        elif name == "wandb-summary.json":
            run.summary = rows[-1]
        else:
            server.unknown.append(f"file_stream of {name}")
    if body.get("complete"):
        run.state = "finished" if body.get("exitcode") == 0 else "failed"
    elif "files" in body:
        run.state = "running"

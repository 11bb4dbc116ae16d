"""An export is published on a local stand-in of Hugging Face."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from sweeper.results import choice, export, hub
from sweeper.results.comparison import Comparison
from sweeper.store import Store
from tests.conftest import Done
from trainables.errors import EnvironmentUserError, UserError


class Hub(ThreadingHTTPServer):
    """One repository: its files by path, and the token that may write them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.token = "right"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/me/small/tree/main"):
            self.answer([{"type": "file", "path": path, "size": 1, "oid": "0"} for path in self.server.files])
        elif self.path.startswith("/api/models/me/small"):
            self.answer({"id": "me/small", "sha": "0" * 40, "siblings": [], "tags": []})
        else:  # what the client asks beside the upload
            self.answer({}, 404)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self.chunks()
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/{json.loads(body)['organization']}/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/small/preupload/main":
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif self.path.startswith("/api/models/me/small/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del self.server.files[line["value"]["path"]]
            commit = f"{self.server.url}/me/small/commit/1"
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": commit, "hookOutput": ""})
        else:
            self.server.unknown.append(self.path)
            self.answer({}, 404)

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of Hugging Face. A request to write that it does not know fails the test."""
    with Hub() as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stand_in.url)
        monkeypatch.setenv("HF_TOKEN", "right")
        yield stand_in
        stand_in.shutdown()
    assert stand_in.unknown == []


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path / "mine", ("safetensors",), 2, license_id="mit")
    return tmp_path / "mine"


def test_the_files_of_the_export_are_published_and_nothing_else(server: Hub, folder: Path) -> None:
    (folder / "notes.txt").write_text("private")
    server.files |= {"generator-int8.onnx": b"of an earlier export", "LICENSE": b"the user's"}
    assert hub.push(folder, "me/small") == f"{server.url}/me/small"
    expected = {"README.md", "spec.json", "generator.safetensors", "samples/0.png", "samples/1.png"}
    assert set(server.files) == {"LICENSE", *expected}
    assert all(server.files[path] == (folder / path).read_bytes() for path in expected)
    card = ModelCard(server.files["README.md"].decode()).data
    assert (card.license, card.pipeline_tag) == ("mit", "unconditional-image-generation")
    assert {result.metric_type for result in card.eval_results} == {"fid", "is", "kid", "sharpness"}


def test_a_refused_token_and_a_missing_network_are_one_line(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "another"
    with pytest.raises(
        EnvironmentUserError, match=r"me/small was not published \(.*401.*try again, or type `hf upload"
    ):
        hub.push(folder, "me/small")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentUserError, match=r"me/small was not published \(.*refused"):
        hub.push(folder, "me/small")
    assert (folder / "README.md").exists()


@pytest.mark.parametrize("name", ["small", "me/small/1", "me/", "../small", "me/a b"])
def test_a_wrong_name_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match="not the name of a repository; try user/name"):
        hub.check(name)


def test_without_a_token_nothing_is_exported(finished: Path, sweeper: Callable[..., Done], tmp_path: Path) -> None:
    words = ["export", "--store", str(finished / "runs"), "--d", "1", "--push-to-hub", "me/small"]
    done = sweeper(*words, cwd=tmp_path, HF_TOKEN="", HF_HOME=str(tmp_path / "home"))
    assert done.code == 5
    assert done.err.strip().splitlines()[-1].endswith("set HF_TOKEN, or run `hf auth login`")
    assert not (tmp_path / "exported").exists()

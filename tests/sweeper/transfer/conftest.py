"""Stores that take milliseconds to make, and a local S3 server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.store import FinalRecord, Manifest, RungRecord, Store
from trainables.files import file_hash, replacing
from trainables.scores.protocol import Score
from trainables.spec import TrialSpec

SERVER = """
import sys
from moto.server import ThreadedMotoServer
import boto3
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]))
server.start()
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}").create_bucket(Bucket="bucket")
print("ready", flush=True)
sys.stdin.read()
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def spec(d: int) -> TrialSpec:
    return TrialSpec(role="teacher", dataset="mnist5k", d=d, channels=1, d_discriminator=2)


def score(protocol: str, fid: float = 1.0) -> dict[str, Score]:
    return {"fid": Score(mean=fid, std=None, n=5, protocol=protocol)}


def rung(updates: int, fid: float = 1.0) -> RungRecord:
    return RungRecord(updates, 0.5, {}, score("rung", fid), False)


def train(store: Store, d: int, updates: int, content: bytes = b"w") -> str:
    """Write what a job writes, in its order. Return the signature."""
    trial = spec(d)
    for path in (store.checkpoint(trial.signature), store.weights(trial.signature, "generator", updates)):
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(content * 2_000)
    weights = file_hash(store.weights(trial.signature, "generator", updates))
    store.add(trial, final=FinalRecord(updates, weights, score("selection"), score("report")))
    store.add(trial, rung=rung(updates))
    return trial.signature


def save_sweep(store: Store, name: str, signatures: list[str]) -> None:
    """Write a manifest of these trials."""
    store.save_sweep(
        Manifest(
            name=name,
            role="teacher",
            dataset="mnist5k",
            image_size=32,
            metric="fid",
            features="classifier",
            real={},
            real_bytes=1,
            updates=20,
            rungs=[10, 20],
            eta=3,
            n={"rung": 5, "selection": 5, "report": 5},
            protocols={purpose: purpose for purpose in ("rung", "selection", "report")},
            signatures=signatures,
        )
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of two trials and a sweep."""
    store = Store(tmp_path / "runs")
    store.create()
    save_sweep(store, "teachers", [train(store, d, 10) for d in (1, 2)])
    return store


def contents(root: Path) -> dict[str, bytes]:
    """Return what a transfer moves, by path."""
    left_out = ("bank", "live", "wandb", "driver.claim", "transfers.json")
    files = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    moves = {
        name: path
        for name, path in files.items()
        if name.parts[0] not in left_out and path.name[0] != "." and ".lock" not in path.name
    }
    return {str(name): path.read_bytes() for name, path in moves.items()}


def start_s3(**environment: str) -> tuple["subprocess.Popen[str]", str]:
    """Start a local S3 server. Return its process and the options of its URLs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **CREDENTIALS, **environment},
    )
    assert process.stdout is not None
    assert "ready\n" in iter(process.stdout.readline, "")
    return process, f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@pytest.fixture(scope="module")
def s3_options() -> Iterator[str]:
    """Start a local S3 server with an empty bucket `bucket`, in 5 s. Yield the options of its URLs."""
    process, options = start_s3()
    yield options
    process.communicate(timeout=20)


@pytest.fixture(params=["folder", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new place, of each kind in turn."""
    if request.param == "s3":
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        options = request.getfixturevalue("s3_options")
        return f"s3://bucket/{tmp_path.name}-{time.time_ns()}{options}"
    return f"file://{tmp_path}/there" if request.param == "file" else str(tmp_path / "there")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return a function that returns what was printed since its last call."""
    return lambda: capsys.readouterr().out

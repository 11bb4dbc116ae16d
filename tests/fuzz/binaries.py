"""Damaged binaries of a store, from seeds: weights, data sets, classifier, statistics, checkpoints, shards of the bank.

A command that reads one gives the result that it gives without the damage, or one short error. Checkpoints and shards
are read only while Ray runs, so that their readers are called here.
"""

import contextlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from sweeper.execution.job import _save_weights
from sweeper.records import FinalRecord
from sweeper.store import Store
from tests.fuzz.case import import_all, limited, run
from tests.sweeper import stores
from trainables import checkpoint
from trainables.bank import Bank, shard_path
from trainables.dataset_identity import identify
from trainables.errors import SpoiledError
from trainables.images import prepare
from trainables.networks import build
from trainables.teacher_images import TeacherImages
from trainables.tensors import map_array, read_tensors, write_array, write_tensors
from trainables.training import Rung

LINES = 3  # of a message
WORDS = [b"NaN", b"-1", b"9" * 30, b"[" * 9999, b"\xff\xfe", b"null"]
SPEC = stores.teacher(1, d_discriminator=1)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return something else than the content of a file."""
    position, count = rng.randrange(len(content)), rng.randrange(1, 200)
    header = 8 + int.from_bytes(content[:8], "little") if content[:1] != b"\x93" else 128
    near = rng.randrange(min(header, len(content)))  # most of what a reader has to check is in the header
    ways: list[Callable[[], bytes]] = [
        lambda: content[:position],
        lambda: content[:near],
        lambda: b"",
        lambda: content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :],
        lambda: content[:near] + bytes([content[near] ^ 1 << rng.randrange(8)]) + content[near + 1 :],
        lambda: content[:near] + rng.randbytes(count) + content[near:],
        lambda: content[:near] + content[near + count :],
        lambda: content + rng.randbytes(count),
        lambda: bytes(len(content)),
        lambda: rng.randbytes(len(content)),
        lambda: rng.choice([2**63, 2**31, 2**40]).to_bytes(8, "little") + content[8:],
        lambda: content[:near] + rng.choice(WORDS) + content[near:],
        lambda: content.replace(b"F32", rng.choice([b"F64", b"I32", b"U16", b"F99"])).replace(b"|u1", b"<f8"),
        lambda: b"PK\x03\x04" + content,
    ]  # fmt: skip
    return next(new for _ in range(99) if (new := rng.choice(ways)()) != content)


def put(path: Path, rng: random.Random) -> None:
    """Damage a file, or put something else in its place."""
    content = path.read_bytes()
    what = rng.randrange(8)
    if what > 2:
        path.write_bytes(damaged(content, rng))
        return
    path.unlink()
    if what == 0:
        path.mkdir()
    elif what == 1:
        os.mkfifo(path)
    else:
        path.symlink_to("nothing")


@dataclass(frozen=True)
class Case:
    """A command, and what is done to the store `runs` in its folder before."""

    words: list[str]
    prepare: Callable[[Path], None]


@cache
def _whole() -> Path:
    """Return a folder with a store of one finished teacher and one scored data set, and samples to score."""
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="sweeper-whole-"))
    store, rng = Store(folder / "runs"), np.random.default_rng(0)
    stores.sweep(store, "teacher", [SPEC.signature])
    final = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}
    stores.trial(store, SPEC, 1.0, final)
    assert SPEC.discriminator is not None
    rung = Rung(30, build(SPEC.generator, 1), build(SPEC.discriminator, 2), {}, 1.0)
    scores = {purpose: stores.scores(*pair, purpose) for purpose, pair in final.items()}
    store.add(SPEC, final=FinalRecord(30, **_save_weights(SPEC, rung, store), **scores))
    for number in range(40):
        path = folder / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((120 * (number % 2) + rng.integers(0, 9, (32, 32))).astype(np.uint8)).save(path)
    shutil.copytree(folder / "photos" / "class0", folder / "samples")
    name = identify(str(folder / "photos"), store.datasets)
    prepare(name, 32, store.datasets, folder=folder / "photos")
    code, _, err, trace = run(_score(name), folder)  # trains the classifier, and computes the statistics
    assert code == 0, err + trace
    return folder


def _score(name: str) -> list[str]:
    return ["score", "samples", "--against", name, "--features", "classifier", "--json"]


def weights(rng: random.Random) -> Case:
    """The weights of a generator that is exported."""
    words = ["export", "--trial", SPEC.signature, "--format", "safetensors", "-o", "out"]
    return Case(words, lambda folder: put(Store(folder / "runs").weights(SPEC.signature, "generator", 30), rng))


def arrays(rng: random.Random) -> Case:
    """What `score` reads of a prepared data set: its images, its classifier, the statistics of the real images."""
    pattern = rng.choice(
        ["datasets/photos-*-32.npy", "scores/classifier-*.safetensors", "scores/real-*-84.safetensors"]
    )
    (name,) = (path.stem.removesuffix("-32") for path in (_whole() / "runs" / "datasets").glob("photos-*-32.json"))

    def damage(folder: Path) -> None:
        (path,) = (folder / "runs").glob(pattern)
        put(path, rng)

    return Case(_score(name), damage)


FAMILIES: dict[str, tuple[Callable[[random.Random], Case], int]] = {"weights": (weights, 60), "arrays": (arrays, 90)}


def check(family: str, seed: int) -> str:
    """Run a case. Return what is wrong with its outcome; an empty text if nothing is."""
    case = FAMILIES[family][0](random.Random(f"{family} {seed}"))
    with tempfile.TemporaryDirectory(prefix="sweeper-fuzz-") as place:
        folder = shutil.copytree(_whole(), Path(place) / "work")
        expected = _expected(family, tuple(case.words))
        case.prepare(folder)
        code, out, err, trace = run(case.words, folder)
    said = [line for line in err.splitlines() if line.strip()]
    wrong = []
    if trace or "Traceback" in err:
        wrong.append("a traceback")
    if code == 0 and (out != expected or family == "weights"):
        wrong.append("exit 0 with another result")
    if code not in (0, 2):
        wrong.append(f"exit {code}")
    if len(said) > LINES or (code != 0 and not said):
        wrong.append(f"{len(said)} lines")
    return f"{family} {seed}: {', '.join(wrong)}\n{err[-1500:]}{trace}" if wrong else ""


@cache
def _expected(family: str, words: tuple[str, ...]) -> str:
    """Return what the command prints without damage."""
    with tempfile.TemporaryDirectory(prefix="sweeper-fuzz-") as place:
        code, out, err, trace = run(list(words), shutil.copytree(_whole(), Path(place) / "work"))
    assert code == 0, err + trace
    return out


# Readers.


def read_a_checkpoint(seed: int, folder: Path) -> None:
    """A damaged checkpoint costs the updates since the one before, and restores nothing of its own."""
    rng, path = random.Random(f"checkpoint {seed}"), folder / "checkpoint.safetensors"
    parts: list[checkpoint.Parts] = []
    for updates in (10, 20):
        torch.manual_seed(updates)
        network = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        parts.append({"generator": network, "optimizer": optimizer})
        checkpoint.save(path, parts[-1], updates, at_rung=rng.random() < 0.5)
    ((_, newest, _),) = [entry for entry in checkpoint._files(path) if entry[0] == 20]
    put(newest, rng)
    torch.manual_seed(0)
    fresh = nn.Linear(3, 2)
    restored: checkpoint.Parts = {"generator": fresh, "optimizer": torch.optim.Adam(fresh.parameters())}
    with limited():
        updates = checkpoint.load(path, restored, at_most=30)
    # A bit of the name of the checksum itself changes nothing that is restored.
    saved = parts[{10: 0, 20: 1}[updates]]["generator"]
    assert isinstance(saved, nn.Linear)
    assert torch.equal(fresh.weight, saved.weight)


def read_a_shard(seed: int, folder: Path) -> None:
    """A damaged shard is rendered again."""
    rng = random.Random(f"shard {seed}")

    def teacher(z: np.ndarray) -> np.ndarray:
        return (np.abs(z[:, :16]) * 50).astype(np.uint8).reshape(-1, 1, 4, 4)

    Bank(folder, 10, TeacherImages(teacher))(np.arange(10))
    put(shard_path(folder, 0), rng)
    with limited():
        z, images = Bank(folder, 10, TeacherImages(teacher), (1, 4, 4))(np.arange(10))
    assert np.array_equal(images, teacher(z))


def read_an_array(seed: int, folder: Path) -> None:
    """A reader returns an array of the expected type and dimensions, or raises SpoiledError."""
    rng, path = random.Random(f"array {seed}"), folder / "a.npy"
    written = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    if with_checksum := rng.random() < 0.5:
        write_array(path, written)
    else:
        np.save(path, written)
    put(path, rng)
    with limited(), contextlib.suppress(SpoiledError):
        array = map_array(path, np.uint8, 4)
        assert not with_checksum or np.array_equal(array, written)
        assert array.dtype == np.uint8
        assert int(array.sum()) >= 0, "it can be read to its end"


def read_tensors_with_a_checksum(seed: int, folder: Path) -> None:
    """A reader returns what was written, or raises SpoiledError."""
    rng, path = random.Random(f"tensors {seed}"), folder / "a.safetensors"
    written = {"mean/3": np.arange(3.0), "covariance/3": np.eye(3, dtype=np.float32)}
    write_tensors(path, written, {"facts": json.dumps({"n": 3})})
    put(path, rng)
    with limited(), contextlib.suppress(SpoiledError):
        found, metadata = read_tensors(path, like=written)
        assert all(np.array_equal(found[name], written[name]) for name in written)
        assert metadata["facts"] == '{"n": 3}'


READERS: dict[str, tuple[Callable[[int, Path], None], int]] = {
    reader.__name__: (reader, cases)
    for reader, cases in [
        (read_a_checkpoint, 150),
        (read_a_shard, 80),
        (read_an_array, 300),
        (read_tensors_with_a_checksum, 300),
    ]
}

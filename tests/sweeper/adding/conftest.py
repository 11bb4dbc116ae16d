"""A store with an added teacher, and sweeps that train in this process: without Ray, in seconds."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweeper import run as running
from sweeper.adding.command import AddRequest, add
from sweeper.execution import job as jobs
from sweeper.request import Request
from sweeper.scheduling.sweep import Sweep
from sweeper.session import Session
from sweeper.store import Store
from tests.sweeper.adding.generators import SIDE, onnx_file
from trainables.scores.features import Activations
from trainables.scores.loading import FEATURES, FeatureNetwork

SHORT = ["updates=6", "first_rung=2", "batch_size=4", "confirm=0", "d=1", "latents=64", "lr=0.004"]
ALPHA = ["alpha=0.1", "d_discriminator=1", "warmup=1"]


def request(source: object, store: Path, **changes: Any) -> AddRequest:
    fields: dict[str, Any] = dict.fromkeys(AddRequest.__dataclass_fields__)
    fields |= {"source": str(source), "store": store, "data_root": store, "download": False, "command": "sweeper"}
    fields |= {"n": 40, "features": "means"}
    return AddRequest(**(fields | changes))


class Means:
    """Features that need no training: means of the quarters of an image, over its colours."""

    name, dims, preprocessing = "means", 16, "none"

    def __call__(self, images: np.ndarray) -> Activations:
        count, _, side, _ = images.shape
        quarters = images.mean(axis=1).reshape(count, 4, side // 4, 4, side // 4).mean(axis=(2, 4))
        return Activations({self.dims: quarters.reshape(count, -1)})


@pytest.fixture(scope="session", autouse=True)
def means() -> Iterator[None]:
    """Register the features."""
    FEATURES["means"] = FeatureNetwork(lambda images, cache: Means(), macs=1.0)
    yield
    del FEATURES["means"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 60 pictures of noise, each of another brightness."""
    folder, rng = tmp_path_factory.mktemp("real") / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(60):
        pixels = rng.normal(rng.uniform(50, 200), 30, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Return a folder with big.onnx, and a store `runs` that has it as the teacher big."""
    folder = tmp_path_factory.mktemp("added")
    onnx_file(folder / "big.onnx")
    add(request(folder / "big.onnx", folder / "runs", dataset=str(photos), latent_law="uniform"))
    return folder


@pytest.fixture
def added(made: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run_students(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """Return a function that runs a sweep in this process, and returns it."""

    def train(sweep: Sweep, session: Session, *_: Any) -> None:
        store = session.store
        while (job := sweep.next()) is not None:
            sweep.start(job)
            jobs.run(job, sweep.manifest, store)
            assert sweep.report(job, store.require(job.signature))

    def call(root: Path, *assignments: str, **fields: Any) -> Sweep:
        fields = {"role": "student", "assignments": [*SHORT, *assignments], "features": "means", **fields}
        request = Request(store=root / "runs", **fields)
        assert running.run(request) == 0
        store = Store(root / "runs")
        manifest = store.latest()
        assert manifest is not None
        return Sweep.read(manifest, store)

    monkeypatch.setattr(running, "_train", train)
    return call

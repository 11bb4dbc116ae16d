"""Fixtures that tests share: the digits, a finished store, a browser, the console script."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from sweeper.store import Store
from trainables.images import Images, prepare

# Ray's workers import tests.sweeper.replay, and nothing from the current folder.
ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])

# A sweep that takes seconds: two rungs, three configurations per d, one of which is pruned.
TINY = ["--set", "updates=24", "--set", "first_rung=8", "--set", "batch_size=16"]
TINY += ["--set", "n_rung=64", "--set", "n_selection=64", "--set", "n_report=64", "--set", "confirm=0"]
TEACHERS = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1,2", "--set", "lr=0.002,0.004,0.008"]
TEACHERS += ["--set", "lr_discriminator=0.001"]
STUDENTS = ["run", "students", *TINY, "--set", "d=1", "--set", "latents=64", "--set", "warmup=4"]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


# The files that take longest and wait most. They start first, so that no process of pytest-xdist ends with one alone.
# The second and the third do not need the finished store, which the first one makes.
FIRST = ["test_reliability.py", "test_uploader.py", "test_docs.py", "test_cluster.py", "test_export.py", "test_page.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def sweeper() -> Callable[..., Done]:
    """Return a function that runs the console script: `sweeper("table", cwd=folder)`."""

    def call(*words: str, cwd: Path, **environment: str) -> Done:
        script = Path(sys.executable).with_name("sweeper")
        done = subprocess.run(
            [script, *words], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Return the 5,000 real digits at 32×32."""
    return prepare("mnist5k", 32, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium: the system's, else playwright's. Without one, skip the test, or fail it in CI."""
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        if not system and not Path(playwright.chromium.executable_path).exists():
            reason = "no Chromium: install your system's package, or run `playwright install chromium`"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=system, args=root)
        yield started
        started.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> Path:
    """Return a folder whose store `runs` holds a finished teacher sweep and a finished student sweep.

    It is made once for all pytest-xdist processes; each gets a copy. Starts Ray twice.
    """
    folder = tmp_path_factory.mktemp("finished")
    root = tmp_path_factory.getbasetemp()  # with pytest-xdist, its parent is common to all processes
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished-by-all"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            new = tmp_path_factory.mktemp("new")
            for command in (TEACHERS, STUDENTS):
                done = sweeper(*command, cwd=new)
                assert done.code == 0, done.err
            new.rename(shared)
    shutil.copytree(shared, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def fresh(finished: Path, tmp_path: Path) -> Path:
    """Return a folder whose store holds the digits and their classifier, which take 10 s to make, but no trial."""
    store = Store(tmp_path / "runs")
    store.create()
    for part in ("datasets", "scores"):
        shutil.copytree(finished / "runs" / part, store.root / part)
    return tmp_path


@pytest.fixture
def colour_folder(tmp_path: Path) -> Path:
    """Return a folder of colour PNGs of various sizes: one subfolder per class, each with a text file."""
    generator = np.random.default_rng(0)
    for label, colour in enumerate([(220, 40, 40), (40, 40, 220)]):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(30):
            height, width = generator.integers(20, 60, size=2)
            noise = generator.integers(-30, 30, size=(height, width, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / "notes.txt").write_text("not an image")
    return tmp_path / "photos"

"""What tests share: prepared digits, and one store made by the product itself."""

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

# A sweep that takes seconds: two rungs, three configurations per d, one of which is pruned.
TINY = ["--set", "updates=24", "--set", "first_rung=8", "--set", "batch_size=16"]
TINY += ["--set", "n_rung=64", "--set", "n_selection=64", "--set", "n_report=64"]
TEACHERS = ["run", "teachers", "--dataset", "mnist5k", *TINY, "--set", "d=1,2", "--set", "lr=0.002,0.004,0.008"]
TEACHERS += ["--set", "lr_discriminator=0.001"]
STUDENTS = ["run", "students", *TINY, "--set", "d=1", "--set", "latents=64", "--set", "warmup=4"]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def sweeper() -> Callable[..., Done]:
    """Run the console script as a user does: `sweeper("table", cwd=folder)`."""

    def call(*words: str, cwd: Path, **environment: str) -> Done:
        script = Path(sys.executable).with_name("sweeper")
        done = subprocess.run(
            [script, *words], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The 5,000 real digits at 32×32."""
    return prepare("mnist5k", 32, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the system's, else playwright's. Without one its tests are skipped, but in CI they fail."""
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        if not system and not Path(playwright.chromium.executable_path).exists():
            what = "there is no Chromium: install your system's package, or type `playwright install chromium`"
            pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=system, args=root)
        yield started
        started.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, sweeper: Callable[..., Done]) -> Path:
    """A folder whose store `runs` holds a finished teacher and a finished student sweep. Takes Ray's start twice.

    Made once for all processes that test (pytest-xdist); each works on a copy.
    """
    mine = tmp_path_factory.mktemp("finished")
    root = tmp_path_factory.getbasetemp()  # of this process: of all of them it is the folder above
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished-by-all"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            made = tmp_path_factory.mktemp("made")
            for command in (TEACHERS, STUDENTS):
                done = sweeper(*command, cwd=made)
                assert done.code == 0, done.err
            made.rename(shared)
    shutil.copytree(shared, mine, dirs_exist_ok=True)
    return mine


@pytest.fixture
def fresh(finished: Path, tmp_path: Path) -> Path:
    """A folder whose store holds the digits and their classifier, which take 10 s to make, and no trial."""
    store = Store(tmp_path / "runs")
    store.create()
    for part in ("datasets", "scores"):
        shutil.copytree(finished / "runs" / part, store.root / part)
    return tmp_path


@pytest.fixture
def colour_folder(tmp_path: Path) -> Path:
    """Colour PNGs of mixed sizes, one subfolder per class, with a text file among them."""
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

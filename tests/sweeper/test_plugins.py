"""Plug-ins of feature networks and data sets: their content is part of protocols and identities."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sweeper.store import Store
from tests.conftest import TINY, Done
from trainables import plugins
from trainables.dataset_identity import identify
from trainables.errors import UserError
from trainables.scores.loading import FEATURES, load_features

MEAN = """
import numpy as np
from trainables.scores.features import Activations
from trainables.scores.loading import feature_network

class Mean:
    name, dims, preprocessing = "mean", 2, "none"

    def __call__(self, images):
        return Activations({2: np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1).astype(np.float32)})

@feature_network(macs=1.0)
def mean(images, cache):
    return Mean()
"""
ROWS = """
import numpy as np
from trainables.datasets import Source, dataset

@dataset(channels=1, metric="fid", features="mean", folder="rows")
def rows(data_root, download):
    return Source(list(np.load(data_root / "rows" / "rows.npy")), None)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], plugins.Plugin]:
    """Load a text as a plug-in. It replaces an earlier version of itself."""

    def load(name: str, text: str) -> plugins.Plugin:
        (tmp_path / f"{name}.py").write_text(text)
        return plugins.load(str(tmp_path / f"{name}.py"))

    yield load  # type: ignore[misc]
    for name in list(plugins.LOADED):
        forget(name)


def forget(name: str) -> None:
    if name in plugins.LOADED:
        plugins.unload(name)


def test_an_edited_feature_network_scores_by_another_protocol(plugin: Callable[..., plugins.Plugin]) -> None:
    first = plugin("mine", MEAN)
    assert load_features("mean", None, Path()).name == f"mean@{first.id}"
    second = plugin("mine", MEAN + "# edited\n")
    assert load_features("mean", None, Path()).name == f"mean@{second.id}" != f"mean@{first.id}"


def test_a_folder_or_a_module_that_was_imported_before_is_no_plug_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file; name a Python file or a module"):
        plugins.load(f"{tmp_path}/")
    with pytest.raises(UserError, match="json was imported before; import it by --plugin only"):
        plugins.load("json")


def test_a_registered_set_is_known_by_its_files_and_its_loader(
    plugin: Callable[..., plugins.Plugin], tmp_path: Path
) -> None:
    (tmp_path / "rows").mkdir()
    np.save(tmp_path / "rows" / "rows.npy", np.zeros((3, 32, 32), dtype=np.uint8))
    plugin("mine", ROWS)
    first = identify("rows", tmp_path / "cache", tmp_path)
    plugin("mine", ROWS.replace('"fid"', '"is"'))
    second = identify("rows", tmp_path / "cache", tmp_path)
    np.save(tmp_path / "rows" / "rows.npy", np.ones((3, 32, 32), dtype=np.uint8))
    assert len({first, second, identify("rows", tmp_path / "cache", tmp_path)}) == 3


def test_a_plug_in_of_another_version_than_expected_is_refused(
    plugin: Callable[..., plugins.Plugin], tmp_path: Path
) -> None:
    identity = plugin("mine", MEAN).id
    forget("mine")
    (tmp_path / "mine.py").write_text(MEAN + "# edited\n")
    with pytest.raises(UserError, match=rf"not {identity}; use the same version on all nodes"):
        plugins.load(str(tmp_path / "mine.py"), expected=identity)
    assert "mean" not in FEATURES


@pytest.mark.long
def test_a_set_that_is_chosen_by_is_is_chosen_by_fid_on_features_without_classes(
    fresh: Path, sweeper: Callable[..., Done]
) -> None:
    """Takes Ray's start."""
    (fresh / "mine.py").write_text(MEAN)
    words = ["run", "teachers", "--dataset", "mnist5k", "--features", "mean", "--plugin", "mine.py", *TINY]
    done = sweeper(*words, "--set", "d=1", "--set", "lr=0.004", cwd=fresh)
    assert done.code == 0, done.err
    assert "no Inception Score: FID chooses" in done.err
    manifest = Store(fresh / "runs").sweep("mnist5k-teachers")
    assert manifest is not None
    assert manifest.metric == "fid"
    assert sweeper("table", "--plugin", "mine.py", cwd=fresh).code == 0
    shutil.rmtree(fresh / "runs" / "plugins")
    again = sweeper(*words, "--set", "d=1", "--set", "lr=0.004", cwd=fresh)
    assert "1 done, 0 new" in again.err


def test_a_feature_network_that_nothing_registers_is_not_imported() -> None:
    for name in ("antigravity", "antigravity:open"):
        with pytest.raises(UserError, match=r"is unknown; .*add --plugin FILE"):
            load_features(name, None, Path())
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("kind", ["pipe", "loop", "device", "huge"])
def test_a_plug_in_that_is_no_file_is_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 10**12)
    else:
        path.symlink_to({"loop": "mine.py", "device": "/dev/zero"}[kind])
    with pytest.raises(UserError, match=r"--plugin .*mine\.py"):
        plugins.load(str(path))

"""Packages that not everybody needs: what each extra brings, and what is said without it."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import app
from sweeper.request import Request
from sweeper.results import export
from sweeper.results.notebook import Runs
from sweeper.run import run
from sweeper.store import Store
from trainables.errors import EnvironmentUserError
from trainables.extras import DISTRIBUTION, EXTRAS, installation, missing_extras, require
from trainables.scores.imagenet import ImageNet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"sweeper", "trainables", "search_spaces"}
_INSTALLED = cache(packages_distributions)  # module → distributions
FILES = [path for package in sorted(OURS) for path in sorted((ROOT / package).rglob("*.py"))]
TOP = {"sweeper/results/page.py", "sweeper/results/figures.py"}  # they import an extra where they begin


def command(*words: str) -> Callable[[], Any]:
    return lambda: app(words, standalone_mode=False)


NEEDS: list[tuple[str, Callable[[], Any]]] = [
    ("report", command("report")),
    ("report", lambda: Runs(Store(Path("runs"))).pareto()),
    ("onnx", lambda: export.write(None, Path("exported"), export.FORMATS, 0)),  # type: ignore[arg-type]
    ("wandb", command("wandb", "sync")),
    ("wandb", command("wandb", "report")),
    ("wandb", lambda: run(Request(role="teacher", dataset="mnist5k", wandb="online"))),
    ("imagenet", ImageNet),
]


@pytest.mark.parametrize(("extra", "use"), NEEDS, ids=[f"{n}-{extra}" for n, (extra, _) in enumerate(NEEDS)])
def test_what_needs_an_extra_names_it_and_writes_nothing(
    extra: str, use: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, EXTRAS[extra][0], None)
    with pytest.raises(EnvironmentUserError) as caught:
        use()
    assert f"needs {EXTRAS[extra][0]}, which is not installed; pip install '{DISTRIBUTION}[{extra}]'" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_extra_is_tried_and_none_is_missing_here() -> None:
    assert {extra for extra, _ in NEEDS} == set(EXTRAS)
    assert missing_extras() == []
    for extra in EXTRAS:
        require(extra, "nothing")


def test_a_plain_folder_of_the_same_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb makes a folder `wandb` where it runs."""
    (tmp_path / "folder_of_runs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "runs", ("folder_of_runs", "pytest"))
    assert missing_extras() == ["runs"]
    with pytest.raises(EnvironmentUserError, match=r"it needs folder_of_runs, which is not .*, or leave it"):
        require("runs", "it", "leave it")
    monkeypatch.setitem(EXTRAS, "runs", ("folder_of_runs", "none", "no_other"))
    with pytest.raises(
        EnvironmentUserError, match="it needs folder_of_runs, none and no_other, which are not installed"
    ):
        require("runs", "it")


@cache
def imports(path: Path, top: bool) -> set[str]:
    """Return what a file imports, as full names. top: only where the file begins."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def distributions(module: str) -> set[str]:
    """Return the distributions that bring a module, by normalised names."""
    return {normalised(name) for name in _INSTALLED().get(module, [])}


def declared(requirements: list[str]) -> set[str]:
    """Return the names of distributions, normalised."""
    return {normalised(re.split(r"[\[<>=]", line)[0]) for line in requirements}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_base_install_brings_all_that_the_code_imports_but_the_extras() -> None:
    optional = {module for modules in EXTRAS.values() for module in modules}
    imported = {name.split(".")[0] for path in FILES for name in imports(path, top=False)}
    others = imported - OURS - optional - set(sys.stdlib_module_names)
    base = declared(PROJECT["dependencies"])
    assert {name for name in others if not base & distributions(name)} == set()
    assert {"torch", "ray", "psutil"} <= others


def test_the_extras_are_those_of_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    assert PROJECT["name"] == DISTRIBUTION
    for name, modules in EXTRAS.items():
        assert set().union(*map(distributions, modules)) == declared(extras[name])
    listed = set(re.findall(r"[a-z]+", extras["all"][0].partition("[")[2]))
    assert listed == set(extras) - {"all", "dev"}
    assert f"{DISTRIBUTION}[{','.join(sorted(EXTRAS))}]" in extras["dev"]


def test_only_two_files_import_an_extra_where_they_begin_and_no_file_begins_with_these() -> None:
    optional = {module for modules in EXTRAS.values() for module in modules}
    beginning = {str(path.relative_to(ROOT)): imports(path, top=True) for path in FILES}
    assert {path for path, names in beginning.items() if optional & {name.split(".")[0] for name in names}} == TOP
    modules = {path.removesuffix(".py").replace("/", ".") for path in TOP}
    assert {path for path, names in beginning.items() if modules & names} <= TOP


def test_pytorch_fid_is_used_for_its_network_alone() -> None:
    """Its distance calls scipy's square root of a matrix with an argument that scipy 1.18 has removed."""
    used = {name for path in FILES for name in imports(path, top=False) if name.startswith("pytorch_fid")}
    assert {name for name in used if name.count(".") == 1} == {"pytorch_fid.inception"}


def test_documents_and_messages_name_this_distribution() -> None:
    texts = [
        *FILES,
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("clusters/*"),
        *ROOT.glob("tests/**/*.py"),
    ]
    named = {
        match for path in texts for match in re.findall(r"pip install[^\n]*?([\w-]+)\[[\w,]+\]'", path.read_text())
    }
    assert named <= {DISTRIBUTION, "moto"}
    assert installation("onnx", "report") == f"pip install '{DISTRIBUTION}[onnx,report]'"

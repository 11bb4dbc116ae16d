"""The documentation: links, commands and the reference are valid."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

from sweeper import __version__
from sweeper.cli import app
from sweeper.spaces import SETTINGS
from trainables import plugins
from trainables.spec import FIELDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_CODE = re.compile(r"```.*?\n(.*?)```", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_are_valid(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `sweeper …` in a page's code: indented lines, fences, backticks with arguments."""
    text = page.read_text()
    if page.name == "reference.md":
        return
    lines = [*re.findall(r"^    (.+)$", text, re.MULTILINE), *"\n".join(_CODE.findall(text)).splitlines()]
    lines += re.findall(r"`(sweeper [^`]+)`", _CODE.sub("", text))
    for line in lines:
        for command in re.findall(r"(?:^|')(sweeper [^'#]+)", line.strip()):
            if "…" not in command:
                yield shlex.split(command)[1:]


ALL = [(name, words) for name in NAMES for words in commands(ROOT / name)]


def test_the_pages_have_commands() -> None:
    assert len(ALL) > 60


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_commands_are_valid(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load", lambda reference: None)  # the files of the pages do not exist here
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        options = {"--help", *(option for parameter in command.params for option in parameter.opts)}
        assert not words or words[0] in options, f"{name}: no command {words[0]}"
        return
    if not words:
        return  # a command named in a sentence
    parameters = command.make_context("sweeper", list(words)).params
    for assignment in parameters.get("assignments") or []:
        key = assignment.partition("=")[0]
        assert key in {*FIELDS, *SETTINGS}, key


def test_the_reference_is_up_to_date() -> None:
    path = ROOT / "docs" / "reference.py"
    specification = importlib.util.spec_from_file_location("reference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (ROOT / "docs" / "reference.md").read_text() == module.page(), "type `python docs/reference.py`"
    assert all(f"| `{name}` |" in module.page() for name in ("alpha", "d", "updates", "n_rung"))


def test_every_option_of_a_generator_that_is_added_is_explained() -> None:
    command: Any = typer.main.get_command(app)
    options = [option.opts[0] for option in command.commands["teacher"].commands["add"].params if option.opts]
    text = (ROOT / "docs" / "how-to" / "own-gan.md").read_text()
    of_every_command = {"source", "--store", "--data-root", "--download", "--plugin", "--help", "--name"}
    assert {"--latent-law", "--range", "--n"} <= set(options)
    assert [option for option in options if option not in text and option not in of_every_command] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        relative = page.relative_to(ROOT / "docs")
        assert str(relative) in index or relative.parts[0] == "decisions" or relative.name == "README.md", relative


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/1902.00159"


def script_of(page: Path) -> str:
    """Return the commands of a page as one script: indented lines, and fences of sh."""
    lines, fence = [], None
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fence = None if fence is not None else line.removeprefix("```")
        elif fence == "sh":
            lines.append(line)
        elif fence is None and line.startswith("    "):
            lines.append(line.strip())
    return "\n".join(lines)


@pytest.mark.long
def test_the_tutorial_word_for_word_exports_a_student(tmp_path: Path) -> None:
    """Skip the installation, and run everything else. Takes ten minutes, because it trains."""
    install, _, script = script_of(ROOT / "docs" / "tutorial.md").partition("source .venv/bin/activate\n")
    assert "pip install" in install
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    completed = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert list(tmp_path.glob("runs/reports/*.html"))
    assert len(list((tmp_path / "small-one" / "samples").glob("*.png"))) == 100
    with Image.open(tmp_path / "made.png") as image:
        assert image.size == (16 * 32, 32)
        assert np.asarray(image).std() > 20

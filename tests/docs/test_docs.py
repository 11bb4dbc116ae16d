"""What the documentation says is there: its links, its commands, its reference."""

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
from PIL import Image

from sweeper.cli import app
from trainables import plugins
from trainables.spec import FIELDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_CODE = re.compile(r"```.*?\n(.*?)```", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
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
    """The words of every `sweeper …` in a page's code: indented lines, fences, backticks with arguments."""
    text = page.read_text()
    if page.name == "reference.md":
        return
    lines = [*re.findall(r"^    (.+)$", text, re.MULTILINE), *"\n".join(_CODE.findall(text)).splitlines()]
    lines += re.findall(r"`(sweeper [^`]+)`", _CODE.sub("", text))
    for line in lines:
        for found in re.findall(r"(?:^|')(sweeper [^'#]+)", line.strip()):
            words = shlex.split(found)[1:]
            if "…" not in found:
                yield words


ALL = [(name, words) for name in NAMES for words in commands(ROOT / name)]


def test_there_are_commands_to_test() -> None:
    assert len(ALL) > 60


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_every_command_is_one_that_sweeper_has(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load", lambda reference: None)  # a page's reader has the plug-in, this test has not
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        own = {"--help", *(option for parameter in command.params for option in parameter.opts)}
        assert not words or words[0] in own, f"{name}: no command {words[0]}"
        return
    if not words:
        return  # a command named in a sentence
    taken = command.make_context("sweeper", list(words)).params
    for assignment in taken.get("assignments") or []:
        key = assignment.partition("=")[0]
        assert key in {*FIELDS, "updates", "first_rung", "rungs", "eta", "n_rung", "n_selection", "n_report"}, key


def test_the_reference_is_what_the_commands_say() -> None:
    path = ROOT / "docs" / "reference.py"
    specification = importlib.util.spec_from_file_location("reference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (ROOT / "docs" / "reference.md").read_text() == module.page(), "type `python docs/reference.py`"
    assert all(f"| `{name}` |" in module.page() for name in ("alpha", "d", "updates", "n_rung"))


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        relative = page.relative_to(ROOT / "docs")
        assert str(relative) in index or relative.parts[0] == "decisions" or relative.name == "README.md", relative


def typed(page: Path) -> str:
    """What a page has its reader type, as one script: indented lines, and fences of sh."""
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
def test_the_tutorial_word_for_word_leads_from_pictures_to_an_onnx_student(tmp_path: Path) -> None:
    """But for the installation, which is what this test runs in. Ten minutes: it trains what the tutorial trains."""
    install, _, script = typed(ROOT / "docs" / "tutorial.md").partition("source .venv/bin/activate\n")
    assert "pip install" in install
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.glob("runs/reports/*.html"))
    assert len(list((tmp_path / "small-one" / "samples").glob("*.png"))) == 100
    with Image.open(tmp_path / "made.png") as made:
        assert made.size == (16 * 32, 32)
        assert np.asarray(made).std() > 20

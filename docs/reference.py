"""Writes docs/reference.md from the commands themselves, and from the comments beside the fields that --set takes."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sweeper.cli import app
from sweeper.spaces import Space
from trainables.spec import TrialSpec

PAGE = Path(__file__).with_name("reference.md")
_FIELD = re.compile(r"    (\w+): ([^=#]+?)(?: = ([^#]+?))?(?:  # (.+))?\n")


def page() -> str:
    parts = [
        "# Reference\n\nWritten by `python docs/reference.py` from the commands' own help.",
        "Exit codes: 0 all done; 1 our fault; 2 usage or configuration; 3 some trials failed; 4 something must be run\n"
        "first; 5 the environment (no weights file, no data set, no W&B); 130 interrupted. An error is one line.",
    ]
    for words, command in _commands(typer.main.get_command(app), []):
        name = " ".join(["sweeper", *words])
        with command.make_context(name, [], resilient_parsing=True, terminal_width=100) as context:
            lines = (line.rstrip() for line in command.get_help(context).strip().splitlines())
        parts.append(f"## {name}\n\n```text\n" + "\n".join(lines) + "\n```")
    parts.append(
        "## What `--set` takes\n\nA field of a trial; several values, with commas between them, make a grid.\n\n"
        + _table(TrialSpec, {"role", "dataset", "channels", "teacher", "revision"})
    )
    parts.append("A setting of a sweep; one value.\n\n" + _table(Space, {"grids"}))
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from _commands(below, [*words, name])
        else:
            yield [*words, name], below


def _table(of: type, hidden: set[str]) -> str:
    """A class's fields with their defaults, and the comments in their lines."""
    rows = ["| name | default | what it is |", "|---|---|---|"]
    for name, _, default, comment in _FIELD.findall(inspect.getsource(of).split("def ")[0]):
        if name not in hidden:
            rows.append(f"| `{name}` | {f'`{default.strip()}`' if default else '—'} | {comment} |")
    return "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE, file=sys.stderr)

"""Write docs/reference.md from the help of the commands, and from the comments beside the fields that --set takes."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sweeper.cli import app
from sweeper.spaces import Space
from trainables.objectives import GAMES, LOSSES
from trainables.scores.loading import FEATURES
from trainables.shapes import FAMILIES
from trainables.spec import TrialSpec

PAGE = Path(__file__).with_name("reference.md")
EXIT_CODES = """\
| exit code | meaning |
|---|---|
| 0 | success |
| 1 | a defect of sweeper |
| 2 | wrong usage or configuration |
| 3 | some trials failed |
| 4 | another command must run first |
| 5 | the environment: no weights file, no data set, no W&B, no storage, a broken node |
| 130 | interrupted |"""
REGISTRIES = {"shapes.FAMILIES": FAMILIES, "objectives.LOSSES": LOSSES, "objectives.GAMES": GAMES, "FEATURES": FEATURES}
_FIELD = re.compile(r"    (\w+): [^#]+?(?:  # (.+))?\n")


def page() -> str:
    """Return the page as Markdown."""
    parts = [
        "# Reference\n\nWritten by `python docs/reference.py` from the help of the commands.",
        "An error is one line on stderr. The exit code says what kind it is.",
        EXIT_CODES,
    ]
    for words, command in _commands(typer.main.get_command(app), []):
        name = " ".join(["sweeper", *words])
        with command.make_context(name, [], resilient_parsing=True, terminal_width=100) as context:
            lines = (line.rstrip() for line in command.get_help(context).strip().splitlines())
        parts.append(f"## {name}\n\n```text\n" + "\n".join(lines) + "\n```")
    parts.append(
        "## What `--set` takes\n\nFields of a trial. Several values, separated by commas, make a grid.\n\n"
        + _table(TrialSpec, {"role", "dataset", "channels", "teacher", "plugin", "revision"})
    )
    parts.append("Settings of a sweep. Each takes one value.\n\n" + _table(Space, {"grids"}))
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Yield each command with the words that name it, groups before their commands."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, [*words, name])


def _table(dataclass: type, hidden: set[str]) -> str:
    """Return the fields of a dataclass, with their defaults and the comments in their lines, as a Markdown table."""
    comments = dict(_FIELD.findall(inspect.getsource(dataclass).split("def ")[0]))
    rows = ["| name | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(dataclass):
        if field.name not in hidden:
            default = "—" if field.default is dataclasses.MISSING else f"`{_as_typed(field.default)}`"
            comment = comments[field.name]
            for registry, names in REGISTRIES.items():
                comment = comment.replace(f"a name in {registry}", f"{', '.join(names)}, or a name of a plug-in")
            rows.append(f"| `{field.name}` | {default} | {comment} |")
    return "\n".join(rows)


def _as_typed(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE, file=sys.stderr)

"""Messages to the user about what was repaired on the way. A worker's driver prints the worker's."""

import sys

notes: list[str] = []


def note(line: str) -> None:
    """Print a message, once per process."""
    if line not in notes:
        notes.append(line)
        print(f"note: {line}", file=sys.stderr)

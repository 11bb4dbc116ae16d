"""The command as typed, for records, pages and messages."""

import shlex
import sys


def command() -> str:
    """Return the command line. --replace is meant once, and left out."""
    return shlex.join(["sweeper", *(word for word in sys.argv[1:] if word != "--replace")])

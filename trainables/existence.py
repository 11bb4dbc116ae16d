"""Whether a file exists, on a network file system too."""

import os
from pathlib import Path


def exists(path: Path) -> bool:
    """Return whether a file or a folder exists by now.

    A client of a network file system remembers for up to a minute that a name did not exist, and answers by that. It
    asks the server as soon as the folder of the name is opened: this sees what another host has written meanwhile.
    """
    return path.exists() or (_opens(path.parent) and path.exists())


def _opens(folder: Path) -> bool:
    """Open a folder; if it seems to be missing, first the one above it. Return whether it exists."""
    return _open(folder) or (folder.parent != folder and _opens(folder.parent) and _open(folder))


def _open(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False
    return True

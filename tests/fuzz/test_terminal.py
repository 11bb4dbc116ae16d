"""Streams that are closed, full or of another encoding, and folders that are gone: short messages, no traceback."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.case import STORE

COMMANDS = ["status", "table --format json", "table --dataset none"]


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell, in which `sweeper` is the command, in a folder that holds a store."""
    shutil.copytree(STORE, folder / "runs")
    function = f'sweeper() {{ {shlex.quote(sys.executable)} -m sweeper "$@"; }}; '
    command = ["sh", "-c", function + script]
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-", "<&-"])
def test_closed_streams_are_no_error(words: str, streams: str, tmp_path: Path) -> None:
    done = run(f"sweeper {words} {streams}", tmp_path)
    assert done.returncode == (2 if "none" in words else 0), done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", COMMANDS[:2])
def test_a_full_device_is_one_line(words: str, tmp_path: Path) -> None:
    done = run(f"sweeper {words} > /dev/full", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done
    assert "No space left on device" in done.stderr


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    done = run("mkdir gone; cd gone; rmdir ../gone; sweeper status", tmp_path)
    assert (done.returncode, done.stderr) == (5, "error: the current folder is gone; change to another one\n")


@pytest.mark.parametrize("variable", ["PYTHONIOENCODING=ascii", "LC_ALL=C", "COLUMNS=1", "TERM=dumb"])
def test_a_poor_terminal_is_no_error(variable: str, tmp_path: Path) -> None:
    done = run(f"export {variable}; " + "sweeper status && sweeper table", tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done

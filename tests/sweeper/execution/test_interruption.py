"""The processes below a command, which end with it."""

import os
import subprocess
import sys

from sweeper.execution.interruption import descendants, kill

CHILD = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('started', flush=True); sys.stdin.read()"


def test_descendants_are_children_and_their_children_and_a_kill_ends_them() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    below = descendants(child.pid)
    assert len(below) == 1
    assert {child.pid, *below} <= set(descendants()) == set(descendants(os.getpid()))
    kill({child.pid, *below})
    child.communicate(timeout=20)
    assert descendants(child.pid) == []
    assert child.pid not in descendants()

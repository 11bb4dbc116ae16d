"""A cluster that loses a node in the middle of a sweep. The short sibling is in execution/test_failures.py."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import faults
from tests.conftest import STUDENTS, TEACHERS, Done
from tests.faults.nodes import ENVIRONMENT, Nodes
from tests.sweeper import counted
from tests.sweeper.test_run import read_table

Call = Callable[..., Done]


def beginnings(folder: Path) -> dict[str, list[int]]:
    """Return signature → the updates that a trial had done when it began, and whenever it did not simply go on."""
    found: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for signature, updates, _ in counted.notes(folder):
        if updates != last.get(signature, -2) + 1:
            found.setdefault(signature, []).append(updates)
        last[signature] = updates
    return found


@pytest.mark.long
def test_a_node_that_dies_in_the_middle_of_a_sweep_changes_no_number_and_costs_no_trial(
    finished: Path, fresh: Path, sweeper: Call
) -> None:
    environment = {**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}
    with Nodes(environment, num_cpus=1) as nodes:
        (fresh / "runs" / "victim").write_text(nodes.add(num_cpus=1))
        words = [*TEACHERS, "--address", nodes.address]
        program = [sys.executable, "-c", counted.RUN]
        with faults.Command(words, fresh, program=program, **environment) as command:
            hanging = fresh / "runs" / counted.HANGING
            assert command.wait_until(hanging.exists)
            nodes.kill(0)
            code, err = command.wait()
        assert code == 0, err
        assert "failed" not in err
        done = sweeper(*STUDENTS, "--address", nodes.address, cwd=fresh, **environment)
        assert done.code == 0, done.err
    assert read_table(sweeper, fresh) == read_table(sweeper, finished)
    found = beginnings(fresh)
    assert found.pop(hanging.read_text()) == [0, 8], "it goes on from its checkpoint of the first rung"
    assert all(updates == [0] for updates in found.values()), found

"""What is told of a store's sweeps and of one trial."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.status import show_trial
from sweeper.store import Store
from tests.conftest import Done
from tests.sweeper.made import sweep, teacher, trial
from trainables.errors import UserError


def test_a_trial_s_place_and_the_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.create()
    final = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}
    names = [trial(store, teacher(2, lr=0.1), 30.0, final)]
    names += [trial(store, teacher(2, lr=lr), 100 * lr) for lr in (0.5, 0.6)]
    sweep(store, "teacher", names)
    show_trial(store, names[1][:6])
    told = capsys.readouterr().out
    assert "pruned in mnist5k-teachers" in told
    assert (
        "at 10 updates FID 50.00: place 2 of the 3 configurations of d=2 that are ranked there; the best 1 go" in told
    )
    show_trial(store, names[0])
    assert "at 30 updates FID 30.00: place 1 of the 1 configurations" in capsys.readouterr().out
    with pytest.raises(UserError, match="no trial of any sweep"):
        show_trial(store, "nope")


def test_the_command_lists_sweeps_and_their_states(finished: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper("status", cwd=finished)
    assert "mnist5k-teachers: 6 trials, 4 pruned, 2 done" in done.out.replace("speculative", "pruned")

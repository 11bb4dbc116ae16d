"""What is told of a store's sweeps and of one trial."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.store import RungRecord, Store
from sweeper.terminal import status
from sweeper.terminal.dashboard import Live
from sweeper.terminal.status import show, show_trial, watch
from tests.conftest import Done
from tests.sweeper.stores import scores, sweep, teacher, trial
from trainables.errors import UserError


def test_a_trial_s_place_and_the_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    final = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}
    names = [trial(store, teacher(2, lr=0.1), 30.0, final)]
    names += [trial(store, teacher(2, lr=lr), 100 * lr) for lr in (0.5, 0.6)]
    sweep(store, "teacher", names)
    show_trial(store, names[1][:6])
    told = capsys.readouterr().out
    assert "pruned in mnist5k-teachers" in told
    assert "at 10 updates FID 50.00: place 2 of 3 ranked configurations of d=2; the best 1 go" in told
    show_trial(store, names[0])
    assert "at 30 updates FID 30.00: place 1 of 1 ranked configurations" in capsys.readouterr().out
    with pytest.raises(UserError, match="no trial of any sweep"):
        show_trial(store, "nope")


def test_the_command_lists_sweeps_and_their_states(finished: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper("status", cwd=finished)
    assert "mnist5k-teachers: 6 trials, 4 pruned, 2 done" in done.out.replace("speculative", "pruned")


def test_one_look_shows_the_sweep_that_was_given_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0)])
    watch(store)
    out = capsys.readouterr().out
    assert out.startswith("mnist5k-teachers")
    assert "30.00" in out
    assert "nothing trains in" in out
    assert "mnist5k-teachers goes on with `sweeper run teachers`" in out


def test_while_a_command_trains_what_it_runs_is_watched_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    waiting = teacher(2, lr=0.5)
    store.add(waiting)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0), waiting.signature])
    moment = Live(driver=None, running={waiting.signature: time.time() - 7}, used=1, capacity=2, seconds_left=300.0)
    with store.lock():
        here = replace(moment, driver=store.driver())
        store.save_live("mnist5k-teachers", here.as_dict())
        watch(store, looks=1)
        show(store)
    out = capsys.readouterr().out
    assert "d=2 gan lr=0.5 d_discriminator=8 (7 s)" in out
    assert "1 of 2 slots in use; about 5 min left" in out
    assert "2 trials, 1 running, 1 paused" in out
    watch(store)
    assert "in use" not in capsys.readouterr().out, "what a command that is gone left behind is not shown"
    with store.lock():
        store.save_live("mnist5k-teachers", replace(moment, driver="process 1 on another host").as_dict())
        watch(store, looks=1)
        assert "in use" not in capsys.readouterr().out, "nor what one left that was killed, while the next one starts"


def test_a_look_is_printed_once_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0)])
    watch(store)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["mnist5k-teachers", "d", "2", "rungs", "nothing"]


def test_a_watched_sweep_is_read_again_where_it_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [trial(store, teacher(2, lr=lr), 30.0) for lr in (0.1, 0.2)]
    sweep(store, "teacher", names)
    reader = status._Reader(store)
    before = reader.sweep()
    store.add(teacher(2, lr=0.1), rung=RungRecord(30, 1.0, {}, scores(5.0, 1.0, "rung"), False))
    after = reader.sweep()
    assert len(after.records[names[0]].rungs) == 2
    assert after.records[names[1]] is before.records[names[1]]

"""The status of a store's sweeps and of one trial."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.records import RungRecord
from sweeper.store import Store
from sweeper.terminal import status
from sweeper.terminal.dashboard import Live
from sweeper.terminal.status import show, show_trial, watch
from tests.conftest import Done
from tests.sweeper.stores import scores, sweep, teacher, trial
from trainables.errors import UserError


def test_a_trial_s_place_and_the_cut_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    final = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}
    signatures = [trial(store, teacher(2, lr=0.1), 30.0, final)]
    signatures += [trial(store, teacher(2, lr=lr), 100 * lr) for lr in (0.5, 0.6)]
    sweep(store, "teacher", signatures)
    show_trial(store, signatures[1][:6])
    out = capsys.readouterr().out
    assert "pruned in mnist5k-teachers" in out
    assert "at 10 updates FID 50.00: place 2 of 3 ranked configurations of d=2; the best 1 continue" in out
    show_trial(store, signatures[0])
    assert "at 30 updates FID 30.00: place 1 of 1 ranked configurations" in capsys.readouterr().out
    with pytest.raises(UserError, match="matches no trial of any sweep"):
        show_trial(store, "nope")


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "runs[/old]")
    command = "sweeper run teachers --dataset 'photos[/old]' --store 'runs[bold]'"
    sweep(store, "teacher", [trial(store, teacher(2), 30.0)], command=command)
    show(store)
    assert f"continue with `{command}`" in capsys.readouterr().out
    watch(store, looks=1)
    assert f"no sweep is running in {store.root}; continue mnist5k-teachers with `{command}`" in capsys.readouterr().out
    show(Store(tmp_path / "new[/b]"))
    assert "new[/b] holds no sweep yet" in capsys.readouterr().out


def test_the_command_lists_sweeps_and_their_states(finished: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper("status", cwd=finished)
    assert "mnist5k-teachers: 6 trials, 4 pruned, 2 done" in done.out.replace("speculative", "pruned")


def test_watch_shows_the_latest_sweep_and_how_to_continue_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0)])
    watch(store)
    out = capsys.readouterr().out
    assert out.startswith("mnist5k-teachers")
    assert "30.00" in out
    assert "no sweep is running in" in out
    assert "continue mnist5k-teachers with `sweeper run teachers`" in out


def test_running_trials_are_watched_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    waiting = teacher(2, lr=0.5)
    store.add(waiting)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0), waiting.signature])
    live = Live(driver=None, running={waiting.signature: time.time() - 7}, used=1, capacity=2, seconds_left=300.0)
    with store.lock():
        store.save_live("mnist5k-teachers", replace(live, driver=store.driver()).as_dict())
        watch(store, looks=1)
        show(store)
    out = capsys.readouterr().out
    assert "d=2 gan lr=0.5 d_discriminator=8 (7 s)" in out
    assert "1 of 2 slots in use; about 5 min left" in out
    assert "2 trials, 1 running, 1 paused" in out
    watch(store)
    assert "in use" not in capsys.readouterr().out, "the live state of a finished command is ignored"
    with store.lock():
        store.save_live("mnist5k-teachers", replace(live, driver="process 1 on another host").as_dict())
        watch(store, looks=1)
        assert "in use" not in capsys.readouterr().out, "so is that of a killed command while the next one starts"


def test_without_a_terminal_watch_prints_the_view_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(2), 30.0)])
    watch(store)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["mnist5k-teachers", "d", "2", "rungs", "no"]


def test_the_reader_reads_only_changed_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    signatures = [trial(store, teacher(2, lr=lr), 30.0) for lr in (0.1, 0.2)]
    sweep(store, "teacher", signatures)
    reader = status._Reader(store)
    before = reader.sweep()
    store.add(teacher(2, lr=0.1), rung=RungRecord(30, 1.0, {}, scores(5.0, 1.0, "rung"), False))
    after = reader.sweep()
    assert len(after.records[signatures[0]].rungs) == 2
    assert after.records[signatures[1]] is before.records[signatures[1]]

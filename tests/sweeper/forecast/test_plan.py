"""The plan: trials and updates of the pruning rule, and costs timed on this machine or taken from a table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution import mps
from sweeper.execution.resources import slowdown
from sweeper.forecast.cost import TABLE, TableCosts, TimedCosts
from sweeper.forecast.timing import Cost
from tests.conftest import TEACHERS, Done
from tests.sweeper.stores import teacher
from trainables.arithmetic import update_macs
from trainables.errors import UserError

SMALL = ["--set", "d=2,4", "--set", "updates=900", "--set", "first_rung=100", "--set", "lr_discriminator=0.001"]
PLAN = ["plan", "teachers", "--dataset", "mnist5k", *SMALL, "--set", "rungs=2"]


@pytest.fixture
def plan(sweeper: Callable[..., Done], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def call(*words: str, cwd: Path = tmp_path) -> dict[str, Any]:
        done = sweeper(*words, "--json", cwd=cwd, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    return call


def test_it_counts_the_updates_of_the_rule_and_creates_no_store(
    plan: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = plan(*PLAN, "--set", "lr=0.001,0.002,0.004", "--gpus", "2", "--gpu-type", "T4", "--price", "0.5")
    assert result["trials"] == 6
    assert result["rungs"] == [100, 300, 900]
    assert [row["updates_without_pruning"] for row in result["rows"]] == [2700 + 2 * 900, 2700], (
        "two fresh seeds of d=2"
    )
    assert result["updates"] >= 2 * (3 * 100 + 1 * 200 + 1 * 600) + 2 * 900  # and speculation on idle slots
    assert result["money"] == pytest.approx(0.5 * 2 * result["seconds"] / 3600)
    assert not (tmp_path / "runs").exists()


def test_without_a_gpu_type_it_times_this_machine(plan: Callable[..., dict[str, Any]]) -> None:
    result = plan(*PLAN, "--set", "lr=0.001,0.002", "--slots", "1")
    assert result["updates"] == 2 * (2 * 100 + 200 + 600) + 2 * 900
    assert all(row["seconds_per_update"] > 0.001 for row in result["rows"])
    assert sum(row["hours"] for row in result["rows"]) * 3600 == pytest.approx(result["seconds"])


def test_recorded_scores_cost_nothing(finished: Path, plan: Callable[..., dict[str, Any]]) -> None:
    result = plan("plan", *TEACHERS[1:], "--gpu-type", "T4", cwd=finished)
    assert (result["updates"], result["seconds"]) == (0, 0)
    rescored = plan("plan", *TEACHERS[1:], "--set", "n_rung=32", "--gpu-type", "T4", cwd=finished)
    assert rescored["updates"] > 0, "scores of another n do not count"
    other_name = plan("plan", *TEACHERS[1:], "--name", "other", "--gpu-type", "T4", cwd=finished)
    assert other_name["updates"] == 0, "records belong to trials, not to sweeps"
    longer = plan("plan", *[w.replace("updates=24", "updates=72") for w in TEACHERS[1:]], "--slots", "1", cwd=finished)
    assert longer["updates"] == 2 * (72 - 8)  # the best trial of each d resumes from the first rung


def test_a_limit_of_concurrent_trials_does_not_enlarge_their_shares(plan: Callable[..., dict[str, Any]]) -> None:
    command = [*PLAN, "--set", "lr=0.001,0.002,0.004", "--set", "batch_size=512", "--gpus", "1", "--gpu-type", "T4"]
    unlimited, many, one = plan(*command), plan(*command, "--slots", "64"), plan(*command, "--slots", "1")
    assert unlimited["seconds"] == many["seconds"] < one["seconds"]
    assert sum(row["hours"] for row in unlimited["rows"]) * 3600 <= unlimited["seconds"] * 1.001


@pytest.mark.parametrize("words", [["--gpus", "4"], ["--throughputs", "mine.toml"]])
def test_options_for_other_gpus_need_their_type(words: list[str], sweeper: Callable[..., Done], tmp_path: Path) -> None:
    done = sweeper(*PLAN, *words, cwd=tmp_path)
    assert done.code == 2
    assert "add --gpu-type" in done.err


def test_students_need_a_teacher(sweeper: Callable[..., Done], tmp_path: Path) -> None:
    assert sweeper("plan", "students", cwd=tmp_path).code == 4


def test_table_costs_scale_with_the_share_and_have_a_minimum() -> None:
    costs = TableCosts("T4", TABLE, None)
    small, large = teacher(2), teacher(256, image_size=64, d_discriminator=256)
    assert costs.cost(small, 1.0).seconds_per_update == pytest.approx(164 * 25e-6)
    beside = costs.cost(small, 0.125).seconds_per_update
    assert beside == costs.cost(small, 1.0).seconds_per_update * slowdown(0.125)
    expected = update_macs(large, None) / (8.1e12 / 2 * 0.3)
    assert costs.cost(large, 1.0).seconds_per_update == pytest.approx(expected)
    assert costs.cost(large, 0.5).seconds_per_update == pytest.approx(2 * expected)


def test_a_gpu_that_the_table_lacks_is_an_error_that_names_its_entries(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TPU: .* has T4, V100"):
        TableCosts("TPU", TABLE, None)
    (tmp_path / "mine.toml").write_text("[TPU]\nteraflops = 1")
    with pytest.raises(UserError, match="'use'"):
        TableCosts("TPU", tmp_path / "mine.toml", None)


@pytest.mark.parametrize("line", ["teraflops = 0", "teraflops = -1", "teraflops = inf", "teraflops = 'many'"])
def test_a_table_with_a_wrong_value_is_an_error(line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"[TPU]\n{line}\nuse = 1\nmicroseconds_per_launch = 1\nmemory_gb = 1\n")
    with pytest.raises(UserError, match="--throughputs"):
        TableCosts("TPU", tmp_path / "mine.toml", None)


def test_a_corrupt_or_unwritable_cache_of_timings_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = TimedCosts(print, None).file
    file.parent.mkdir()
    for corrupt in ("{", "[]", "3"):
        file.write_text(corrupt)
        assert TimedCosts(print, None).timings.keys() <= {"where"}
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    messages: list[str] = []
    TimedCosts(messages.append, None)._save("a", 1.0)
    assert "the next plan repeats the timings" in messages[0]


def test_a_wider_trial_is_timed_as_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    messages: list[str] = []
    costs = TimedCosts(messages.append, None)
    narrow, wide = (costs.cost(teacher(d), 1.0) for d in (2, 32))
    assert wide.seconds_per_update > 1.3 * narrow.seconds_per_update
    costs.cost(teacher(2, lr=0.5, seed=3), 1.0)
    assert len(messages) == 2, "learning rate and seed do not affect the cost"
    restarted = TimedCosts(messages.append, None)
    assert restarted.cost(teacher(2), 1.0) == narrow
    assert len(messages) == 2, "timed once per machine"
    assert "earlier" in restarted.basis


@pytest.mark.parametrize(("installed", "slower"), [(True, slowdown(1 / 16)), (False, 16.0)])
def test_a_trial_that_is_timed_alone_is_planned_beside_those_that_share_its_gpu(
    installed: bool, slower: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mps, "is_installed", lambda: installed)
    costs = TimedCosts(lambda text: None, None, time_trial=lambda spec, teacher: Cost(0.01, 0.001, 0.0, 0.0))
    assert costs.cost(teacher(2), 1 / 16).seconds_per_update == 0.01, "on a CPU nothing is shared"
    costs.has_gpu = True
    assert costs.cost(teacher(2), 1.0).seconds_per_update == pytest.approx(0.01)
    assert costs.cost(teacher(2), 1 / 16).seconds_per_update == pytest.approx(0.01 * slower)

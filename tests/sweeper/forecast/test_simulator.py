"""The simulator: bounds on schedules, closed forms, the baselines, and learning curves in files."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.forecast.curves import Curve, read_curves, shuffled, write_curves
from sweeper.forecast.simulator import simulate, simulate_stop_only
from tests.conftest import Done
from trainables.errors import UserError

LADDER = [1, 3, 9, 27]


def curve(name: str, level: float, stratum: str = "2", seconds: float = 1.0, share: float = 1.0) -> Curve:
    points = [(updates, level / updates) for updates in LADDER]
    return Curve(
        stratum=stratum, trial=name, configuration=name, seconds_per_update=seconds, points=points, share=share
    )


TWENTY_SEVEN = [curve(f"{n:02}", 1.0 + n) for n in range(27)]
CURVES = st.lists(
    st.tuples(st.sampled_from(["2", "4"]), st.floats(0.1, 9), st.floats(0.1, 50), st.sampled_from([0.5, 1.0])),
    min_size=1,
    max_size=25,
).map(lambda rows: [curve(f"{n:02}", level, s, seconds, share) for n, (s, level, seconds, share) in enumerate(rows)])


def test_27_configurations_and_eta_3_cost_81_updates_of_729() -> None:
    outcome = simulate(TWENTY_SEVEN, LADDER, 3, 1)
    assert (outcome.updates, outcome.speculative) == (27 * 1 + 9 * 2 + 3 * 6 + 1 * 18, 0)
    assert simulate(TWENTY_SEVEN, LADDER, 1, 1).updates == 27 * 27
    assert [len(members) for members in outcome.sets["2"]] == [27, 9, 3, 1]
    assert outcome.best == {"2": 1.0 / 27}


@given(CURVES, st.integers(1, 12), st.booleans(), st.none() | st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_no_schedule_beats_the_bound_and_s_does_not_depend_on_the_schedule(
    curves: list[Curve], slots: int, speculates: bool, limit: int | None
) -> None:
    outcome = simulate(curves, LADDER, 3, slots, speculates=speculates, max_concurrent=limit)
    assert outcome.makespan >= outcome.bound * (1 - 1e-9)
    assert outcome.sets == simulate(curves, LADDER, 3, 1).sets
    assert outcome.busy <= outcome.makespan * slots * (1 + 1e-9)
    assert speculates or outcome.speculative == 0


def test_the_bound_knows_how_many_trials_run_at_once() -> None:
    outcome = simulate(TWENTY_SEVEN, LADDER, 3, 100, max_concurrent=1)
    assert outcome.bound == outcome.makespan == 81


def test_speculation_fills_idle_slots_and_is_counted_separately() -> None:
    curves = [curve(f"{n}", 9.0 - n, seconds=1.0 + n) for n in range(9)]  # fast trials have bad scores
    with_speculation, without = (simulate(curves, LADDER, 3, 9, speculates=speculates) for speculates in (True, False))
    assert with_speculation.speculative > 0 == without.speculative
    assert with_speculation.updates - with_speculation.speculative == without.updates
    assert with_speculation.makespan <= without.makespan


def test_a_large_share_does_not_starve() -> None:
    """Cheaper trials with smaller shares do not overtake a trial whose share is not free."""
    first = [curve(f"first{n}", 1.0 + n, "2", seconds=20.0 + n, share=0.5) for n in range(2)]
    tiny = [curve(f"tiny{n}", 1.0 + n, "8", seconds=0.1, share=0.5) for n in range(9)]
    large = curve("large", 1.0, "4", seconds=9.0, share=1.0)
    names = [trial for trial, _ in simulate([*tiny, *first, large], LADDER, 3, 1).steps]
    assert names.index("first0") < names.index("large") < min(names.index(c.trial) for c in tiny)


def test_a_share_larger_than_all_slots_is_an_error() -> None:
    with pytest.raises(UserError, match="share 2"):
        simulate([curve("a", 1.0, share=2.0)], LADDER, 3, 1)


def test_steps_with_recorded_scores_are_not_repeated() -> None:
    first = simulate(TWENTY_SEVEN, LADDER, 3, 1)
    half = first.steps[: len(first.steps) // 2]
    recorded = {(trial, rung): TWENTY_SEVEN[int(trial)].score(LADDER[rung]) for trial, rung in half}
    assert simulate(TWENTY_SEVEN, LADDER, 3, 1, recorded=recorded).steps == first.steps[len(half) :]


def test_the_other_seeds_of_a_diverged_configuration_are_not_trained() -> None:
    curves = [
        Curve(stratum="2", trial=f"{c}{seed}", configuration=c, seconds_per_update=1.0, points=[(1, fid), (27, fid)])
        for c, fids in (("a", (math.inf, 1.0)), ("b", (2.0, 2.0)))
        for seed, fid in enumerate(fids)
    ]
    outcome = simulate(curves, LADDER, 3, 1)
    assert ("a1", 0) not in outcome.steps
    assert (outcome.updates, outcome.speculative) == (1 + 2 * 27, 0)


def test_scoring_takes_time_and_no_updates() -> None:
    scored = Curve(
        stratum="2",
        trial="a",
        configuration="a",
        seconds_per_update=1.0,
        points=[(1, 1.0), (27, 1.0)],
        seconds_per_rung=10.0,
        seconds_at_end=100.0,
    )
    outcome = simulate([scored], LADDER, 3, 1)
    assert (outcome.updates, outcome.makespan) == (27, 27 + 4 * 10 + 100)


def test_stop_only_stops_none_of_ever_better_trials() -> None:
    """Each trial is the best so far when it reports, so Ray Tune's ASHA stops none."""
    improving = list(reversed(TWENTY_SEVEN))
    assert simulate_stop_only(improving, LADDER, 3, 1).updates == 27 * 27
    assert simulate_stop_only(TWENTY_SEVEN, LADDER, 3, 1).updates < 27 * 27 / 4


def test_a_shuffle_changes_only_order_and_names() -> None:
    renamed = shuffled(TWENTY_SEVEN, 3)
    assert [c.points[0] for c in renamed] != [c.points[0] for c in TWENTY_SEVEN]
    assert sorted(c.points[0] for c in renamed) == sorted(c.points[0] for c in TWENTY_SEVEN)
    assert [c.trial for c in renamed] == sorted(c.trial for c in renamed)


def test_scores_are_interpolated_and_not_extrapolated() -> None:
    interpolated = curve("a", 9.0)
    assert interpolated.score(2) == pytest.approx((9.0 + 3.0) / 2)
    with pytest.raises(UserError, match="ends at 27 updates, before 81"):
        interpolated.score(81)


def test_a_diverged_curve_stays_diverged(tmp_path: Path) -> None:
    file = tmp_path / "curves.jsonl"
    file.write_text('{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[1, 5.0], [3, null]]}\n')
    (read,) = read_curves(file)
    assert read.score(27) == math.inf
    assert simulate([read], LADDER, 3, 1).best == {"2": math.inf}
    write_curves([read], file)
    assert read_curves(file) == [read]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1, 2]",
        '{"stratum": "2"}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": []}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": -1, "points": [[1, 2]]}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[1, 2]], "colour": 3}',
        '{"stratum": "2", "trial": 7, "seconds_per_update": 1, "points": [[1, 2]]}',
        '{"stratum": ["2"], "trial": "a", "seconds_per_update": 1, "points": [[1, 2]]}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[0, 2], [1, 2]]}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[1e999, 2]]}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": Infinity, "points": [[1, 2]]}',
        '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[1, 2], [1, 3]]}',
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(line: str, tmp_path: Path) -> None:
    file = tmp_path / "curves.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(UserError, match=r"line 1: .*each line is a JSON object"):
        read_curves(file)


def test_two_curves_of_a_trial_and_a_binary_file_are_errors(tmp_path: Path) -> None:
    write_curves([curve("a", 1.0), curve("a", 2.0, "4")], tmp_path / "twice.jsonl")
    with pytest.raises(UserError, match="line 2: a second curve of trial a"):
        read_curves(tmp_path / "twice.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_curves(tmp_path / "binary.jsonl")


def test_a_stratum_where_all_diverged_is_null_in_json(tmp_path: Path, sweeper: Callable[..., Done]) -> None:
    line = '{"stratum": "2", "trial": "a", "seconds_per_update": 1, "points": [[1, 5.0], [3, NaN], [9, 2.0]]}\n'
    (tmp_path / "curves.jsonl").write_text(line)
    done = sweeper("simulate", "--curves", "curves.jsonl", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["rules"]["sweeper"]["best"] == {"2": None}


def test_the_command_compares_three_rules(tmp_path: Path, sweeper: Callable[..., Done]) -> None:
    write_curves(TWENTY_SEVEN, tmp_path / "curves.jsonl")
    done = sweeper("simulate", "--curves", "curves.jsonl", "--orders", "3", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["rungs"] == LADDER
    assert result["rules"]["sweeper"]["updates"] == 81
    assert result["rules"]["no_pruning"]["updates"] == 729
    assert 81 < result["rules"]["stop_only"]["updates"] < 729
    assert result["rules"]["sweeper"]["best"] == result["true_best"]
    assert "81" in sweeper("simulate", "--curves", "curves.jsonl", cwd=tmp_path).out


def test_a_sweep_of_the_store_is_simulated(finished: Path, sweeper: Callable[..., Done]) -> None:
    done = sweeper("simulate", "--name", "mnist5k-teachers", "--json", cwd=finished)
    assert done.code == 0, done.err
    assert json.loads(done.out)["rules"].keys() == {"sweeper"}  # the curves of pruned trials end early
    assert sweeper("simulate", cwd=finished).code == 2  # ambiguous: the store holds two sweeps


def test_fresh_seeds_train_the_best_trial_of_each_stratum_again_to_the_budget() -> None:
    both = [*TWENTY_SEVEN, curve("other", 2.0, stratum="4")]
    plain, confirmed = (simulate(both, LADDER, 3, 1, confirm=confirm) for confirm in ({}, {"2": 2, "4": 1}))
    assert confirmed.updates == plain.updates + 3 * 27
    assert sorted(confirmed.confirming.values()) == ["00", "00", "other"]
    assert confirmed.speculative == 0
    assert confirmed.bound == confirmed.makespan == plain.makespan + 3 * 27
    wide = simulate(both, LADDER, 3, 100, confirm={"2": 2})
    assert wide.makespan == wide.bound == 27 + 27, "the fresh seeds start when the best is known"

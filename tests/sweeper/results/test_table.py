"""The compression table and its formats."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from statistics import fmean

import pytest
from scipy.stats import ttest_ind

from sweeper.records import RungRecord, Teacher
from sweeper.results import table_text
from sweeper.results.comparison import Comparison, find
from sweeper.results.lines import flat
from sweeper.results.table import Entry, Limit, Table
from sweeper.scheduling.sweep import FIRST_FRESH_SEED
from sweeper.store import Store
from tests.sweeper.stores import student, sweep, teacher, trial
from tests.trainables.built import shape
from trainables.errors import NotYetError, UserError

FRESH = (FIRST_FRESH_SEED, FIRST_FRESH_SEED + 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a teacher of d = 16, controls of d = 2 and 4, and students.

    The student of d = 2 has two finished seeds, the one of d = 4 is unfinished.
    """
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 8.0), "report": (21.0, 8.1)})
    controls = [trial(store, teacher(d), 1.0, {"selection": (90.0, 5.0), "report": (91.0, 5.1)}) for d in (2, 4)]
    sweep(store, "teacher", [best, *controls])
    seeds = [
        trial(store, student(2, seed=s), 1.0, {"selection": (60.0, 7.0), "report": (60.0 + s, 7.5 + s / 10)})
        for s in (0, 2)
    ]
    unfinished = trial(store, student(4, loss="joint", alpha=0.02, d_discriminator=4), 1.0)
    sweep(store, "student", [*seeds, unfinished], Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    return store


def mean(entry: Entry | None, name: str) -> float:
    assert entry is not None
    score = entry.scores[name]
    assert score is not None
    return score["mean"]


@pytest.fixture
def built(store: Store) -> Table:
    return Comparison.read(store, None, None).table


def test_rows_join_students_with_the_controls_of_their_teacher_s_sweep(built: Table) -> None:
    assert [row.d for row in built.rows] == [2, 4]
    assert built.teacher is not None
    assert built.teacher.d == 16
    assert built.rows[0].control is not None
    assert mean(built.rows[0].control, "is") == 5.1
    assert built.rows[1].student is None


def test_the_ratio_is_of_the_generators_parameters(built: Table) -> None:
    assert built.rows[0].parameters == shape(2).parameters
    assert built.rows[0].ratio == shape(16).parameters / shape(2).parameters


def test_seeds_give_mean_and_standard_deviation_of_report_scores(built: Table) -> None:
    student = built.rows[0].student
    assert student is not None
    assert student.seeds == 2
    fid = student.scores["fid"]
    assert fid is not None
    assert fid["mean"] == 61.0
    assert fid["std"] == pytest.approx(2**0.5)
    assert fid["protocol"] == "p/report"
    assert student.scores["kid"] is None


def confirmed(store: Store, students: tuple[float, ...], controls: tuple[float, ...]) -> Table:
    """The table of d = 2 with these FIDs of fresh seeds. The selected trials have an FID of 1."""
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 8.0), "report": (21.0, 8.1)})
    names = []
    for spec, fids in ((teacher(2), controls), (student(2), students)):
        names.append(trial(store, spec, 1.0, {"selection": (1.0, 7.0), "report": (1.0, 7.0)}))
        for number, fid in enumerate(fids):
            seed = FIRST_FRESH_SEED + number
            trial(store, dataclasses.replace(spec, seed=seed), 1.0, {"selection": (1.0, 7.0), "report": (fid, 7.0)})
    sweep(store, "teacher", [best, names[0]], confirm=len(controls))
    sweep(store, "student", [names[1]], Teacher(best, 30, "w", "mnist5k-teachers", "best"), confirm=len(students))
    return Comparison.read(store, None, None).table


def test_scores_are_those_of_fresh_seeds_alone(tmp_path: Path) -> None:
    """The selected seed was the best of several by chance, too."""
    table = confirmed(Store(tmp_path), (60.0, 62.0, 64.0), (70.0, 71.0))
    entry, control = table.rows[0].student, table.rows[0].control
    assert entry is not None
    assert control is not None
    assert (entry.seeds, entry.fresh, control.seeds) == (3, True, 2)
    assert (mean(entry, "fid"), mean(control, "fid")) == (62.0, 70.5)
    sides = "Stu. over 3 fresh seeds, Reg. over 2 fresh seeds, the teacher over latents"
    assert f"mean ± std: {sides}; " in table_text.caption(table)


def test_a_difference_has_welch_s_interval(tmp_path: Path) -> None:
    ours, theirs = (60.0, 62.0, 64.0), (70.0, 71.0, 90.0, 75.0)
    difference = confirmed(Store(tmp_path), ours, theirs).rows[0].differences["fid"]
    assert difference is not None
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(fmean(ours) - fmean(theirs))
    assert difference.beyond == (expected.high < 0)


def test_diverged_fresh_seeds_are_in_the_caption_even_if_all_of_them_did(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = confirmed(store, (60.0, 62.0), (70.0, 71.0))
    assert table.rows[0].student is not None
    for number in range(2):
        spec = student(2, seed=FIRST_FRESH_SEED + number)
        (store.root / "trials" / spec.signature / "record.json").unlink()
        store.add(spec, rung=RungRecord(30, 1.0, {}, {}, diverged=True))
    row = Comparison.read(store, None, None).table.rows[0]
    assert row.student is not None
    assert (row.student.fresh, row.student.diverged, row.differences["fid"]) == (False, 2, None)
    caption = table_text.caption(Comparison.read(store, None, None).table)
    assert "d=2: 2 fresh seeds of the student diverged" in caption
    assert "fresh seeds no against yes" in caption


def test_fresh_seeds_are_not_compared_with_selected_ones(tmp_path: Path) -> None:
    """The latter were chosen for their luck."""
    store = Store(tmp_path)
    final = {"selection": (9.0, 5.0), "report": (9.0, 5.0)}
    best = trial(store, teacher(16), 1.0, {"selection": (2.0, 8.0), "report": (2.0, 8.0)})
    controls = [trial(store, teacher(2, seed=seed), 1.0, final) for seed in (0, 1)]
    sweep(store, "teacher", [best, *controls])
    students = [trial(store, student(2, seed=seed), 1.0, final) for seed in (0, *FRESH)]
    sweep(store, "student", students[:1], Teacher(best, 30, "w", "mnist5k-teachers", "best"), confirm=2)
    row = Comparison.read(store, None, None).table.rows[0]
    assert row.student is not None
    assert row.control is not None
    assert (row.student.seeds, row.control.seeds) == (2, 2)
    assert set(row.differences.values()) == {None}


@pytest.mark.parametrize(
    ("ours", "theirs", "starred", "better"),
    [
        ((60.0, 61.0), (90.0, 91.0), "student", 1),
        ((90.0, 91.0), (60.0, 61.0), "control", 0),
        ((60.0, 90.0), (61.0, 91.0), None, 0),
        ((60.0, 61.0), (), None, 0),
    ],
)
def test_a_star_marks_the_side_that_is_better_beyond_the_interval(
    tmp_path: Path, ours: tuple[float, ...], theirs: tuple[float, ...], starred: str | None, better: int
) -> None:
    table, compared = confirmed(Store(tmp_path), ours, theirs), len(theirs) > 1
    heads, row = table_text.columns(table), table_text.cells(table)[0]
    found = {side: row[heads.index(f"FID ({kind})")] for side, kind in (("student", "Stu."), ("control", "Reg."))}
    assert [side for side, text in found.items() if text.endswith("*")] == ([starred] if starred else [])
    assert (
        f"the student in 0 of 1 rows by IS and in {better} of 1 rows by FID" in table_text.caption(table)
    ) == compared
    assert table.beyond("fid") == (better, int(compared))


def test_an_unfinished_sweep_s_table_says_so(built: Table, tmp_path: Path) -> None:
    """The fixture's student of d = 4 has not finished."""
    assert not json.loads(table_text.as_text(built, "json"))["finished"]
    for style in ("md", "latex"):
        assert "unfinished: trials are still to be trained" in table_text.as_text(built, style)
    assert {line["finished"] for line in flat(built)} == {False}
    whole = confirmed(Store(tmp_path / "whole"), (60.0, 62.0), (70.0, 71.0))
    assert whole.finished
    assert "unfinished" not in table_text.caption(whole)


def test_the_limit_is_the_smallest_student_within_the_tolerance(built: Table) -> None:
    ratio = built.rows[0].ratio
    assert ratio is not None
    assert built.limit == Limit(family="dcgan", d=2, ratio=ratio, tolerance=0.1, metric="is")


def test_json_is_the_table(built: Table) -> None:
    assert json.loads(table_text.as_text(built, "json")) == {"schema": 1, **dataclasses.asdict(built)}


@pytest.mark.parametrize("style", ["md", "latex"])
def test_every_format_has_every_row(built: Table, style: str) -> None:
    text = table_text.as_text(built, style)
    for expected in ("13,487", "7.60", "61.0", "5.10", "91.0", "8.10"):
        assert expected in text


def test_csv_has_the_plain_numbers_of_every_row(built: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(table_text.as_text(built, "csv"))))
    assert [(line["d"], line["teacher"]) for line in lines] == [("2", "False"), ("4", "False"), ("16", "True")]
    assert float(lines[0]["student_fid"]) == mean(built.rows[0].student, "fid")
    assert lines[1]["student_fid"] == ""
    assert float(lines[2]["control_is"]) == mean(built.teacher, "is")


def test_discriminators_of_different_width_are_flagged(store: Store) -> None:
    trial(
        store,
        student(4, loss="joint", alpha=0.02, d_discriminator=4),
        1.0,
        {"selection": (60.0, 7.0), "report": (60.0, 7.0)},
    )
    built = Comparison.read(store, None, None).table
    assert table_text.cells(built)[1][-1] == "4/8 ≠"
    assert table_text.cells(built)[0][-1] == "—/8"  # mse trains no discriminator


def test_the_table_keeps_a_teacher_that_was_removed_from_its_sweep(store: Store, built: Table) -> None:
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    assert built.teacher is not None
    others = [s for s in manifest.signatures if s != built.teacher.signature]
    sweep(store, "teacher", others)
    assert Comparison.read(store, None, None).table.teacher == built.teacher


def test_controls_have_the_students_budget(store: Store, built: Table) -> None:
    """Extending the teacher sweep changes neither the teacher nor the controls of the table."""
    manifest = store.sweep("mnist5k-teachers")
    assert manifest is not None
    sweep(store, "teacher", manifest.signatures, updates=90, rungs=[10, 30, 90])
    extended = Comparison.read(store, None, None).table
    assert extended.rows == built.rows
    assert extended.teacher == built.teacher


def test_every_inequality_of_a_row_is_in_the_caption(built: Table) -> None:
    row = built.rows[0]
    assert row.control is not None
    assert "d=2: seeds 2 against 1 ≠" in table_text.caption(built)
    for name, value in row.control.conditions.items():
        other = {**row.control.conditions, "seeds": 2, name: f"not {value}"}
        control = dataclasses.replace(row.control, conditions=other)
        caption = table_text.caption(dataclasses.replace(built, rows=[dataclasses.replace(row, control=control)]))
        ours = row.student.conditions[name] if row.student else None
        assert f"d=2: {name} {ours} against not {value} ≠" in caption
    equal = dataclasses.replace(row.control, conditions={**row.control.conditions, "seeds": 2})
    assert "≠" not in table_text.caption(dataclasses.replace(built, rows=[dataclasses.replace(row, control=equal)]))


def test_configurations_are_counted_per_side(tmp_path: Path) -> None:
    store, final = Store(tmp_path), {"selection": (9.0, 5.0), "report": (9.0, 5.0)}
    best = trial(store, teacher(16), 1.0, {"selection": (2.0, 8.0), "report": (2.0, 8.0)})
    controls = [trial(store, teacher(2, lr=lr), lr, final) for lr in (0.1, 0.2, 0.3)]
    sweep(store, "teacher", [best, *controls])
    students = [trial(store, student(2, seed=seed), 1.0, final) for seed in (0, 1, 2)]
    sweep(store, "student", students, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    assert "d=2: configurations 1 against 3; seeds 3 against 1 ≠" in table_text.caption(
        Comparison.read(store, None, None).table
    )


def test_without_students_the_table_has_controls_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trials = [trial(store, teacher(d), 1.0, {"selection": (9.0, d), "report": (9.0, d)}) for d in (2, 4)]
    sweep(store, "teacher", trials)
    built = Comparison.read(store, "mnist5k", None).table
    assert built.teacher is not None
    assert built.teacher.d == 4
    assert [(row.d, row.student) for row in built.rows] == [(2, None)]


def test_no_sweep_and_several_sweeps_are_errors(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotYetError, match="holds no such sweep; run `sweeper run teachers --dataset mnist`"):
        find(store, "mnist", None)
    students = store.sweeps()[0]
    sweep(store, "student", students.signatures, students.teacher, name="again")
    with pytest.raises(UserError, match="several sweeps: again, mnist5k-students; name one with --name"):
        find(store, None, None)

"""Exports in fewer bits are lines of their own in the table."""

import csv
import io
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.records import ExportRecord, Measurement, Teacher
from sweeper.results import budget, choice, latency
from sweeper.results.budget import Budget, narrowed
from sweeper.results.comparison import Comparison
from sweeper.results.latency import DEFAULT, Conditions
from sweeper.results.lines import flat
from sweeper.results.table_text import as_text, caption, cells, columns
from sweeper.store import Store
from tests.sweeper.stores import scores, student, sweep, teacher, trial
from trainables.errors import UserError
from trainables.shapes import GeneratorShape

FORMATS = {
    "onnx": (100_000, 0.5, 21.0, 8.7),
    "onnx-fp16": (52_000, 0.4, 21.0, 8.7),
    "onnx-int8": (34_000, 0.8, 23.0, 8.6),
}


def record(name: str, **changes: Any) -> ExportRecord:
    size, _, fid, inception = FORMATS[name]
    made = ExportRecord(name, 30, weights="w", file=f"file-{name}", bytes=size, report=scores(fid, inception, "report"))
    return replace(made, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a student of d = 4 and its exports, one of d = 2 without, and latencies."""
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (21.0, 9.0)})
    sweep(store, "teacher", [best])
    report = {2: 5.0, 4: 8.7}
    trials = [trial(store, student(d), 9.0, {"selection": (20.0, i), "report": (21.0, i)}) for d, i in report.items()]
    sweep(store, "student", trials, Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    for name, (_, ms, _, _) in FORMATS.items():
        store.save_export(student(4).signature, record(name))
        store.save_measurement(
            Measurement(
                subject=latency.subject(student(4).generator),
                format=name,
                conditions=str(DEFAULT),
                host="somewhere",
                machine="a processor",
                milliseconds=ms,
                bytes=1,
            )
        )
    return store


def formats(comparison: Comparison) -> list[tuple[int, str | None]]:
    return [(line["d"], line["format"]) for line in flat(comparison.table)]


def test_each_format_is_a_line_with_its_scores_bytes_and_latency(store: Store) -> None:
    comparison = Comparison.read(store, None, None)
    table = comparison.table
    assert formats(comparison) == [(2, None), (4, None), (4, "onnx"), (4, "onnx-fp16"), (4, "onnx-int8"), (16, None)]
    int8 = dict(zip(columns(table), cells(table)[4], strict=True))
    assert int8 == {
        "d": "4",
        "Params": "28,253",
        "Ratio": "5.1:1",
        "kB": "34",
        "ms": "0.800",
        "IS (Stu.)": "8.60±0.10",
        "IS (Reg.)": "—",
        "FID (Stu.)": "23.0±0.1",
        "FID (Reg.)": "—",
        "Student": "onnx-int8",
        "D": "—",
    }
    (line,) = [line for line in csv.DictReader(io.StringIO(as_text(table, "csv"))) if line["format"] == "onnx-int8"]
    assert (line["bytes"], line["ms"], line["student_fid"], line["control_fid"]) == ("34000", "0.8", "23.0", "")
    row = json.loads(as_text(table, "json"))["rows"][1]
    assert [export["format"] for export in row["student"]["exports"]] == list(FORMATS)


def test_what_is_worse_or_slower_is_said(store: Store) -> None:
    said = caption(Comparison.read(store, None, None).table)
    assert "d=4, student, onnx-int8: FID 23.00 against 21.00: worse, IS 8.60 against 8.70: worse, " in said
    assert "0.8 ms against 0.5: slower" in said
    assert "fp16:" not in said, "it is no worse"
    assert f"{DEFAULT}; a processor" in said


def test_an_export_of_other_weights_or_of_another_protocol_is_not_shown(store: Store) -> None:
    other = {name: {**score, "protocol": "another"} for name, score in scores(1.0, 9.0, "report").items()}
    store.save_export(student(4).signature, record("onnx-fp16", weights="before"))
    store.save_export(student(4).signature, record("onnx-int8", report=other))
    assert formats(Comparison.read(store, None, None)) == [(2, None), (4, None), (16, None)]
    assert "kB" not in columns(Comparison.read(store, None, None).table)


def test_an_export_of_the_teacher_is_below_it(store: Store) -> None:
    for name in ("onnx", "onnx-int8"):
        store.save_export(teacher(16).signature, record(name))
    table = Comparison.read(store, None, None).table
    assert [(line["format"], line["control_fid"], line["teacher"]) for line in flat(table)][-2:] == [
        ("onnx", 21.0, True),
        ("onnx-int8", 23.0, True),
    ]
    assert cells(table)[-1][-2:] == ["onnx-int8", "—"]


def test_a_budget_keeps_an_export_where_float32_does_not_fit(store: Store) -> None:
    for d, size in ((2, 150_000), (4, 160_000)):
        store.weights(student(d).signature, "generator", 30).write_bytes(bytes(size))
    fitting = narrowed(Comparison.read(store, None, None), Budget(bytes=60_000))
    assert formats(fitting) == [(4, "onnx-fp16"), (4, "onnx-int8"), (16, None)]
    assert fitting.table.limit is None, "a limit of compression is in float32"
    with pytest.raises(UserError, match=r"the nearest is d=4, onnx-int8 with bytes 34,000"):
        narrowed(Comparison.read(store, None, None), Budget(bytes=10_000))


def test_a_bound_on_latency_measures_each_row_and_format_and_shows_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 d=2 takes 1 ms and d=4 2 ms; int8 takes half."""

    def measured(store: Store, shape: GeneratorShape, name: str, conditions: Conditions) -> Measurement:
        found = Measurement(
            subject=latency.subject(shape),
            format=name,
            conditions=str(conditions),
            host=platform.node(),
            machine="here",
            milliseconds=shape.d / (4 if name == "onnx-int8" else 2),
            bytes=1,
        )
        store.save_measurement(found)
        return found

    monkeypatch.setattr(budget, "measured", measured)
    comparison = Comparison.read(store, None, None)
    slow = Conditions(threads=7)
    fitting = narrowed(comparison, Budget(ms=1.5, conditions=slow))
    assert [(line["d"], line["format"], line["ms"]) for line in flat(fitting.table)] == [
        (2, None, 1.0),
        (4, "onnx-int8", 1.0),
        (16, None, None),
    ]
    assert f"ms per image: {slow}; " in caption(fitting.table)
    assert formats(narrowed(comparison, Budget(ms=1.5, conditions=Conditions(runtime="torch")))) == [
        (2, None),
        (16, None),
    ], "torch does not run exports"

    # An export in int8 has to fit in int8, and earlier exports do not count.
    def chosen(ms: float, *names: str) -> int:
        narrow = narrowed(comparison, Budget(ms=ms, formats=names, exports=False))
        return choice.choose(narrow, None, best=True).spec.d

    assert (chosen(1.5, "onnx-int8"), chosen(1.5, "onnx", "onnx-int8"), chosen(1.5, "safetensors")) == (4, 2, 2)
    with pytest.raises(UserError, match=r"the nearest is d=2 with ms 0\.5"):
        chosen(0.1, "onnx-int8")


def test_a_damaged_record_is_one_line(store: Store) -> None:
    path = store.root / "trials" / student(4).signature / "export-onnx-int8.json"
    path.write_text(path.read_text().replace('"fid"', '"fad"'))
    with pytest.raises(UserError, match=r"export-onnx-int8\.json is corrupt \(.*no FID"):
        Comparison.read(store, None, None)

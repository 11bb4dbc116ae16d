"""What the user sees while it runs."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from sweeper import run
from sweeper.progress import Progress
from sweeper.store import Store
from sweeper.sweep import Job, Sweep
from tests.sweeper.made import sweep, teacher, trial


def drawn(progress: Progress) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(progress._view())
    return console.export_text()


def test_the_view_counts_states_and_shows_the_best_per_d_and_a_time_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    final = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}
    signatures = [
        trial(store, teacher(2, lr=0.1), 30.5, final),
        trial(store, teacher(2, lr=0.2), 60.0),
        trial(store, teacher(2, lr=0.3), 50.0),
        trial(store, teacher(4, lr=0.1), 44.4),
        teacher(4, lr=0.2).signature,
        teacher(4, lr=0.3).signature,
    ]
    for lr in (0.2, 0.3):
        store.add(teacher(4, lr=lr))
    read = Sweep.read(sweep(store, "teacher", signatures), store)
    progress = Progress(read, slots=2)
    progress.started(read, Job(signatures[4], 10))
    lines = [line.split() for line in drawn(progress).splitlines()]
    heads = lines[1]
    rows = {line[0]: dict(zip(heads, line, strict=False)) for line in lines[2:4]}
    assert (rows["2"]["done"], rows["2"]["pruned"], rows["2"]["running"]) == ("1", "2", "·")
    assert (rows["4"]["paused"], rows["4"]["running"], rows["4"]["waiting"]) == ("1", "1", "1")
    assert "30.50" in lines[2]
    assert "44.40" in lines[3]
    assert "d=4 gan lr=0.2" in drawn(progress)
    record = read.records[signatures[3]].rungs[0]
    progress.started(read, Job(signatures[3], 10))
    progress.reached(read, Job(signatures[3], 10), record)
    assert re.fullmatch(r"about \d+ (s|min) left", drawn(progress).splitlines()[-1].strip())


def test_decoding_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, expected in ((True, "decoding faces"), (False, "faces: 600 of 1,000 images are decoded")):
        console = Console(width=120, record=True, file=io.StringIO(), force_terminal=terminal)
        monkeypatch.setattr(run, "console", console)
        monkeypatch.setattr(run, "say", console.print)
        monkeypatch.setattr(run, "SECONDS_BETWEEN_LINES", 0.0)
        with run.decoding("faces") as tell:
            tell(600, 1_000)
        assert expected in console.export_text()

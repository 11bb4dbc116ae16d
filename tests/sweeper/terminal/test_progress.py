"""The progress of a running sweep in the terminal."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from sweeper import session
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine
from sweeper.records import Teacher
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from sweeper.terminal import dashboard as view
from sweeper.terminal.progress import Progress
from tests.sweeper.stores import PROTOCOLS, student, sweep, teacher, trial


def render(renderable: RenderableType) -> str:
    """Return a view as text."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """Parse a view: d → heading → cell."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    heads = lines[1]
    return {line[0]: dict(zip(heads, line, strict=True)) for line in lines[2:] if len(line) == len(heads)}


@pytest.fixture
def teachers(tmp_path: Path) -> Sweep:
    """Return a sweep with three trials of d = 2 (one done, two pruned) and three of d = 4 (one paused, two waiting)."""
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
    return Sweep.read(sweep(store, "teacher", signatures), store)


def progress_of(sweep: Sweep, tmp_path: Path, **machine: float) -> Progress:
    return Progress(sweep, Store(tmp_path), Cluster.of(Machine(**{"cpus": 2, "gpus": 0, **machine})), slots=lambda: 2)


def test_the_view_counts_states_and_shows_the_best_per_d(teachers: Sweep, tmp_path: Path) -> None:
    progress = progress_of(teachers, tmp_path)
    progress.started(teachers, Job(teacher(4, lr=0.2).signature, 10))
    text = render(progress._view())
    rows = rows_of(text)
    assert (rows["2"]["done"], rows["2"]["pruned"], rows["2"]["running"]) == ("1", "2", "·")
    assert (rows["4"]["paused"], rows["4"]["running"], rows["4"]["waiting"]) == ("1", "1", "1")
    assert (rows["2"]["best FID"], rows["2"]["at"], rows["4"]["best FID"]) == ("30.50", "30", "44.40")
    assert "diverged" not in rows["2"], "states without trials have no column"
    assert "d=4 gan lr=0.2 d_discriminator=8 (0 s)" in text


def test_the_view_shows_rungs_slots_and_time_left(teachers: Sweep, tmp_path: Path) -> None:
    progress = progress_of(teachers, tmp_path)
    job = Job(teacher(4, lr=0.2).signature, 10)
    progress.started(teachers, job)
    text = render(progress._view())
    assert "10: 4/6  30: 1/2" in text
    assert "1 of 2 slots in use; time left: not known yet" in text
    progress.reached(teachers, job, teachers.records[teacher(4, lr=0.1).signature].rungs[0])
    assert re.search(r"0 of 2 slots in use; about \d+ (s|min) left", render(progress._view()))


def test_on_gpus_the_view_counts_shares(teachers: Sweep, tmp_path: Path) -> None:
    progress = progress_of(teachers, tmp_path, gpus=4)
    for lr in (0.2, 0.3):
        progress.started(teachers, Job(teacher(4, lr=lr).signature, 10))
    assert "0.25 of 4 GPUs in use" in render(progress._view())


def test_students_are_compared_with_the_teacher_and_the_control_at_the_same_updates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    best = trial(store, teacher(16), 5.25, {"selection": (20.0, 9.0), "report": (21.0, 9.1)})
    controls = [trial(store, teacher(d), 40.0, {"selection": (9.0, 5.0), "report": (9.0, 5.1)}) for d in (2, 4)]
    sweep(store, "teacher", [best, *controls])
    trials = [trial(store, student(2), 30.0), trial(store, student(4), 50.0)]
    students = Sweep.read(sweep(store, "student", trials, Teacher(best, 30, "w", "mnist5k-teachers", "best")), store)
    text = render(view.draw(students, view.Baselines.of(students, store), view.Live()))
    assert [row["control's FID"] for row in rows_of(text).values()] == ["40.00 beaten", "40.00"]
    assert "the teacher, d=16: FID 5.25" in text


def test_rungs_of_another_protocol_are_not_compared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    best = trial(store, teacher(2), 5.25, {"selection": (20.0, 9.0), "report": (21.0, 9.1)})
    sweep(store, "teacher", [best], protocols=PROTOCOLS | {"rung": "other"})
    pinned = Teacher(best, 30, "w", "mnist5k-teachers", "best")
    students = Sweep.read(sweep(store, "student", [trial(store, student(2), 30.0)], pinned), store)
    # The teacher's own rung is of the students' protocol.
    assert view.Baselines.of(students, store) == view.Baselines({}, ("d=2", 5.25))


def test_failures_stay_in_the_view(teachers: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = progress_of(teachers, tmp_path)
    progress.failed(teachers, Job(teacher(4, lr=0.2).signature, 10), "out of [memory]")
    for lr in (0.1, 0.2, 0.3):  # later trials do not push the failure out
        progress.started(teachers, Job(teacher(2, lr=lr).signature, 10))
    assert "failed d=4 gan lr=0.2 d_discriminator=8: out of [memory]" in render(progress._view())
    assert "out of [memory]" in capsys.readouterr().err


def test_without_a_terminal_the_output_is_plain_lines(
    teachers: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_of(teachers, tmp_path) as progress:
        job = Job(teacher(4, lr=0.2).signature, 10)
        progress.started(teachers, job)
        progress.reached(teachers, job, teachers.records[teacher(4, lr=0.1).signature].rungs[0])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d d=4 gan .* at 10/30: FID 44.40  IS 1.00  about \d+ (s|min) left", line)


def test_no_color_is_respected_in_a_terminal(teachers: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, file=io.StringIO(), width=120)
    console.print(view.draw(teachers, view.Baselines({}, None), view.Live(failures=("failed it",))))
    assert isinstance(console.file, io.StringIO)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", console.file.getvalue())


def test_decoding_shows_a_bar_in_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, expected in ((True, "faces: images decoded"), (False, "faces: 600 of 1,000 images are decoded")):
        console = Console(width=120, record=True, file=io.StringIO(), force_terminal=terminal)
        monkeypatch.setattr(session, "console", console)
        monkeypatch.setattr(session, "say", console.print)
        monkeypatch.setattr(session, "SECONDS_BETWEEN_LINES", 0.0)
        with session.progress("faces") as tell:
            tell("decoded", 600, 1_000)
        assert expected in console.export_text()

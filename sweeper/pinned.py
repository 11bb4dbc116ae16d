"""The pinned teacher of a student sweep: its files, and its scores by the students' protocols."""

from sweeper import weights
from sweeper.records import AddedTeacher, FinalRecord, Manifest, Teacher
from sweeper.request import default_side, say
from sweeper.store import Store
from sweeper.terminal.dashboard import time_left
from trainables.errors import SpoiledError, UserError


def check_comparable(students: Manifest, source: Manifest | AddedTeacher, store: Store) -> None:
    """Raise UserError if the table could not compare students with their teacher. Warn of unequal budgets.

    An added teacher, and one whose images are larger than its students', are scored here by the students' protocols.
    """
    if students.features != source.features:
        raise UserError(f"--features {students.features}: {source.name} uses {source.features}; leave --features out")
    assert students.teacher is not None
    protocol = students.protocols["report"]
    has_scores = protocol in _report_protocols(students.teacher, store)
    if isinstance(source, AddedTeacher) or source.image_size != students.image_size:
        if not has_scores:
            _score_teacher(students, store)
        return
    if students.updates != source.updates:
        say(
            ("unequal budgets", "yellow"),
            f": students {students.updates} updates, controls {source.updates}; "
            f"for a fair table add --set updates={source.updates}, or train teachers with updates={students.updates}",
        )
    if students.n["report"] != source.n["report"]:
        raise UserError(
            f"n_report={students.n['report']}: {source.name} was scored with {source.n['report']} images, and FID "
            f"depends on their number; add --set n_report={source.n['report']}"
        )
    if not has_scores:
        raise UserError(
            f"the teacher's scores are by {source.protocols['report']}, and its students' would be by {protocol}; "
            f"run `{source.command}` first: it scores the teachers again, without training them"
        )


def _report_protocols(teacher: Teacher, store: Store) -> list[str]:
    """Return the protocols of a pinned teacher's report scores."""
    known = store.taught_by(teacher)
    reports = known.scores if isinstance(known, AddedTeacher) else _finals(teacher, store)
    return [scores.report["fid"]["protocol"] for scores in reports]


def _score_teacher(students: Manifest, store: Store) -> None:
    from sweeper.execution.generators import score_teacher
    from sweeper.execution.job import scorer_of

    assert students.teacher is not None
    say(f"scoring the teacher {students.teacher.by} as its students are: {students.protocols['report']}")
    scorer = scorer_of(students.dataset, students.image_size, students.features, store.root)
    score_teacher(store, students, scorer, lambda seconds: say(time_left(seconds)))


def _finals(teacher: Teacher, store: Store) -> list[FinalRecord]:
    """Return the final records of a pinned teacher that sweeper trained, one per protocol."""
    finals = store.require(teacher.signature).finals
    return [final for final in finals if (final.updates, final.weights) == (teacher.updates, teacher.weights)]


def check_weights(teacher: Teacher, store: Store) -> None:
    """Raise UserError if a file of the teacher is missing, or is not the recorded one."""
    if teacher.sweep is None:
        from sweeper.execution.generators import teacher_images

        teacher_images(store, teacher, default_side(store.taught_by(teacher).image_size))
        return
    try:
        for final in _finals(teacher, store):
            weights.check(store, teacher.signature, final)
    except SpoiledError as error:
        raise weights.with_advice(store, teacher.signature, error) from None

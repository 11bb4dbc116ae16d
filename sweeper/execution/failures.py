"""What follows from a job's failure: another try, a failed trial, or the end of the command. Needs no Ray.

A failure counts against a job only if the job has written no checkpoint since the one before. An unexpected error may
lie in the machine (a card, a mount) instead of in the trial: errors of several jobs that are raised by one line of code
are the machine's. So are those of a disk. A full one stays full for every job, and ends the command at once.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from sweeper.scheduling.sweep import Job
from trainables.errors import FULL, DiskError, EnvironmentUserError

ERRORS = 3  # unexpected errors in a row that fail a trial
DEATHS = 5  # of its process in a row that fail a trial; a node that is lost does not count
ALIKE = 3  # jobs with one unexpected error that end the command


class UnexpectedError(Exception):
    """What a job raised that may be the machine's fault. Its process is not used again."""

    def __init__(self, reason: str, place: str = "", exit_code: int = 1, is_full: bool = False) -> None:
        """reason: one line. place: the file and line that raised it, and the type of the error; equal for errors alike.

        exit_code: that of an EnvironmentUserError, whose line says what to do, else 1. is_full: whether a disk is full.
        """
        super().__init__(reason, place, exit_code, is_full)  # all, because it is pickled
        self.reason, self.place, self.exit_code, self.is_full = reason, place or reason, exit_code, is_full

    @classmethod
    def of(cls, error: EnvironmentUserError) -> "UnexpectedError":
        """Return what a machine lacks as a failure of the job."""
        number = error.errno if isinstance(error, DiskError) else None
        place = f"DiskError {number}" if number else str(error)
        return cls(str(error), place, error.exit_code, number in FULL)

    @property
    def advises(self) -> bool:
        """Whether the reason says what to do. Of other errors the store has the traceback."""
        return self.exit_code == EnvironmentUserError.exit_code


@dataclass(frozen=True)
class ProcessDeath:
    """The process of a job ended. lost: with its node."""

    lost: bool


class Failures:
    """The failures of one command."""

    def __init__(self) -> None:
        self._in_a_row: Counter[Job] = Counter()
        self._progress: dict[Job, int] = {}
        self._jobs_by_place: defaultdict[str, set[str]] = defaultdict(set)

    def forgive(self, job: Job) -> None:
        """Take back one death of a job's process: its node was lost, which was not known yet."""
        self._in_a_row[job] = max(0, self._in_a_row[job] - 1)

    def forget(self, error: UnexpectedError) -> None:
        """Forget the jobs that raised an error: the node was at fault."""
        self._jobs_by_place.pop(error.place, None)

    def reason_to_fail(self, job: Job, error: UnexpectedError | ProcessDeath, progress: int) -> str | None:
        """Count a failure. Return why the trial fails, or None if the job is to be tried again.

        progress: a number that changes with each checkpoint of the trial. Raises EnvironmentUserError if jobs fail
        alike, or if a disk is full.
        """
        if self._progress.get(job) != progress:
            self._in_a_row[job] = 0
        self._progress[job] = progress
        if isinstance(error, ProcessDeath) and error.lost:
            return None
        self._in_a_row[job] += 1
        if isinstance(error, ProcessDeath):
            died = self._in_a_row[job] >= DEATHS
            return f"its process died {DEATHS} times without a newer checkpoint" if died else None
        if error.is_full:
            raise EnvironmentUserError(error.reason)
        alike = self._jobs_by_place[error.place]
        alike.add(job.signature)
        if len(alike) >= ALIKE and error.advises:
            raise EnvironmentUserError(error.reason)
        if len(alike) >= ALIKE:
            raise EnvironmentUserError(
                f"{len(alike)} trials stopped by one error, {error.reason}; none is marked as failed; repair what the "
                f"traceback in trials/{job.signature}/error.txt of the store shows, and run the same command again"
            )
        return error.reason if self._in_a_row[job] >= ERRORS else None

"""What the user sees while a sweep runs: a live view in a terminal, plain lines elsewhere. All of it on stderr."""

import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeper.store import RungRecord
from sweeper.sweep import STATES, Job, Sweep

SECONDS_BETWEEN_TABLES = 1.0  # counting the states of 10,000 trials takes a while


class Progress:
    """A launch.Watcher that draws."""

    def __init__(self, sweep: Sweep, slots: int) -> None:
        self.sweep, self.slots = sweep, slots
        self.console = Console(stderr=True, highlight=False)
        self.running: dict[str, float] = {}  # signature → when it began
        self.timed_work, self.timed_seconds = 0.0, 0.0
        self._body, self._stale, self._drawn = self._table(), False, 0.0
        self.live = Live(console=self.console, get_renderable=self._view, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def started(self, sweep: Sweep, job: Job) -> None:
        self.running[job.signature] = time.monotonic()
        self._stale = True

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        self._timed(job, record)
        self._stale = True
        label = f"{sweep.records[job.signature].spec.label()} at {record.updates}/{sweep.manifest.updates}"
        if record.diverged:
            self._say(f"{label}: [red]diverged[/red]")
        else:
            found = [
                f"{name.upper()} {record.scores[name]['mean']:.2f}" for name in ("fid", "is") if name in record.scores
            ]
            self._say(f"{label}: {'  '.join(found)}  [dim]{self._time_left()}[/dim]")

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self.running.pop(job.signature, None)
        self._stale = True
        self._say(f"[red]failed[/red] {sweep.records[job.signature].spec.label()}: {reason}")

    def _say(self, line: str) -> None:
        """A line that stays: above the live view, or as it is when there is none."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {line}", soft_wrap=True)

    def _timed(self, job: Job, record: RungRecord) -> None:
        begun = self.running.pop(job.signature, None)
        if begun is not None and record.seconds > 0:
            reached = [r.updates for r in self.sweep.records[job.signature].rungs if r.updates < record.updates]
            self.timed_work += self.sweep.work(job.signature, record.updates - max(reached, default=0))
            self.timed_seconds += time.monotonic() - begun

    def _time_left(self) -> str:
        if not self.timed_work:
            return "time left: not known yet"
        rate = self.timed_seconds / self.timed_work
        total, longest = self.sweep.work_left()
        begun = [time.monotonic() - moment for moment in self.running.values()]
        seconds = max(0.0, (total * rate - sum(begun)) / self.slots, longest * rate - max(begun, default=0.0))
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"

    def _table(self) -> Table:
        """Trials per state and the best score, per d."""
        table = Table(title=f"{self.sweep.manifest.name}: trials", title_justify="left", box=None, padding=(0, 2))
        for heading in ("d", *STATES, "best FID", "IS", "at"):
            table.add_column(heading, justify="right")
        states = self.sweep.states() | dict.fromkeys(self.running, "running")
        for d, stratum in self.sweep.strata.items():
            counts = Counter(states[trial] for trials in stratum.configurations.values() for trial in trials)
            record = self.sweep.leader(d)
            scores = [
                f"{record.scores[n]['mean']:.2f}" if record and n in record.scores else "—" for n in ("fid", "is")
            ]
            cells = [
                str(d),
                *(str(counts[name] or "·") for name in STATES),
                *scores,
                str(record.updates) if record else "—",
            ]
            table.add_row(*cells)
        return table

    def _view(self) -> Group:
        if self._stale and time.monotonic() - self._drawn > SECONDS_BETWEEN_TABLES:
            self._body, self._stale, self._drawn = self._table(), False, time.monotonic()
        names = sorted(self.running, key=self.running.__getitem__)
        busy = [f"{self.sweep.records[s].spec.label()} ({time.monotonic() - self.running[s]:.0f} s)" for s in names]
        shown = " | ".join(busy[:4]) + (f" | and {len(busy) - 4} more" if len(busy) > 4 else "")
        return Group(self._body, Text(shown, style="cyan", overflow="ellipsis", no_wrap=True), Text(self._time_left()))

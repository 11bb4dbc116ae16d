"""Show the progress of a running sweep on stderr: a live view in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live as Screen
from rich.markup import escape

from sweeper.execution.experience import Experience
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import share_of
from sweeper.records import RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from sweeper.terminal.dashboard import MAX_LINES, Baselines, Live, draw, time_left

SECONDS_BETWEEN_VIEWS = 1.0  # counting the states of 10,000 trials takes time


class Progress:
    """A tune.Watcher that draws the sweep, and saves the live state that `sweeper status --watch` draws."""

    def __init__(self, sweep: Sweep, store: Store, cluster: Cluster, slots: Callable[[], int]) -> None:
        """slots: returns how many trials of this sweep run at a time on the nodes that are here."""
        self.sweep, self.store, self.cluster, self._count_slots = sweep, store, cluster, slots
        self._nodes, self.slots = cluster.nodes, slots()
        self.console = Console(stderr=True, highlight=False)
        self.running: dict[str, float] = {}  # signature → Unix time at which its job started
        self.updates: dict[str, int] = {}  # signature → updates that the running trials have done
        self.failures: list[str] = []
        self.timed_work, self.timed_seconds = 0.0, 0.0
        self.baselines, self._experience = Baselines.of(sweep, store), Experience.read(store)
        self._body, self._drawn = self._view(), time.monotonic()
        self._screen = Screen(console=self.console, get_renderable=self.view, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        self._save_live()
        if self.console.is_terminal:
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()
        self.running.clear()  # the command may continue without training
        self._save_live()

    def started(self, sweep: Sweep, job: Job) -> None:
        self.running[job.signature] = time.time()
        self._save_live()

    def trained(self, sweep: Sweep, updates: Mapping[str, int]) -> None:
        self.updates = dict(updates)
        self._save_live()

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        self._record_time(job, record)
        label = f"{sweep.records[job.signature].spec.label()} at {record.updates}/{sweep.manifest.updates}"
        if record.diverged:
            self._print(f"{label}: [red]diverged[/red]")
        else:
            scores = [
                f"{name.upper()} {record.scores[name]['mean']:.2f}" for name in ("fid", "is") if name in record.scores
            ]
            self._print(f"{label}: {'  '.join(scores)}  [dim]{time_left(self._seconds_left())}[/dim]")
        self._save_live()

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self.running.pop(job.signature, None)
        line = f"{sweep.records[job.signature].spec.label()}: {reason}"
        self.failures.append(f"failed {line}")
        self._print(f"[red]failed[/red] {escape(line)}")
        self._save_live()

    def view(self) -> RenderableType:
        """Return the view, redrawn at most once in SECONDS_BETWEEN_VIEWS."""
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_VIEWS:
            self._drawn = time.monotonic()
            with suppress(RuntimeError):  # the sweep changed while this thread read it; the next view is current
                self._body = self._view()
        return self._body

    def _view(self) -> RenderableType:
        return draw(self.sweep, self.baselines, self._live())

    def _save_live(self) -> None:
        """Save the live state for `sweeper status --watch` in another terminal."""
        self.store.save_live(self.sweep.manifest.name, self._live().as_dict())

    def _live(self) -> Live:
        if self.cluster.nodes != self._nodes:
            self._nodes, self.slots = self.cluster.nodes, self._count_slots()
        machine = self.cluster.machine
        shares = [share_of(self.sweep, one, machine, self._experience).gpus for one in self.running]
        on_gpus = machine.gpus > 0
        return Live(
            driver=self.store.driver(),
            running=dict(self.running),
            updates=dict(self.updates),
            used=sum(shares) if on_gpus else len(shares),
            capacity=machine.gpus if on_gpus else self.slots,
            unit="GPUs" if on_gpus else "slots",
            seconds_left=self._seconds_left(),
            failures=tuple(self.failures[-MAX_LINES - 1 :]),
        )

    def _print(self, line: str) -> None:
        """Print a line that stays, above the live view if there is one."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {line}", soft_wrap=True)

    def _record_time(self, job: Job, record: RungRecord) -> None:
        """Add a finished job to the work and time from which the time left is estimated."""
        started = self.running.pop(job.signature, None)
        if started is not None and record.seconds > 0:
            reached = [r.updates for r in self.sweep.records[job.signature].rungs if r.updates < record.updates]
            self.timed_work += self.sweep.work(job.signature, record.updates - max(reached, default=0))
            self.timed_seconds += time.time() - started

    def _seconds_left(self) -> float | None:
        if not self.timed_work:
            return None
        rate = self.timed_seconds / self.timed_work
        total, longest = self.sweep.work_left()
        elapsed = [time.time() - started for started in self.running.values()]
        return max(0.0, (total * rate - sum(elapsed)) / self.slots, longest * rate - max(elapsed, default=0.0))

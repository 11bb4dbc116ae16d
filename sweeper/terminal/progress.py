"""What the user sees while a sweep runs: a live view in a terminal, plain lines elsewhere. All of it on stderr."""

import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live as Screen
from rich.markup import escape

from sweeper.execution.resources import Machine, share_of
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import RungRecord, Store
from sweeper.terminal.dashboard import SHOWN, Baselines, Live, draw, time_left

SECONDS_BETWEEN_VIEWS = 1.0  # counting the states of 10,000 trials takes a while


class Progress:
    """A tune.Watcher that draws, and leaves in the store what `sweeper status --watch` draws elsewhere."""

    def __init__(self, sweep: Sweep, store: Store, machine: Machine, slots: int) -> None:
        """slots: how many trials of this sweep run at a time."""
        self.sweep, self.store, self.machine, self.slots = sweep, store, machine, slots
        self.console = Console(stderr=True, highlight=False)
        self.running: dict[str, float] = {}  # signature → when it began
        self.failures: list[str] = []
        self.timed_work, self.timed_seconds = 0.0, 0.0
        self.baselines, self._least = Baselines.of(sweep, store), store.min_shares()
        self._body, self._drawn = self._view(), time.monotonic()
        self._screen = Screen(console=self.console, get_renderable=self.view, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        self._leave()
        if self.console.is_terminal:
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()
        self.running.clear()  # whatever else the command does now
        self._leave()

    def started(self, sweep: Sweep, job: Job) -> None:
        self.running[job.signature] = time.time()
        self._leave()

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        self._timed(job, record)
        label = f"{sweep.records[job.signature].spec.label()} at {record.updates}/{sweep.manifest.updates}"
        if record.diverged:
            self._say(f"{label}: [red]diverged[/red]")
        else:
            found = [
                f"{name.upper()} {record.scores[name]['mean']:.2f}" for name in ("fid", "is") if name in record.scores
            ]
            self._say(f"{label}: {'  '.join(found)}  [dim]{time_left(self._seconds_left())}[/dim]")
        self._leave()

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self.running.pop(job.signature, None)
        line = f"{sweep.records[job.signature].spec.label()}: {reason}"
        self.failures.append(f"failed {line}")
        self._say(f"[red]failed[/red] {escape(line)}")
        self._leave()

    def view(self) -> RenderableType:
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_VIEWS:
            self._drawn = time.monotonic()
            with suppress(RuntimeError):  # the sweep changed while this thread read it: once more in a second
                self._body = self._view()
        return self._body

    def _view(self) -> RenderableType:
        return draw(self.sweep, self.baselines, self._live())

    def _leave(self) -> None:
        """For whoever watches from another terminal."""
        self.store.save_live(self.sweep.manifest.name, self._live().as_dict())

    def _live(self) -> Live:
        taken = [self._share(signature) for signature in self.running]
        on_gpus = self.machine.gpus > 0
        return Live(
            driver=self.store.driver(),
            running=dict(self.running),
            used=sum(taken) if on_gpus else len(taken),
            capacity=self.machine.gpus if on_gpus else self.slots,
            unit="GPUs" if on_gpus else "slots",
            seconds_left=self._seconds_left(),
            failures=tuple(self.failures[-SHOWN - 1 :]),
        )

    def _share(self, signature: str) -> float:
        return share_of(self.sweep, signature, self.machine, self._least).gpus

    def _say(self, line: str) -> None:
        """A line that stays: above the live view, or as it is when there is none."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {line}", soft_wrap=True)

    def _timed(self, job: Job, record: RungRecord) -> None:
        begun = self.running.pop(job.signature, None)
        if begun is not None and record.seconds > 0:
            reached = [r.updates for r in self.sweep.records[job.signature].rungs if r.updates < record.updates]
            self.timed_work += self.sweep.work(job.signature, record.updates - max(reached, default=0))
            self.timed_seconds += time.time() - begun

    def _seconds_left(self) -> float | None:
        if not self.timed_work:
            return None
        rate = self.timed_seconds / self.timed_work
        total, longest = self.sweep.work_left()
        begun = [time.time() - moment for moment in self.running.values()]
        return max(0.0, (total * rate - sum(begun)) / self.slots, longest * rate - max(begun, default=0.0))

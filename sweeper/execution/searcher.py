"""Tune's searcher: suggests the next job once its share of the machine is free, and hears how each one ended.

The command imports sweeper.execution.tune before this module: it sets what Ray reads when it is imported.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeper.execution import pulse
from sweeper.execution.experience import Experience, save_measured
from sweeper.execution.failures import Failures, ProcessDeath, UnexpectedError
from sweeper.execution.nodes import Node
from sweeper.execution.placement import Placement
from sweeper.execution.resources import Share
from sweeper.execution.slots import Slots
from sweeper.execution.watching import Watcher
from sweeper.records import CHECKPOINT_SECONDS
from sweeper.scheduling.sweep import Failure, Job, Sweep
from sweeper.store import Store
from trainables import checkpoint, plugins
from trainables.errors import LostClaimError

SECONDS_TO_STOP = 7.0  # for the running jobs to save their checkpoints
SECONDS_BETWEEN_LOOKS = 5.0  # at the running jobs
SECONDS_TO_START = 60.0  # after which a job that has not started is worth a line
SECONDS_TO_NOTICE = 120.0  # that Ray may take to notice that a node is lost


class Stopped(BaseException):
    """Leaves Tune's loop at once. After an Exception Tune would wait for its actors."""


class JobSearcher(Searcher):
    """Suggests jobs. interrupted: whether the command is to end."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        slots: Slots,
        watchers: list[Watcher],
        interrupted: Callable[[], bool] = lambda: False,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        """checkpoint_seconds: between two checkpoints of a running job."""
        super().__init__()
        self.sweep, self.store, self.slots, self.watchers = sweep, store, slots, watchers
        self.interrupted = interrupted
        self.running: dict[str, Job] = {}  # Tune's id → job, also while it waits for its process
        self.waiting: dict[str, tuple[float, Share]] = {}  # Tune's id → since when, for what, until the job starts
        self.delayed: list[Job] = []  # to be tried again once another job has succeeded, or no other is left
        self.failures = Failures()
        self.experience = Experience.read(store)
        self.placement = Placement(sweep, slots, self.experience, self._print_note)
        self.stranded: set[str] = set()  # Tune's ids of jobs that wait for a process on a node that is gone
        self.checkpoint_seconds = checkpoint_seconds
        self.plugins = [(store.save_plugin(plugin), plugin.id) for plugin in plugins.LOADED.values()]
        self.printed_notes: set[str] = set()
        self.error: Exception | None = None  # kept here, because an exception inside Tune would end the running jobs
        self._stopping: float | None = None  # since when
        self._awaited: set[str] = set()  # Tune's ids of jobs that are to save a checkpoint
        self._looked = time.monotonic()
        self._deaths: list[tuple[float, Job, str]] = []  # when, of which job, on which node

    # Suggestions.

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a str
        try:
            return self._suggest(trial_id)
        except Exception as raised:
            self.error = self.error or raised
            return None

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.error or self.interrupted():
            return None if self.running else str(Searcher.FINISHED)
        self.store.check_claim()
        self._look_at_nodes()
        job = self.sweep.next()
        if job is None and self.delayed:
            self._retry_delayed()
            job = self.sweep.next()
        if job is None:
            return None if self.running else str(Searcher.FINISHED)
        # No other job overtakes one whose share is not free, so that jobs with large shares do not starve.
        placed = self.placement.place(trial_id, job)
        if placed is None:
            return None
        node, share = placed
        self.running[trial_id], self.waiting[trial_id] = job, (time.monotonic(), share)
        self.sweep.start(job)
        # The configuration that TrialActor.setup reads.
        return {
            "signature": job.signature,
            "updates": job.updates,
            "sweep": self.sweep.manifest.name,
            "store": str(self.store.root),
            "token": self.store.token,
            "share": share.as_dict(),
            "node": node.id,
            "checkpoint_seconds": self.checkpoint_seconds,
            "plugins": self.plugins,
        }

    def _look_at_nodes(self) -> None:
        """Have jobs leave the nodes that are to be shut down. Find those that wait for a node that is gone."""
        stranded, leaving = self.placement.look(self.running, self.waiting)
        self.stranded |= stranded
        for node in leaving:
            pulse.leave(node)
        now = time.monotonic()
        for death in list(self._deaths):
            since, job, on = death
            if not self.slots.cluster.has(on):
                self.failures.forgive(job)
            if now - since > SECONDS_TO_NOTICE or not self.slots.cluster.has(on):
                self._deaths.remove(death)

    # What Tune reports.

    def on_step(self) -> None:
        """Look after the jobs: Tune calls it several times a second. Raises Stopped once the jobs have to end."""
        now = time.monotonic()
        if not self.error and now - self._looked > SECONDS_BETWEEN_LOOKS:
            self._look(now)
        if isinstance(self.error, LostClaimError):
            raise Stopped  # at once: the trials are another command's
        if self.error or self.interrupted():
            if self._stopping is None:
                self._stopping = now
                if self.error:
                    print(f"stopping, the running jobs save their checkpoints: {self.error}", file=sys.stderr)
                pulse.stop_jobs()
                trained = pulse.updates_of(self._started().values())
                self._awaited = {trial_id for trial_id, trial in self._started().items() if trial in trained}
            if not self._awaited & self.running.keys() or now - self._stopping > SECONDS_TO_STOP:
                raise Stopped
            return
        self._look_at_nodes()

    def _look(self, now: float) -> None:
        """Check the claim of the store, and tell the watchers what runs."""
        self._looked = now
        try:
            self.store.check_claim()
        except LostClaimError as error:
            self.error = error
            return
        updates = pulse.updates_of(self._started().values())
        self._notify(lambda watcher: watcher.trained(self.sweep, updates))
        self._explain_waiting(now)

    def _started(self) -> dict[str, str]:
        """Return Tune's id → signature, of the jobs that have a process."""
        return {trial_id: job.signature for trial_id, job in self.running.items() if trial_id not in self.waiting}

    def _explain_waiting(self, now: float) -> None:
        for trial_id, (since, share) in self.waiting.items():
            if now - since > SECONDS_TO_START:
                self._print_note(
                    f"{self._label(self.running[trial_id])} has waited {SECONDS_TO_START:.0f} s for a slot: it needs "
                    f"{share.text()} on one node, and no node has that free, or its process is slow to start; "
                    "`ray status` lists what is free"
                )

    def on_start(self, trial_id: str) -> None:
        """Note that the process of a job runs it."""
        self.waiting.pop(trial_id, None)
        if (job := self.running.get(trial_id)) is not None:
            self._notify(lambda watcher: watcher.started(self.sweep, job))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: a job has a single result, which on_trial_complete reads."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take a job's result. After an error there is none: on_error follows."""
        if error:
            return
        node = self.slots.node_of(trial_id)
        job, share = self._end(trial_id)
        try:
            self.store.check_claim()
            if trial_id in self.stranded or (result and result.get("interrupted")):
                self.stranded.discard(trial_id)
                self.sweep.retry(job)
            elif result and "out_of_memory" in result and 0 < share.gpus < 1:
                self._retry_on_larger_share(job, share.gpus, node)
            else:
                self._report(job, result or {}, node)
        except Exception as raised:
            self.error = self.error or raised

    def on_error(self, trial_id: str, raised: Exception | None) -> None:
        """Take what ended a job without a result: an error of its own, or the death of its process."""
        node = self.slots.node_of(trial_id)
        job, _ = self._end(trial_id)
        self.stranded.discard(trial_id)
        cause = getattr(raised, "cause", None)
        error: UnexpectedError | ProcessDeath
        if isinstance(cause, UnexpectedError):
            error = cause
        elif isinstance(raised, RayActorError) and not getattr(raised, "actor_init_failed", False):
            gone = node is not None and not self.slots.cluster.has(node.id)
            error = ProcessDeath(lost=gone or raised.preempted or "node has died" in str(raised))
            if node is not None and self.slots.cluster.shared and not error.lost:
                self._deaths.append((time.monotonic(), job, node.id))
        else:
            error = UnexpectedError((str(raised).strip().splitlines() or ["its process did not start"])[-1])
        try:
            if isinstance(error, UnexpectedError) and self.placement.raised(node, job, error.reason):
                self.failures.forget(error)
                self.delayed.append(job)
                return
            reason = self.failures.reason_to_fail(job, error, self._progress(job))
            if reason is not None:
                self._fail(job, Failure(reason, error.exit_code if isinstance(error, UnexpectedError) else 1))
            elif isinstance(error, ProcessDeath):
                self.sweep.retry(job)
            else:
                self.delayed.append(job)
        except Exception as stopping:
            self.error = self.error or stopping

    def _end(self, trial_id: str) -> tuple[Job, Share]:
        self.waiting.pop(trial_id, None)
        return self.running.pop(trial_id), self.slots.release(trial_id)

    def _progress(self, job: Job) -> int:
        """Return the updates of a job's newest checkpoint."""
        return checkpoint.updates(self.store.checkpoint(job.signature))

    def _retry_delayed(self) -> None:
        for job in self.delayed:
            self.sweep.retry(job)
        self.delayed.clear()

    def _retry_on_larger_share(self, job: Job, gpus: float, node: Node | None) -> None:
        """Retry a job on twice its share of a GPU. From now on trials of its footprint get that share of such a GPU."""
        spec, enlarged = self.sweep.records[job.signature].spec, 2 * gpus
        gpu_name = node.machine.gpu_name if node is not None else ""
        self.experience.save_min_share(self.store, spec, gpu_name, enlarged)
        self.sweep.retry(job)
        label = self._label(job)
        print(f"note: {label} ran out of memory on {gpus:g} of a GPU; retrying on {enlarged:g}", file=sys.stderr)

    def _report(self, job: Job, result: dict[str, Any], node: Node | None) -> None:
        if "gpu_name" in result:
            spec = self.sweep.records[job.signature].spec
            save_measured(self.store, result["gpu_name"], spec, result["gpu_bytes"])
            self.experience = self.placement.experience = Experience.read(self.store)
        for note in result.get("notes", []):
            self._print_note(note)
        if self.sweep.report(job, self.store.require(job.signature)):
            record = self.sweep.records[job.signature].rung(job.updates, self.sweep.manifest.protocols["rung"])
            assert record is not None
            self._notify(lambda watcher: watcher.reached(self.sweep, job, record))
            self.placement.succeeded(node)
            self._retry_delayed()
        else:
            self._fail(job, Failure(result.get("failure", "it left no record"), result.get("exit_code", 1)))
        if self.sweep.confirming != self.sweep.manifest.confirming:
            self.sweep.save(self.store)  # before they start

    def _fail(self, job: Job, failure: Failure) -> None:
        self.sweep.fail(job, failure)
        self._notify(lambda watcher: watcher.failed(self.sweep, job, failure.reason))

    def _label(self, job: Job) -> str:
        spec = self.sweep.records[job.signature].spec
        return f"{spec.generator.label} {spec.kind}"

    def _print_note(self, note: str) -> None:
        """Print a note once."""
        if note not in self.printed_notes:
            self.printed_notes.add(note)
            print(f"note: {note}", file=sys.stderr)

    def _notify(self, call: Callable[[Watcher], None]) -> None:
        """Call every watcher. Remove one that raises, and print its error: the sweep continues without it."""
        for watcher in list(self.watchers):
            try:
                call(watcher)
            except Exception as error:
                self.watchers.remove(watcher)
                print(f"{type(watcher).__name__} stopped: {type(error).__name__}: {error}", file=sys.stderr)

    def __getstate__(self) -> dict[str, Any]:
        """Return no state. Tune pickles its searcher for `Tuner.restore`, which is not used here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the next job follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Withdrawal(FIFOScheduler):
    """Takes jobs back from Tune that wait for a node that is gone. The searcher then places them again."""

    def __init__(self, searcher: JobSearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        for trial_id in list(self.searcher.stranded):
            tune_controller.stop_trial(tune_controller.get_trial(trial_id))
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        return chosen


class Events(TrialProgressCallback):
    """Passes to the searcher what Tune tells its callbacks alone. Replaces the callback by which Tune prints."""

    def __init__(self, searcher: JobSearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def log_result(self, trial: Trial, result: dict[str, Any], error: bool = False) -> None:
        """Print nothing."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Print nothing."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.searcher.on_step()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.on_start(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        file = Path(trial.pickled_error_file) if trial.pickled_error_file else None
        self.searcher.on_error(trial.trial_id, cloudpickle.loads(file.read_bytes()) if file and file.exists() else None)

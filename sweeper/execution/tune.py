"""Everything that touches Ray: the session, the searcher that hands jobs to Tune, the trainable that runs them.

For Tune a trial is one job: one of our trials, from where its checkpoint stands to its next rung. A trial that waits
at a rung is then nothing that Tune must keep alive, pause, restore or know the state of: what runs next is computed
from the store's records each time a slot is free (`sweep.Sweep.next`).
"""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

# Before Ray is imported: silence, no usage reports, no token in the home directory, no snapshots that nobody restores.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="3600",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    PYTHONWARNINGS="ignore",
)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
import torch
from ray import tune
from ray.tune import Tuner
from ray.tune.search import Searcher

from sweeper.execution import job as jobs
from sweeper.execution.resources import GPU_BYTES, Machine, Slots, share_of
from sweeper.scheduling.sweep import Failure, Job, Sweep
from sweeper.store import Manifest, RungRecord, Store
from trainables import plugins
from trainables.errors import EnvironmentUserError, UserError

WORKER_SECONDS = 900  # how long to wait for the first worker of a cluster whose head runs no trial
RETRIES = 2  # of a job whose process died; an error of the job itself is not tried again


class Watcher(Protocol):
    """Who is told what happens: the terminal, W&B. Called in the driver, so it must be quick."""

    def started(self, sweep: Sweep, job: Job) -> None: ...

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None: ...

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None: ...


@contextlib.contextmanager
def session(address: str | None, slots: int | None) -> Iterator[Machine]:
    """Join the Ray cluster at `address` (or RAY_ADDRESS), or start a local one for the time being."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    begun = time.monotonic()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _reachable(address)
            ray.init(address=address, **quiet)
        else:
            cpus = max(len(os.sched_getaffinity(0)), slots or 1)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EnvironmentUserError(
            f"no Ray cluster at {address or 'local'}: {reason}; start one or leave out --address"
        ) from None
    try:
        seen = ray.cluster_resources()
        while address and not seen.get("CPU") and time.monotonic() - begun < WORKER_SECONDS:
            time.sleep(2)
            seen = ray.cluster_resources()
        bytes_ = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else GPU_BYTES
        yield Machine(seen.get("CPU", 1), seen.get("GPU", 0), elastic=bool(address), gpu_bytes=bytes_)
    finally:
        ray.shutdown()


def _reachable(address: str) -> None:
    """Raise OSError at once where Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def run(
    sweep: Sweep,
    store: Store,
    machine: Machine,
    slots: int | None,
    watchers: list[Watcher],
    actor: "type[TrialActor] | None" = None,
) -> None:
    """Train whatever the sweep still needs. On return the sweep is finished, unless it was interrupted.

    actor: who does the jobs, TrialActor unless given.
    """
    queue = JobSearcher(sweep, store, Slots(machine, slots), watchers)
    with tempfile.TemporaryDirectory(prefix="sweeper-tune-") as folder:
        trainable = tune.with_resources(actor or TrialActor, lambda config: config["share"])
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        Tuner(
            trainable,
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=queue,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=sweep.manifest.name,
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    if queue.error is not None:
        raise queue.error


def at_a_time(sweep: Sweep, store: Store, machine: Machine, limit: int | None) -> int:
    """How many of the sweep's trials the machine runs at once."""
    slots, least = Slots(machine, limit), store.least_shares()
    for number, signature in enumerate(sweep.records):
        if not slots.take(signature, share_of(sweep, signature, machine, least)):
            return max(1, number)
    return len(sweep.records)


class JobSearcher(Searcher):
    """Tune's searcher: suggests the next job whenever its share of the machine is free."""

    def __init__(self, sweep: Sweep, store: Store, slots: Slots, watchers: list[Watcher]) -> None:
        super().__init__()
        self.sweep, self.store, self.slots, self.watchers = sweep, store, slots, watchers
        self.running: dict[str, Job] = {}  # Tune's id → job
        self.least = store.least_shares()
        self.plugins = [(store.keep_plugin(plugin), plugin.id) for plugin in plugins.LOADED.values()]
        self.told: set[str] = set()  # notes of actors that the user has seen
        self.error: Exception | None = None  # what would have been raised into Tune, which would lose the running jobs

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a str
        try:
            return self._suggest(trial_id)
        except Exception as broken:
            self.error = self.error or broken
            return None

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = None if self.error else self.sweep.next()
        if job is None:
            return None if self.running else str(Searcher.FINISHED)
        # Strictly in order: a job that needs a larger share is waited for, so that it does not starve.
        wish = share_of(self.sweep, job.signature, self.slots.machine, self.least)
        if not self.slots.take(trial_id, wish):
            return None
        self.running[trial_id] = job
        self.sweep.start(job)
        self._tell(lambda watcher: watcher.started(self.sweep, job))
        # TrialActor.setup reads this; the manifest is in the store.
        return {
            "signature": job.signature,
            "updates": job.updates,
            "sweep": self.sweep.manifest.name,
            "store": str(self.store.root),
            "share": wish.as_dict(),
            "plugins": self.plugins,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing between rungs: a job has one result."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        job = self.running.pop(trial_id)
        taken = self.slots.give_back(trial_id)
        try:
            if result and "out_of_memory" in result and 0 < taken.gpus < 1:
                self._enlarge(job, taken.gpus)
            else:
                self._conclude(job, result, error)
        except Exception as broken:
            self.error = self.error or broken

    def _enlarge(self, job: Job, gpus: float) -> None:
        """Again, with twice the share of a GPU; from now on for every trial of its shape."""
        shape = self.sweep.records[job.signature].spec.generator.label
        self.least[shape] = max(self.least.get(shape, 0.0), 2 * gpus)
        self.store.save_least_share(shape, self.least[shape])
        self.sweep.retry(job)
        print(f"note: {shape} ran out of memory on {gpus:g} of a GPU; again on {self.least[shape]:g}", file=sys.stderr)

    def _conclude(self, job: Job, result: dict[str, Any] | None, error: bool) -> None:
        for note in (result or {}).get("notes", []):
            if note not in self.told:
                self.told.add(note)
                print(f"note: {note}", file=sys.stderr)
        if self.sweep.reached(job, self.store.require(job.signature)):
            record = self.sweep.records[job.signature].rung(job.updates, self.sweep.manifest.protocols["rung"])
            assert record is not None
            self._tell(lambda watcher: watcher.reached(self.sweep, job, record))
        else:
            failure = Failure("its process died", exit_code=1)
            if result and not error:
                failure = Failure(result.get("failure", "it was interrupted"), result.get("exit_code", 1))
            self.sweep.fail(job, failure)
            self._tell(lambda watcher: watcher.failed(self.sweep, job, failure.reason))

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        """Watchers look on: one that breaks is named and left out, and the sweep goes on."""
        for watcher in list(self.watchers):
            try:
                what(watcher)
            except Exception as error:
                self.watchers.remove(watcher)
                print(f"{type(watcher).__name__} stopped: {type(error).__name__}: {error}", file=sys.stderr)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for `Tuner.restore`, which is not used: nothing to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """No state: what runs next follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """No state."""


class TrialActor(tune.Trainable):
    """Runs one job after the other in one process; what jobs share (data, classifier, bank) is loaded once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.job = Job(config["signature"], config["updates"])
        self.plugins: list[tuple[str, str]] = config["plugins"]
        self.store = Store(Path(config["store"]))
        manifest = self.store.sweep(config["sweep"])
        assert manifest is not None
        self.sweep: Manifest = manifest
        self.share: dict[str, float] = config["share"]

    def step(self) -> dict[str, Any]:
        result: dict[str, Any] = {"done": True}
        try:
            for reference, identity in self.plugins:
                plugins.load(reference, expected=identity)
            self.work()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            reason = "out of memory on a whole GPU; try a smaller batch_size, or --precision bf16"
            result |= {"failure": reason, "out_of_memory": True}
        except UserError as error:
            result |= {"failure": str(error), "exit_code": error.exit_code}
        except Exception as error:  # shown to the user, and kept: the other trials go on
            self.store.save_traceback(self.job.signature, traceback.format_exc())
            result |= {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        return result | {"notes": list(jobs.notes)}

    def work(self) -> None:
        jobs.run(self.job, self.sweep, self.store)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A trial keeps and finds its own checkpoint."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """A trial keeps and finds its own checkpoint."""

"""The interface to Ray: the session, the searcher that suggests jobs to Tune, and the trainable that runs them.

A trial of Tune is one job: it trains one of our trials from its checkpoint to its next rung. Tune therefore never
pauses or restores a trial. Each time a slot is free, the next job is computed from the store's records
(`sweep.Sweep.next`).
"""

import contextlib
import dataclasses
import logging
import os
import secrets
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

# Ray reads these when it is imported: no output, no usage reports, no snapshots.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="3600",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    PYTHONWARNINGS="ignore",
)
# A local session accepts processes with this token alone, and listens on loopback. A cluster has its own settings, and
# a worker, where Ray comes first, inherits them.
if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too, this makes every socket a loopback one

import ray
import torch
from ray import tune
from ray.tune import Tuner
from ray.tune.search import Searcher

from sweeper.execution import job as jobs
from sweeper.execution import memory
from sweeper.execution.experience import Experience, save_measured
from sweeper.execution.resources import Machine, Slots, share_of
from sweeper.records import Manifest, RungRecord
from sweeper.scheduling.sweep import Failure, Job, Sweep
from sweeper.store import TUNE_FOLDER, Store
from trainables import plugins
from trainables.cpus import usable_cpus
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import owner_mark
from trainables.notes import notes

WORKER_SECONDS = 900  # how long to wait for the first worker of a cluster whose head runs no trials
RETRIES = 2  # for a job whose process died; a job that raised an error is not retried


class Watcher(Protocol):
    """Callbacks of the terminal and of W&B. They run in the driver, so they must return quickly."""

    def started(self, sweep: Sweep, job: Job) -> None: ...

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None: ...

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None: ...


@contextlib.contextmanager
def session(slots: int | None) -> Iterator[Machine]:
    """Connect to the Ray cluster at RAY_ADDRESS, else start a local one, for the time of the block.

    Raises EnvironmentUserError if there is no cluster.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    start = time.monotonic()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if not address and "RAY_AUTH_TOKEN" not in os.environ:
        raise EnvironmentUserError("a file of yours imports ray when it is loaded; import it inside its functions")
    try:
        if address:
            _check_reachable(address)
            ray.init(address=address, **quiet)
        else:
            cpus = max(usable_cpus(), slots or 1)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EnvironmentUserError(
            f"no Ray cluster at {address or 'local'}: {reason}; start one, set RAY_AUTH_TOKEN if it has a token, or "
            "leave out --address and RAY_ADDRESS"
        ) from None
    try:
        resources = ray.cluster_resources()
        while address and not resources.get("CPU") and time.monotonic() - start < WORKER_SECONDS:
            time.sleep(2)
            resources = ray.cluster_resources()
        yield _machine(resources, elastic=bool(address))
    finally:
        ray.shutdown()


def _machine(resources: Mapping[str, float], elastic: bool) -> Machine:
    """Return Ray's resources, with the GPU that the driver sees: those of the workers are assumed to be alike."""
    machine = Machine(resources.get("CPU", 1), resources.get("GPU", 0), elastic=elastic)
    if not torch.cuda.is_available():
        return machine
    if not machine.gpus:
        print(
            "note: torch sees a GPU and Ray counts none: all trials use it, and nothing limits their memory; "
            "start Ray with --num-gpus 1, or hide the GPU with CUDA_VISIBLE_DEVICES=''",
            file=sys.stderr,
        )
    gpu = torch.cuda.get_device_properties(0)
    return dataclasses.replace(machine, gpu_name=gpu.name, gpu_bytes=gpu.total_memory)


def _check_reachable(address: str) -> None:
    """Raise OSError within seconds if nothing listens at the address. Ray itself would retry for minutes."""
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
    """Train every job that the sweep still needs. On return the sweep is finished, unless it was interrupted.

    actor: the trainable that runs the jobs, by default TrialActor.
    Raises what a callback of the searcher raised, once the running jobs have ended.
    """
    searcher = JobSearcher(sweep, store, Slots(machine, slots), watchers)
    with tempfile.TemporaryDirectory(prefix=TUNE_FOLDER + owner_mark()) as folder:
        trainable = tune.with_resources(actor or TrialActor, lambda config: config["share"])
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        Tuner(
            trainable,
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
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
    if searcher.error is not None:
        raise searcher.error


def max_concurrent(sweep: Sweep, store: Store, machine: Machine, limit: int | None) -> int:
    """Return how many of the sweep's trials run at once on the machine."""
    slots, experience = Slots(machine, limit), Experience.read(store, machine.gpu_name)
    for number, signature in enumerate(sweep.records):
        if not slots.reserve(signature, share_of(sweep, signature, machine, experience)):
            return max(1, number)
    return len(sweep.records)


class JobSearcher(Searcher):
    """Tune's searcher: suggests the next job once its share of the machine is free."""

    def __init__(self, sweep: Sweep, store: Store, slots: Slots, watchers: list[Watcher]) -> None:
        super().__init__()
        self.sweep, self.store, self.slots, self.watchers = sweep, store, slots, watchers
        self.running: dict[str, Job] = {}  # Tune's id → job
        self.experience = Experience.read(store, slots.machine.gpu_name)
        self.plugins = [(store.save_plugin(plugin), plugin.id) for plugin in plugins.LOADED.values()]
        self.printed_notes: set[str] = set()
        self.error: Exception | None = None  # kept here, because an exception inside Tune would end the running jobs

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a str
        try:
            return self._suggest(trial_id)
        except Exception as raised:
            self.error = self.error or raised
            return None

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.store.check_claim()
        job = None if self.error else self.sweep.next()
        if job is None:
            return None if self.running else str(Searcher.FINISHED)
        # No other job overtakes one whose share is not free, so that jobs with large shares do not starve.
        share = share_of(self.sweep, job.signature, self.slots.machine, self.experience)
        if not self.slots.reserve(trial_id, share):
            return None
        self.running[trial_id] = job
        self.sweep.start(job)
        self._notify(lambda watcher: watcher.started(self.sweep, job))
        # The configuration that TrialActor.setup reads.
        return {
            "signature": job.signature,
            "updates": job.updates,
            "sweep": self.sweep.manifest.name,
            "store": str(self.store.root),
            "share": share.as_dict(),
            "plugins": self.plugins,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: a job has a single result, which on_trial_complete reads."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        job = self.running.pop(trial_id)
        share = self.slots.release(trial_id)
        try:
            if result and "out_of_memory" in result and 0 < share.gpus < 1:
                self._retry_on_larger_share(job, share.gpus)
            else:
                self._report(job, result, error)
        except Exception as raised:
            self.error = self.error or raised

    def _retry_on_larger_share(self, job: Job, gpus: float) -> None:
        """Retry a job on twice its share of a GPU. From now on every trial of its footprint gets that share."""
        spec, enlarged = self.sweep.records[job.signature].spec, 2 * gpus
        self.experience.save_min_share(self.store, spec, enlarged)
        self.sweep.retry(job)
        label = f"{spec.generator.label} {spec.kind}"
        print(f"note: {label} ran out of memory on {gpus:g} of a GPU; retrying on {enlarged:g}", file=sys.stderr)

    def _report(self, job: Job, result: dict[str, Any] | None, error: bool) -> None:
        if result and "gpu_name" in result:
            spec = self.sweep.records[job.signature].spec
            save_measured(self.store, result["gpu_name"], spec, result["gpu_bytes"])
            self.experience = Experience.read(self.store, self.slots.machine.gpu_name)
        for note in (result or {}).get("notes", []):
            if note not in self.printed_notes:
                self.printed_notes.add(note)
                print(f"note: {note}", file=sys.stderr)
        if self.sweep.report(job, self.store.require(job.signature)):
            record = self.sweep.records[job.signature].rung(job.updates, self.sweep.manifest.protocols["rung"])
            assert record is not None
            self._notify(lambda watcher: watcher.reached(self.sweep, job, record))
        else:
            failure = Failure("its process died", exit_code=1)
            if result and not error:
                failure = Failure(result.get("failure", "it was interrupted"), result.get("exit_code", 1))
            self.sweep.fail(job, failure)
            self._notify(lambda watcher: watcher.failed(self.sweep, job, failure.reason))
        if self.sweep.confirming != self.sweep.manifest.confirming:
            self.sweep.save(self.store)  # before they start

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


class TrialActor(tune.Trainable):
    """Tune's trainable: runs one job after another in one process, so that data, classifier and bank load once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.job = Job(config["signature"], config["updates"])
        self.plugins: list[tuple[str, str]] = config["plugins"]
        self.store = Store(Path(config["store"]))
        self.sweep: Manifest = self.store.require_sweep(config["sweep"])
        self.share: dict[str, float] = config["share"]

    def step(self) -> dict[str, Any]:
        memory.reset_peak()
        result = self._run_job()
        # Released out here, because a caught exception keeps the tensors of its frames alive.
        return {"done": True, **result, **memory.release(), "notes": list(notes)}

    def _run_job(self) -> dict[str, Any]:
        """Run the job. Return what went wrong, if anything."""
        try:
            for reference, identity in self.plugins:
                plugins.load(reference, expected=identity)
            self.work()
        except torch.OutOfMemoryError:
            reason = "out of memory on a whole GPU; try a smaller batch_size, or --precision bf16"
            return {"failure": reason, "out_of_memory": True}
        except UserError as error:
            return {"failure": str(error), "exit_code": error.exit_code}
        except Exception as error:  # fails this trial alone; the traceback is kept in the store
            self.store.save_traceback(self.job.signature, traceback.format_exc())
            return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        return {}

    def work(self) -> None:
        jobs.run(self.job, self.sweep, self.store)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: trainables.training reads and writes the checkpoint."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: trainables.training reads and writes the checkpoint."""

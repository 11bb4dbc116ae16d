"""The interface to Ray: the session, and the run of a sweep by Tune. Imported before all else that imports Ray.

A trial of Tune is one job: it trains one of our trials from its checkpoint to its next rung. Tune therefore never
pauses or restores a trial. Each time a slot is free, the next job is computed from the store's records
(`sweep.Sweep.next`).
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from sweeper.execution.ray_environment import IS_CLOSED  # isort: split

import ray
import torch
from ray import tune
from ray.tune import Tuner

from sweeper.execution import interruption, pulse
from sweeper.execution.actor import TrialActor, resources_of
from sweeper.execution.cluster import RayCluster
from sweeper.execution.experience import Experience
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine, Share, share_of
from sweeper.execution.searcher import Events, JobSearcher, Stopped, Withdrawal
from sweeper.execution.slots import Slots
from sweeper.execution.watching import Watcher
from sweeper.records import CHECKPOINT_SECONDS
from sweeper.scheduling.sweep import Sweep
from sweeper.store import TUNE_FOLDER, Store
from trainables.cpus import usable_cpus
from trainables.errors import EnvironmentUserError
from trainables.files import owner_mark

ANSWER_SECONDS = 10  # how long a cluster may take to answer
# Tune hands these to every actor in clear, and Ray logs them. Local workers inherit them; other nodes have their own.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


@contextlib.contextmanager
def session(slots: int | None, improve: Callable[[Machine], Machine] = lambda machine: machine) -> Iterator[Cluster]:
    """Connect to the Ray cluster at RAY_ADDRESS, else start a local one, for the time of the block.

    slots: the most concurrent trials. improve: adds the throughput of its GPU to a machine.
    Raises EnvironmentUserError if there is no cluster, or if Ray does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if not address and not IS_CLOSED:
        raise EnvironmentUserError("a file of yours imports ray when it is loaded; import it inside its functions")
    folder, others = tempfile.TemporaryDirectory(prefix=TUNE_FOLDER + owner_mark()), set(interruption.descendants())
    try:
        with _sheltered(folder.name):
            if address:
                _check_answers(address)
                ray.init(address=address, **quiet)
            else:
                cpus = max(usable_cpus(), slots or 1)
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:  # on a busy machine Ray gives up its own start by an error of no other type
        _shut_down(set(interruption.descendants()) - others)
        folder.cleanup()
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if not address:
            raise EnvironmentUserError(f"Ray does not start here: {reason}; run the same command again") from None
        raise EnvironmentUserError(
            f"no Ray cluster at {address}: {reason}; start one, set RAY_AUTH_TOKEN if it has a token, or leave out "
            "--address and RAY_ADDRESS"
        ) from None
    joined: RayCluster | None = None
    try:
        if address:
            joined = RayCluster(slots, improve)
        yield joined or Cluster.of(improve(_this_machine()))
    finally:
        if joined is not None:
            joined.release()
        with contextlib.suppress(Exception):  # the cluster may be what has failed
            pulse.forget_all()
        of_others = {process for other in others for process in interruption.descendants(other)}
        _shut_down(set(interruption.descendants()) - others - of_others)  # the uploader has its own processes
        folder.cleanup()


def _shut_down(processes: set[int]) -> None:
    """Disconnect from Ray, and kill the processes that it started for this command.

    Ray itself would send each in turn a SIGTERM, which they do not get, wait for a second, and leave idle workers.
    """
    node: Any = ray._private.worker._global_node
    if node is not None and processes:
        node.kill_all_processes = lambda *args, **options: interruption.kill(processes)
    ray.shutdown()
    interruption.kill(processes)


@contextlib.contextmanager
def _sheltered(folder: str) -> Iterator[None]:
    """Start Ray's processes so that neither the command's signals nor the files of its folder reach them.

    They inherit the mask: SIGTERM to the whole group leaves the jobs time to save their checkpoints. Workers look for
    modules in the folder that is current now, which is to be an empty one.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with contextlib.chdir(folder):
            yield
    except SystemExit:  # Ray's own reaction to SIGTERM while it starts
        raise KeyboardInterrupt from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        interruption.install()


def _this_machine() -> Machine:
    """Return what Ray counts on this machine, with the GPU that torch sees."""
    resources = ray.cluster_resources()
    machine = Machine(resources.get("CPU", 1), resources.get("GPU", 0))
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


def _check_answers(address: str) -> None:
    """Raise OSError within seconds if no server of gRPC is at the address. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of HTTP/2; the server sends one, too
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        try:
            answer = connection.recv(9)
        except TimeoutError:
            raise OSError(f"it has not answered for {ANSWER_SECONDS} s") from None
    if answer[3:4] != settings[3:4]:
        raise OSError("something else answers there")


def run(
    sweep: Sweep,
    store: Store,
    cluster: Cluster,
    slots: int | None,
    watchers: list[Watcher],
    actor: type[TrialActor] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Train every job that the sweep still needs. On return the sweep is finished.

    actor: the trainable that runs the jobs, by default TrialActor. checkpoint_seconds: as for JobSearcher.
    Raises what a callback of the searcher raised and KeyboardInterrupt after a signal, once the running jobs have saved
    their checkpoints.
    """
    with (
        tempfile.TemporaryDirectory(prefix=TUNE_FOLDER + owner_mark()) as folder,
        interruption.deferred() as interrupted,
        _without_keys(),
    ):
        searcher = JobSearcher(sweep, store, Slots(cluster, slots), watchers, interrupted, checkpoint_seconds)
        trainable = tune.with_resources(actor or TrialActor, cast(Any, resources_of))
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tuner = Tuner(
            trainable,
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=Withdrawal(searcher),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=sweep.manifest.name,
                storage_path=folder,
                verbose=0,
                callbacks=[Events(searcher)],
                failure_config=tune.FailureConfig(max_failures=0),  # the searcher tries again
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with contextlib.suppress(Stopped):
            tuner.fit()
    if searcher.error is not None:
        raise searcher.error
    if interrupted():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _without_keys() -> Iterator[None]:
    """Remove the keys that Tune would hand on from the environment inside the block."""
    removed = {name: os.environ.pop(name) for name in _KEYS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def max_concurrent(sweep: Sweep, store: Store, cluster: Cluster, limit: int | None) -> int:
    """Return how many of the sweep's trials run at once on the nodes that are here."""
    slots, experience = Slots(cluster, limit), Experience.read(store)

    def needs(signature: str, machine: Machine) -> Share:
        return share_of(sweep, signature, machine, experience)

    for number, signature in enumerate(sweep.records):
        if not slots.place(signature, partial(needs, signature)):
            return max(1, number)
    return len(sweep.records)

"""How the command and a job's process hear of each other while the job trains: by the key-value store of Ray.

Keys begin with the command's id in Ray. So they reach every node, and end with the session.
"""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

import ray
from ray.exceptions import RaySystemError, RpcError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_put,
)

SECONDS = 0.5  # between two looks of a job's process
_NAMESPACE = "sweeper"


class Pulse:
    """In a job's process. The training calls it before each update, and a thread does the talking."""

    def __init__(self) -> None:
        self.signature = ""
        self.updates = 0
        self.stopping = False
        if _internal_kv_initialized():
            self._leave = _key(f"leave/{ray.get_runtime_context().get_node_id()}")
            threading.Thread(target=self._beat, daemon=True).start()

    def begin(self, signature: str) -> None:
        """Report on another job from now on."""
        self.updates, self.signature = 0, signature  # in this order: the thread reads them

    def __call__(self, updates: int) -> bool:
        """Note the updates that are done. Return whether the training is to stop."""
        self.updates = updates
        return self.stopping

    def _beat(self) -> None:
        sent = None
        while True:
            with suppress(RaySystemError, RpcError):  # the head may be away for a moment
                keys = _key("stop"), self._leave
                self.stopping = any(_internal_kv_get(key, namespace=_NAMESPACE) is not None for key in keys)
                if self.updates and (beat := (self.signature, self.updates)) != sent:
                    _internal_kv_put(_key(self.signature), str(self.updates), namespace=_NAMESPACE)
                    sent = beat
            time.sleep(SECONDS)


def stop_jobs() -> None:
    """Make the running jobs of this command save their checkpoints and stop, and every later one."""
    _internal_kv_put(_key("stop"), "1", namespace=_NAMESPACE)


def leave(node: str) -> None:
    """Make the jobs on a node save their checkpoints and stop: the node is to be shut down."""
    _internal_kv_put(_key(f"leave/{node}"), "1", namespace=_NAMESPACE)


def say_prepared(progress: str) -> None:
    """Tell the command how far the preparation of a data set is."""
    _internal_kv_put(_key("prepared"), progress, namespace=_NAMESPACE)


def prepared() -> str | None:
    """Return what the preparation has told last."""
    told = _internal_kv_get(_key("prepared"), namespace=_NAMESPACE)
    return told.decode() if told is not None else None


def updates_of(signatures: Iterable[str]) -> dict[str, int]:
    """Return signature → updates that are done, of the trials that have begun to train."""
    beats = {signature: _internal_kv_get(_key(signature), namespace=_NAMESPACE) for signature in signatures}
    return {signature: int(beat) for signature, beat in beats.items() if beat is not None}


def forget_all() -> None:
    """Delete what this command and its jobs have written."""
    _internal_kv_del(_key(""), del_by_prefix=True, namespace=_NAMESPACE)


def _key(name: str) -> str:
    return f"{ray.get_runtime_context().get_job_id()}/{name}"

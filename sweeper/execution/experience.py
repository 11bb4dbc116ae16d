"""The memory that earlier trials needed on a GPU. This module alone reads and writes two files of the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from sweeper.store import Store
from trainables.arithmetic import footprint
from trainables.files import write_json
from trainables.reading import Number, read_record
from trainables.spec import TrialSpec

_SHARES = "shares.json"  # footprint@NAME OF A GPU → share of it, of trials that ran out of memory
_MEMORY = "memory.json"  # name of a GPU → footprint → bytes, the largest that were measured
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass
class Experience:
    """What is known of memory by footprint (trainables.arithmetic)."""

    min_shares: dict[str, float] = field(default_factory=dict)  # of trials that ran out of memory
    by_gpu: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # name of a GPU → footprint → bytes

    @classmethod
    def read(cls, store: Store) -> "Experience":
        return cls(_shares(store), _memory(store))

    def measured(self, key: str, gpu_name: str) -> float | None:
        """Return the bytes of a footprint on a GPU. Without a name of the GPU the most on any GPU counts."""
        if gpu_name:
            return self.by_gpu.get(gpu_name, {}).get(key)
        return max((sizes[key] for sizes in self.by_gpu.values() if key in sizes), default=None)

    def min_share(self, spec: TrialSpec, gpu_name: str) -> float:
        """Return the share that the trial needs at least of such a GPU. Older stores do not name the GPU."""
        keys = f"{footprint(spec)}@{gpu_name}", footprint(spec), spec.generator.label
        return max(self.min_shares.get(key, 0.0) for key in keys)

    def save_min_share(self, store: Store, spec: TrialSpec, gpu_name: str, share: float) -> None:
        """Store the share that trials of this footprint need of such a GPU: on a smaller one they ran out of memory."""
        key = f"{footprint(spec)}@{gpu_name}"
        self.min_shares[key] = max(self.min_shares.get(key, 0.0), share)
        write_json(store.root / _SHARES, _shares(store) | {key: self.min_shares[key]})


def save_measured(store: Store, gpu_name: str, spec: TrialSpec, size: float) -> None:
    """Store the bytes that a trial took on a GPU, if they are the most of its footprint."""
    gpus, key = _memory(store), footprint(spec)
    if size > gpus.get(gpu_name, {}).get(key, 0.0):
        gpus.setdefault(gpu_name, {})[key] = size
        write_json(store.root / _MEMORY, gpus)


def _shares(store: Store) -> dict[str, Share]:
    return read_record(store.root / _SHARES, dict[str, Share]) or {}


def _memory(store: Store) -> dict[str, dict[str, Number]]:
    return read_record(store.root / _MEMORY, dict[str, dict[str, Number]]) or {}

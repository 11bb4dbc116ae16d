"""The CPUs and the share of a GPU that a trial reserves, and how many trials fit on a machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.scheduling.sweep import Sweep
from trainables.arithmetic import device_bytes
from trainables.spec import TrialSpec

GPU_BYTES = 16e9  # memory of a GPU where it cannot be queried: that of the smallest common card
_SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Machine:
    """The resources that Ray reports. elastic: a cluster that may grow while trials wait."""

    cpus: float
    gpus: float
    elastic: bool = False
    gpu_bytes: float = GPU_BYTES


@dataclass(frozen=True)
class Share:
    """The resources that one trial reserves. gpus: a fraction of one GPU, or 0."""

    cpus: float
    gpus: float

    def as_dict(self) -> dict[str, float]:
        return {"cpu": self.cpus, "gpu": self.gpus} if self.gpus else {"cpu": self.cpus}


def share(spec: TrialSpec, teacher: TrialSpec | None, machine: Machine, data: int, min_gpus: float = 0.0) -> Share:
    """Return a trial's CPUs (its threads) and, on a machine with GPUs, the smallest share whose memory it fits in.

    data: bytes of the real images. min_gpus: the share that trials of this shape need at least (Store.min_shares).
    """
    if not machine.gpus:
        return Share(cpus=min(spec.threads, machine.cpus), gpus=0)
    needed = device_bytes(spec, teacher, data, machine.gpu_bytes)
    fitting = [s for s in _SHARES if s * machine.gpu_bytes >= needed and s >= min_gpus]
    gpus = fitting[0] if fitting else 1.0
    return Share(cpus=min(1.0, machine.cpus / machine.gpus * gpus), gpus=gpus)


def share_of(sweep: Sweep, signature: str, machine: Machine, min_shares: Mapping[str, float]) -> Share:
    """Return the share of a sweep's trial. min_shares: as Store.min_shares."""
    spec = sweep.records[signature].spec
    return share(spec, sweep.teacher, machine, sweep.manifest.real_bytes, min_shares.get(spec.generator.label, 0.0))


class Slots:
    """The shares that running trials have reserved on a machine, and at most `limit` trials at once."""

    def __init__(self, machine: Machine, limit: int | None) -> None:
        self.machine, self.limit = machine, limit
        self._shares: dict[str, Share] = {}
        self._used = Share(0, 0)  # their sum, kept because every suggestion reads it

    def __len__(self) -> int:
        return len(self._shares)

    def reserve(self, trial: str, share: Share) -> bool:
        """Reserve a share for a trial. Return False if it does not fit."""
        if self.limit is not None and len(self._shares) >= self.limit:
            return False
        # An autoscaler starts machines only for trials that wait, so up to the limit every share fits.
        grows = self.machine.elastic and self.limit is not None
        used = Share(self._used.cpus + share.cpus, self._used.gpus + share.gpus)
        if not grows and (used.cpus > self.machine.cpus + 1e-6 or used.gpus > self.machine.gpus + 1e-6):
            return False
        self._shares[trial], self._used = share, used
        return True

    def release(self, trial: str) -> Share:
        """Release the share of a trial, and return it."""
        share = self._shares.pop(trial)
        self._used = Share(self._used.cpus - share.cpus, self._used.gpus - share.gpus)
        return share

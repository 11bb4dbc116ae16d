"""A trial's CPUs and its share of a GPU; how many trials run at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.scheduling.sweep import Sweep
from trainables.arithmetic import device_bytes
from trainables.spec import TrialSpec

GPU_BYTES = 16e9  # the smallest card that a share is computed for
_SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Machine:
    """What Ray sees. elastic: a cluster that may grow when trials wait."""

    cpus: float
    gpus: float
    elastic: bool = False
    gpu_bytes: float = GPU_BYTES


@dataclass(frozen=True)
class Share:
    """What one trial takes."""

    cpus: float
    gpus: float

    def as_dict(self) -> dict[str, float]:
        return {"cpu": self.cpus, "gpu": self.gpus} if self.gpus else {"cpu": self.cpus}


def share(spec: TrialSpec, teacher: TrialSpec | None, machine: Machine, data: int, least: float = 0.0) -> Share:
    """One trial's CPUs (its threads) and, where there are GPUs, the smallest share that its memory fits in.

    data: bytes of the real images. least: the share of a GPU that trials of its shape are known to need.
    """
    if not machine.gpus:
        return Share(cpus=min(spec.threads, machine.cpus), gpus=0)
    needed = device_bytes(spec, teacher, data, machine.gpu_bytes)
    fitting = [s for s in _SHARES if s * machine.gpu_bytes >= needed and s >= least]
    gpus = fitting[0] if fitting else 1.0
    return Share(cpus=min(1.0, machine.cpus / machine.gpus * gpus), gpus=gpus)


def share_of(sweep: Sweep, signature: str, machine: Machine, least: Mapping[str, float]) -> Share:
    """The share of a member of a sweep. least: as Store.least_shares."""
    spec = sweep.records[signature].spec
    return share(spec, sweep.teacher, machine, sweep.manifest.real_bytes, least.get(spec.generator.label, 0.0))


class Slots:
    """What is free for trials: the machine's resources, and at most `limit` trials at a time."""

    def __init__(self, machine: Machine, limit: int | None) -> None:
        self.machine, self.limit = machine, limit
        self._taken: dict[str, Share] = {}
        self._used = Share(0, 0)  # their sum, kept: it is asked for at every suggestion

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, trial: str, wish: Share) -> bool:
        """Whether the share was free; it is then taken."""
        if self.limit is not None and len(self._taken) >= self.limit:
            return False
        # Trials that wait are what makes an autoscaler start machines, up to the number that was asked for.
        grows = self.machine.elastic and self.limit is not None
        used = Share(self._used.cpus + wish.cpus, self._used.gpus + wish.gpus)
        if not grows and (used.cpus > self.machine.cpus + 1e-6 or used.gpus > self.machine.gpus + 1e-6):
            return False
        self._taken[trial], self._used = wish, used
        return True

    def give_back(self, trial: str) -> Share:
        """What it had taken, which is free again."""
        share = self._taken.pop(trial)
        self._used = Share(self._used.cpus - share.cpus, self._used.gpus - share.gpus)
        return share

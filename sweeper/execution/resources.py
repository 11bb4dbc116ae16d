"""The CPUs and the share of a GPU that a trial reserves, and how many trials fit on a machine."""

from dataclasses import dataclass

from sweeper.execution.experience import Experience
from sweeper.scheduling.sweep import Sweep
from trainables.arithmetic import device_bytes, footprint, update_launches, update_macs
from trainables.spec import TrialSpec

# The smallest common card, a T4, stands for a GPU that the driver does not see.
GPU_BYTES = 16e9
MACS_PER_SECOND = 1.2e12
SECONDS_PER_LAUNCH = 25e-6
_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class Machine:
    """The resources that Ray reports. elastic: a cluster that may grow while trials wait."""

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()  # CPUs and GPUs of each node; empty for one node with all of them
    elastic: bool = False
    gpu_name: str = ""  # empty where the driver sees no GPU
    gpu_bytes: float = GPU_BYTES
    macs_per_second: float = MACS_PER_SECOND  # of a GPU, in training
    seconds_per_launch: float = SECONDS_PER_LAUNCH  # of a kernel on a GPU, by the host

    def text(self) -> str:
        """Return the nodes in words, for messages."""
        sizes = sorted(set(self.nodes or ((self.cpus, self.gpus),)), reverse=True)
        return "the nodes have " + " or ".join(_amounts(*size) for size in sizes[:3])


@dataclass(frozen=True)
class Share:
    """The resources that one trial reserves. gpus: a fraction of one GPU, or 0."""

    cpus: float
    gpus: float

    def as_dict(self) -> dict[str, float]:
        return {"cpu": self.cpus, "gpu": self.gpus} if self.gpus else {"cpu": self.cpus}

    def text(self) -> str:
        """Return the share in words, for messages."""
        return _amounts(self.cpus, self.gpus)


def _amounts(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"


def needed_bytes(
    spec: TrialSpec, teacher: TrialSpec | None, machine: Machine, data: int, experience: Experience
) -> float:
    """Return the bytes that a trial takes on a GPU: measured, else estimated. data: bytes of the real images."""
    measured = experience.measured.get(footprint(spec))
    return measured if measured is not None else device_bytes(spec, teacher, data, machine.gpu_bytes)


def share(
    spec: TrialSpec, teacher: TrialSpec | None, machine: Machine, data: int, experience: Experience | None = None
) -> Share:
    """Return a trial's CPUs (its threads) and, on a machine with GPUs, the smallest sufficient share of one.

    A share suffices if the trial's memory fits in it, and if it covers the part of the time that the trial alone keeps
    the GPU busy. That part is small for narrow networks, whose updates mostly launch kernels, and 1 for wide ones.
    data: bytes of the real images.
    """
    if not machine.gpus:
        return Share(cpus=min(spec.threads, machine.cpus), gpus=0)
    experience = experience or Experience()
    memory = needed_bytes(spec, teacher, machine, data, experience) / machine.gpu_bytes
    arithmetic = update_macs(spec, teacher) / machine.macs_per_second
    busy = arithmetic / (update_launches(spec) * machine.seconds_per_launch)
    needed = max(memory, min(1.0, busy), experience.min_share(spec))
    gpus = next((one for one in _SHARES if one >= needed), 1.0)
    return Share(cpus=min(1.0, machine.cpus / machine.gpus * gpus), gpus=gpus)


def share_of(sweep: Sweep, signature: str, machine: Machine, experience: Experience) -> Share:
    """Return the share of a sweep's trial."""
    spec = sweep.records[signature].spec
    return share(spec, sweep.teacher, machine, sweep.manifest.real_bytes, experience)


class Slots:
    """The shares that running trials have reserved on a machine, and at most `limit` trials at once."""

    def __init__(self, machine: Machine, limit: int | None) -> None:
        self.machine, self.limit = machine, limit
        self._shares: dict[str, Share] = {}
        self._used = Share(0, 0)  # their sum, kept because every suggestion reads it

    def __len__(self) -> int:
        return len(self._shares)

    @property
    def _grows(self) -> bool:
        """Return whether machines may come: an autoscaler starts them only for trials that wait, up to the limit."""
        return self.machine.elastic and self.limit is not None

    def fits(self, share: Share) -> bool:
        """Return whether a node can hold the share when nothing else runs there."""
        nodes = self.machine.nodes or ((self.machine.cpus, self.machine.gpus),)
        return self._grows or any(share.cpus <= cpus + 1e-6 and share.gpus <= gpus + 1e-6 for cpus, gpus in nodes)

    def reserve(self, trial: str, share: Share) -> bool:
        """Reserve a share for a trial. Return False if it does not fit."""
        if self.limit is not None and len(self._shares) >= self.limit:
            return False
        used = Share(self._used.cpus + share.cpus, self._used.gpus + share.gpus)
        if not self._grows and (used.cpus > self.machine.cpus + 1e-6 or used.gpus > self.machine.gpus + 1e-6):
            return False
        self._shares[trial], self._used = share, used
        return True

    def release(self, trial: str) -> Share:
        """Release the share of a trial, and return it."""
        share = self._shares.pop(trial)
        self._used = Share(self._used.cpus - share.cpus, self._used.gpus - share.gpus)
        return share

"""The CPUs and the share of a GPU that a trial reserves on a machine."""

from dataclasses import dataclass

from sweeper.execution.experience import Experience
from sweeper.scheduling.sweep import Sweep
from trainables.arithmetic import device_bytes, footprint, update_launches, update_macs
from trainables.spec import TrialSpec

# The smallest common card, a T4, stands for a GPU that the driver does not see.
GPU_BYTES = 16e9
MACS_PER_SECOND = 1.2e12
SECONDS_PER_LAUNCH = 25e-6
_SLOWER = 0.4  # exponent of the time of an update in the number of trials that share a GPU
_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class Machine:
    """The resources of a node, as Ray reports them, or of several nodes together."""

    cpus: float
    gpus: float
    gpu_name: str = ""  # empty where torch sees no GPU
    gpu_bytes: float = GPU_BYTES
    macs_per_second: float = MACS_PER_SECOND  # of a GPU, in training
    seconds_per_launch: float = SECONDS_PER_LAUNCH  # of a small kernel on a GPU

    def text(self) -> str:
        """Return the machine in words, for messages."""
        card = f" of {self.gpu_bytes / 1e9:.0f} GB" if self.gpus and self.gpu_name else ""
        return _amounts(self.cpus, self.gpus) + card


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


NOTHING = Share(0, 0)


def _amounts(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"


def slowdown(gpus: float) -> float:
    """Return how many times as long an update of a narrow trial takes beside others of its share of a GPU, with MPS.

    On an H100, d = 2: 1.4 (mse) and 1.7 (joint) times with 4 at once, 2.7 and 3.3 times with 16. The power is 1.7 and
    3.0. Without MPS it is their number.
    """
    return float((1 / gpus) ** _SLOWER)


def needed_bytes(
    spec: TrialSpec, teacher: TrialSpec | None, machine: Machine, data: int, experience: Experience
) -> float:
    """Return the bytes that a trial takes on a GPU: measured, else estimated. data: bytes of the real images."""
    measured = experience.measured(footprint(spec), machine.gpu_name)
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
    needed = max(memory, _busy(spec, teacher, machine), experience.min_share(spec, machine.gpu_name))
    gpus = next((one for one in _SHARES if one >= needed), 1.0)
    return Share(cpus=min(1.0, machine.cpus / machine.gpus * gpus), gpus=gpus)


def _busy(spec: TrialSpec, teacher: TrialSpec | None, machine: Machine) -> float:
    """Return the part of an update's time in which its arithmetic, in exact float32, keeps a GPU busy."""
    arithmetic = update_macs(spec, teacher) / machine.macs_per_second
    return min(1.0, arithmetic / (update_launches(spec) * machine.seconds_per_launch))


def is_slowed_by_precision(spec: TrialSpec, teacher: TrialSpec | None, machine: Machine) -> bool:
    """Return whether a trial in exact float32 is limited by a GPU's arithmetic, which TF32 and bf16 make faster."""
    return bool(machine.gpus) and spec.precision == "no" and _busy(spec, teacher, machine) == 1.0


def share_of(sweep: Sweep, signature: str, machine: Machine, experience: Experience) -> Share:
    """Return the share of a sweep's trial."""
    spec = sweep.records[signature].spec
    return share(spec, sweep.teacher, machine, sweep.manifest.real_bytes, experience)


def fits_card(sweep: Sweep, signature: str, machine: Machine, experience: Experience) -> bool:
    """Return whether a sweep's trial fits in the memory of a machine's GPUs. True without a GPU."""
    spec = sweep.records[signature].spec
    needed = needed_bytes(spec, sweep.teacher, machine, sweep.manifest.real_bytes, experience)
    return not machine.gpus or needed <= machine.gpu_bytes

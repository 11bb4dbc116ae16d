"""d, image size, batch → CPUs and the share of a GPU; and how many trials run at a time."""

from dataclasses import dataclass

from trainables.sizes import generator_parameters, resident_bytes
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


def share(spec: TrialSpec, machine: Machine, data: int, least: float = 0.0) -> Share:
    """One trial's CPUs (its threads) and, where there are GPUs, the smallest share that its memory fits in.

    data: bytes of the real images. least: the share of a GPU that trials of its d are known to need.
    """
    if not machine.gpus:
        return Share(cpus=min(spec.threads, machine.cpus), gpus=0)
    fitting = [s for s in _SHARES if s * machine.gpu_bytes >= memory(spec, data, machine.gpu_bytes) and s >= least]
    gpus = fitting[0] if fitting else 1.0
    return Share(cpus=min(1.0, machine.cpus / machine.gpus * gpus), gpus=gpus)


def memory(spec: TrialSpec, data: int, device: float) -> float:
    """Bytes that a trial takes on a device of so many; data: of the real images.

    Estimated, and not yet measured on a card: weights, gradients and Adam's two moments of both networks, activations
    of a batch through both, the real images where they live on the card, and 1 GB of CUDA's own.
    """
    widths = [spec.d, spec.d_discriminator or 0]
    parameters = sum(generator_parameters(d, spec.image_size, spec.channels) for d in widths if d)
    activations = sum(10 * spec.batch_size * d * spec.image_size**2 for d in widths)
    real = resident_bytes(data, device) if spec.rule.needs_discriminator else 0
    return 1e9 + 4 * (4 * parameters + 3 * activations) + real


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

"""Updates as CUDA graphs: the host launches an update once, where the plain loop launches each of its kernels.

The plain loop in trainables.training is the reference: the same functions in the same order, and so the same weights.
What differs is where numbers are that change from update to update. A graph repeats its kernels with the same addresses
and the same constants, so that the batch's row, the count of updates and the weight of the average are on the GPU.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from trainables.batches import BankBatches, RealBatches
from trainables.descent import Descent
from trainables.objectives import DISTILLATION, Part
from trainables.spec import TrialSpec
from trainables.step import CriticStep, Extras, Step

WARM_UP = 3  # updates that run before a capture: they make the optimiser's state, and the libraries' workspaces


def has_graphs(device: torch.device) -> bool:
    """Return whether the device can capture."""
    return device.type == "cuda"


def is_capturable(spec: TrialSpec, device: torch.device, real: RealBatches, latent: BankBatches) -> bool:
    """Return whether a trial trains by graphs.

    A graph can neither skip the step of an fp16 overflow nor copy a batch from the host. torch.compile changes what is
    captured, and a plug-in's loss may read values on the host. A loss's `update` would be a constant in the graph.
    """
    on_device = latent.window is not None and (real.window is not None or Part.REAL not in spec.loads)
    plain = spec.precision != "fp16" and not spec.compile and spec.plugin is None
    return has_graphs(device) and on_device and plain and "update" not in spec.rule.arguments


class Sums(Protocol):
    """Sums of losses, as the training loop has them."""

    generator: Tensor
    discriminator: Tensor
    discriminator_updates: int


class GraphedUpdates:
    """The updates of one trial. Each phase (warm-up, then the loss) has its own graph; all updates are real ones."""

    def __init__(
        self,
        spec: TrialSpec,
        networks: tuple[nn.Module, nn.Module | None],
        descents: tuple[Descent, Descent | None],
        batches: tuple[RealBatches, BankBatches],
        sums: Sums,
        average: tuple[list[Tensor], list[Tensor]],
        extras: Extras,
        device: torch.device,
    ) -> None:
        """Make it before the optimisers have a state: they keep their counts on the GPU from then on.

        networks, descents: of the generator and the discriminator. average: the averaged tensors and the generator's,
        or two empty lists.
        """
        self.spec, self.sums, self.extras = spec, sums, extras
        (self.generator, self.discriminator), (self.descend, self.descend_d) = networks, descents
        (self.real, self.latent), (self.averages, self.currents) = batches, average
        self.row = torch.zeros(1, dtype=torch.int64, device=device)  # of the batch, in the windows
        self.done = torch.zeros((), dtype=torch.float64, device=device)  # updates
        self.expected = -1, -1  # row and updates on the device, as the host knows them
        self.past_warmup: bool | None = None  # the phase of the graph
        self.warm = 0
        self.replay: Callable[[], None] | None = None
        if device.type == "cuda":
            for descent in descents:
                for group in descent.optimizer.param_groups if descent is not None else ():
                    group["capturable"] = True

    def __call__(self, update: int) -> None:
        """Do the update after `update` of them."""
        past_warmup = update >= self.spec.warmup
        if past_warmup != self.past_warmup:
            self.past_warmup, self.warm, self.replay = past_warmup, 0, None
        adversarial = past_warmup and self.discriminator is not None
        batches = self.spec.n_critic if adversarial else 1
        self._place(update, update * batches)
        if self.replay is None and self.warm < WARM_UP:
            _aside(self._update)
            self.warm += 1
        else:
            self.replay = self.replay or _captured(self._update)
            self.replay()
        self.expected = self.expected[0] + batches, update + 1
        if adversarial:
            self.sums.discriminator_updates += batches

    def _place(self, update: int, batch: int) -> None:
        """Load the batch's windows, and set the device's counters where they are not what the last update left."""
        assert self.latent.window is not None
        row = self.latent.window.turn(batch)
        if self.real.window is not None:
            self.real.window.turn(batch)
        if (row, update) != self.expected:
            self.row.fill_(row)
            self.done.fill_(update)
        self.expected = row, update

    def _update(self) -> None:
        """One update, as in the plain loop; nothing here may depend on a value that the host knows."""
        spec, adversary = self.spec, self.discriminator if self.past_warmup else None
        batches = spec.n_critic if adversary is not None else 1
        for number in range(batches):
            z, target = self.latent.at(self.row)
            with torch.set_grad_enabled(number + 1 == batches):
                fake = self.generator(z)
            if adversary is not None:
                assert self.descend_d is not None
                shown = self.real.at(self.row) if Part.REAL in spec.loads else target
                assert shown is not None
                loss_d = spec.game(CriticStep(spec, adversary, shown, fake.detach()))
                self.descend_d(loss_d)
                self.sums.discriminator += loss_d.detach()
                if spec.clip is not None:
                    _clip(adversary, spec.clip)
            if number + 1 < batches:
                self.row += 1

        step = Step(spec, self.done, z, fake, target, partial(self.real.at, self.row), adversary, self.extras)
        if adversary is not None:
            adversary.requires_grad_(False)
        loss = (spec.rule if self.past_warmup else DISTILLATION)(step)
        if adversary is not None:
            adversary.requires_grad_(True)
        self.descend(loss)
        self.sums.generator += loss.detach()
        self.row += 1
        self.done += 1
        if self.averages:
            decay = ((1 + self.done) / (10 + self.done)).clamp(max=spec.ema)
            weight = (1 - decay).float()
            torch._foreach_lerp_(self.averages, self.currents, [weight] * len(self.averages))


@torch.no_grad()
def _clip(critic: nn.Module, limit: float) -> None:
    parameters: list[Tensor] = list(critic.parameters())
    torch._foreach_clamp_min_(parameters, -limit)
    torch._foreach_clamp_max_(parameters, limit)


def _aside(body: Callable[[], None]) -> None:
    """Run on a side stream: a capture cannot use what autograd has tied to the default one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        body()
    torch.cuda.current_stream().wait_stream(stream)


def _captured(body: Callable[[], None]) -> Callable[[], None]:
    """Record what the body launches, without running it. Return what launches all of it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay

"""The training loop of a trial, from its spec to its rungs."""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables import checkpoint
from trainables.bank import Bank
from trainables.batches import BankBatches, RealBatches
from trainables.descent import descent_of, in_its_precision, make_accelerator
from trainables.errors import Interrupted
from trainables.graphs import GraphedUpdates, is_capturable
from trainables.latents import seed_of
from trainables.networks import build, memory_format
from trainables.objectives import DISTILLATION, Part
from trainables.spec import TrialSpec
from trainables.step import CriticStep, Extras, Step

CHECKED = 50  # updates between two looks at whether the trial has diverged, each a wait for the GPU


@dataclass(frozen=True)
class Rung:
    """A trial at a number of updates. `generator` is scored and kept: the averaged one if the spec has `ema`."""

    updates: int
    generator: nn.Module
    discriminator: nn.Module | None
    losses: dict[str, float]  # means since the previous rung, interruptions included
    seconds: float  # of training since the previous rung, without scoring


@in_its_precision
def train(
    spec: TrialSpec,
    rungs: Sequence[int],
    *,
    pixels: np.ndarray | None,
    bank: Bank | None,
    extras: Extras | None = None,
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = 60.0,
    stop: Callable[[int], bool] = lambda updates: False,
) -> Iterator[Rung]:
    """Train one trial and yield it at each rung; to prune it, stop iterating.

    spec: what to train. rungs: generator updates at which to yield, ascending. pixels: the real images, uint8
    [n, C, H, W], if the loss loads them. bank: the teacher's images by latent index, if the loss loads them.
    extras: networks that only some losses load. checkpoint_path: FOLDER/checkpoint.safetensors; resume from the newest
    checkpoint there that is not beyond the first of `rungs`; save one before each rung is yielded, and about every
    checkpoint_seconds between rungs. stop: asked before each update, with the number of updates done. A trial whose
    weights are not finite any more is yielded at once, as if it had reached its rung.
    Raises EnvironmentUserError if the precision needs a GPU and none is visible, Interrupted if it was told to stop.
    """
    # Device and precision.
    torch.set_num_threads(spec.threads)
    accelerator = make_accelerator(spec)
    device = accelerator.device
    game, extras = spec.game, extras or Extras()

    # Networks and optimisers.
    generator = build(spec.generator, seed_of(f"generator/{spec.seed}"))
    generator.to(memory_format=memory_format(spec.generator, device, spec.precision))
    averaged = deepcopy(generator).to(device) if spec.ema else None
    optimizer = game.optimizer(generator.parameters(), spec.lr)
    generator = accelerator.prepare(generator)
    parts: checkpoint.Parts = {"generator": generator}
    descend = descent_of(spec, optimizer, parts)
    discriminator: nn.Module | None = None
    if spec.discriminator is not None:
        discriminator = build(spec.discriminator, seed_of(f"discriminator/{spec.seed}"))
        if spec.discriminator_start == "teacher":
            assert extras.teacher is not None
            discriminator.load_state_dict(extras.teacher.discriminator.state_dict())
        discriminator.to(memory_format=memory_format(spec.discriminator, device, spec.precision))
        optimizer_d = game.optimizer(discriminator.parameters(), spec.lr_discriminator or spec.lr)
        discriminator = accelerator.prepare(discriminator)
        parts["discriminator"] = discriminator
        descend_d = descent_of(spec, optimizer_d, parts, "_d")
    if spec.compile:
        torch._dynamo.reset()  # earlier trials of this process count towards the limit of recompilations
        for network in (generator, discriminator):
            if network is not None:
                network.compile()
    if averaged is not None:
        parts["averaged"] = averaged

    # Data. A batch is a function of (seed, step), so that there is no state to save.
    real = RealBatches(pixels, spec, device)
    latent = BankBatches(bank, spec, device, real.tensors)

    sums = _Sums(device)
    parts["sums"] = sums
    averages, currents = _floats(averaged) if averaged is not None else [], _floats(generator)
    graphed: GraphedUpdates | None = None
    if is_capturable(spec, device, real, latent):
        descents = descend, descend_d if discriminator is not None else None
        networks = generator, discriminator
        graphed = GraphedUpdates(spec, networks, descents, (real, latent), sums, (averages, currents), extras, device)

    def save(at_rung: bool) -> None:
        if checkpoint_path is not None:
            sums.seconds = time.monotonic() - begun
            checkpoint.save(checkpoint_path, parts, update, at_rung=at_rung)

    # Resume from the checkpoint.
    update = 0
    if checkpoint_path is not None:
        update = checkpoint.load(checkpoint_path, parts, at_most=rungs[0])

    generator.train()
    for rung in rungs:
        if sums.to_rung == update < rung:  # the sums are complete for the previous rung
            sums.begin(update)
        sums.to_rung = rung
        begun = time.monotonic() - sums.seconds
        saved = time.monotonic()
        while update < rung:
            if stop(update):
                save(at_rung=False)
                raise Interrupted
            if (update + 1) % CHECKED == 0 and sums.are_nan() and not _is_finite(generator):
                break  # it cannot recover
            if time.monotonic() - saved > checkpoint_seconds:
                save(at_rung=False)
                saved = time.monotonic()
            if graphed is not None:
                graphed(update)
                update += 1
                continue

            # During its warm-up a student trains by mse alone, without its discriminator.
            adversary = discriminator if update >= spec.warmup else None
            rule = spec.rule if update >= spec.warmup else DISTILLATION
            critic_updates = spec.n_critic if adversary is not None else 1

            # The discriminator: n_critic updates, each on new real images (or the teacher's) and new fakes.
            for batch in range(update * critic_updates, (update + 1) * critic_updates):
                z, target = latent.batch(batch)
                # Only the last fakes need gradients: the generator is updated with them.
                with torch.set_grad_enabled(batch + 1 == (update + 1) * critic_updates):
                    fake = generator(z)
                if adversary is not None:
                    shown = real.batch(batch) if Part.REAL in spec.loads else target
                    assert shown is not None
                    loss_d = game(CriticStep(spec, adversary, shown, fake.detach()))
                    descend_d(loss_d)
                    sums.discriminator += loss_d.detach()
                    sums.discriminator_updates += 1
                    if spec.clip is not None:
                        _clip(adversary, spec.clip)

            # The generator, by the last fakes and with the discriminator frozen.
            step = Step(spec, update, z, fake, target, partial(real.batch, batch), adversary, extras)
            if adversary is not None:
                adversary.requires_grad_(False)
            loss = rule(step)
            if adversary is not None:
                adversary.requires_grad_(True)
            descend(loss)
            sums.generator += loss.detach()
            update += 1

            # The average of the generator's weights and of its normalisation statistics.
            if averaged is not None:
                torch._foreach_lerp_(averages, currents, 1 - min(spec.ema, (1 + update) / (10 + update)))

        if device.type == "cuda":
            torch.cuda.synchronize()  # wait for the last steps before reading the clock
        seconds = time.monotonic() - begun
        save(at_rung=True)
        kept = averaged if averaged is not None else generator
        yield Rung(rung, kept, discriminator, sums.means(rung), seconds)
        generator.train()


_SUMS = ("since", "to_rung", "seconds", "discriminator_updates")  # the fields that are not tensors


class _Sums:
    """Sums of losses and seconds since the previous rung. Checkpointed, so that a resumed trial reports the same."""

    def __init__(self, device: torch.device) -> None:
        self.generator, self.discriminator = (torch.zeros((), device=device) for _ in range(2))
        self.to_rung = 0
        self.begin(0)

    def begin(self, update: int) -> None:
        self.since, self.seconds, self.discriminator_updates = update, 0.0, 0
        self.generator.zero_()  # in place: a CUDA graph adds to them
        self.discriminator.zero_()

    def are_nan(self) -> bool:
        """Return whether a loss was NaN. Waits for the GPU."""
        return bool((self.generator + self.discriminator).isnan())

    def means(self, update: int) -> dict[str, float]:
        """Return the mean loss per update of each network. Without discriminator updates its key is missing."""
        means = {"generator": float(self.generator) / max(1, update - self.since)}
        if self.discriminator_updates:
            means["discriminator"] = float(self.discriminator) / self.discriminator_updates
        return means

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in _SUMS}
        return numbers | {"generator": float(self.generator), "discriminator": float(self.discriminator)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _SUMS:
            setattr(self, name, state_dict[name])
        self.generator.fill_(state_dict["generator"])
        self.discriminator.fill_(state_dict["discriminator"])


def _is_finite(network: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in network.parameters())


@torch.no_grad()
def _clip(critic: nn.Module, limit: float) -> None:
    """Clip weights to [-limit, limit], which keeps the critic of equation (2) Lipschitz."""
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)


def _floats(network: nn.Module) -> list[Tensor]:
    """Return parameters and floating-point buffers by reference, for averaging."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]

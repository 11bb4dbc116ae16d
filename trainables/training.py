"""THE loop: one trial, from its spec to its rungs."""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from trainables import checkpoint
from trainables.bank import Bank
from trainables.batches import BankBatches, RealBatches
from trainables.errors import EnvironmentUserError
from trainables.latents import seed_of
from trainables.networks import build, memory_format
from trainables.objectives import DISTILLATION
from trainables.spec import TrialSpec
from trainables.step import CriticStep, Extras, Step


@dataclass(frozen=True)
class Rung:
    """A trial at a number of updates. `generator` is what is scored and kept: the average if the spec has one."""

    updates: int
    generator: nn.Module
    discriminator: nn.Module | None
    losses: dict[str, float]  # means since the rung before, whatever was killed in between
    seconds: float  # of training since then, scoring not included


def train(
    spec: TrialSpec,
    rungs: Sequence[int],
    *,
    pixels: np.ndarray | None,
    bank: Bank | None,
    extras: Extras | None = None,
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Rung]:
    """Train one trial and yield it at each rung; to prune it, stop iterating.

    spec: what to train. rungs: generator updates at which to yield, ascending. pixels: the real images, uint8
    [n, C, H, W], if the loss loads them. bank: the teacher's images by latent index, if the loss loads them.
    extras: what only some losses load. checkpoint_path: resume from this file if it exists, and save to it at each
    rung before the rung is yielded and about every checkpoint_seconds between rungs. If the checkpoint is already
    beyond the first of `rungs`, the trial starts again, to the same weights.
    Raises EnvironmentUserError when the precision needs a device that is not there.
    """
    # Device and precision. Accelerate's state is process-wide; an actor trains many trials one after the other.
    torch.set_num_threads(spec.threads)
    if spec.precision == "fp16" and not torch.cuda.is_available():
        raise EnvironmentUserError("precision=fp16 needs a GPU, and none is visible; use --precision no or bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=spec.precision)
    device = accelerator.device
    game, extras = spec.game, extras or Extras()

    # Networks and optimisers.
    generator = build(spec.generator, seed_of(f"generator/{spec.seed}"))
    generator.to(memory_format=memory_format(spec.generator, device))
    averaged = deepcopy(generator).to(device) if spec.ema else None
    optimizer = game.optimizer(generator.parameters(), spec.lr)
    generator, optimizer = accelerator.prepare(generator, optimizer)
    parts: checkpoint.Parts = {"generator": generator, "optimizer": optimizer.optimizer}
    discriminator: nn.Module | None = None
    if spec.discriminator is not None:
        discriminator = build(spec.discriminator, seed_of(f"discriminator/{spec.seed}"))
        discriminator.to(memory_format=memory_format(spec.discriminator, device))
        optimizer_d = game.optimizer(discriminator.parameters(), spec.lr_discriminator or spec.lr)
        discriminator, optimizer_d = accelerator.prepare(discriminator, optimizer_d)
        parts |= {"discriminator": discriminator, "optimizer_d": optimizer_d.optimizer}
    if spec.compile:
        torch._dynamo.reset()  # else the widths of a process's earlier trials count against its limit of recompilations
        for network in (generator, discriminator):
            if network is not None:
                network.compile()
    if averaged is not None:
        parts["averaged"] = averaged
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler

    # Data. What batch a step sees is a function of (seed, step), so that there is no order to save or restore.
    real, latent = RealBatches(pixels, spec, device), BankBatches(bank, spec, device)

    sums = _Sums(device)
    parts["sums"] = sums

    def save() -> None:
        # A trial that was sent back to an earlier rung does not lose the later state.
        if checkpoint_path is not None and checkpoint.updates(checkpoint_path) < update:
            sums.seconds = time.monotonic() - begun
            checkpoint.save(checkpoint_path, parts, update)

    # Go on from the checkpoint.
    update = 0
    if checkpoint_path is not None and checkpoint.updates(checkpoint_path) <= rungs[0]:
        update = checkpoint.load(checkpoint_path, parts)

    averages, currents = _floats(averaged) if averaged is not None else [], _floats(generator)
    generator.train()
    for rung in rungs:
        if sums.to_rung == update < rung:  # they are of the way to the rung before
            sums.begin(update)
        sums.to_rung = rung
        begun = time.monotonic() - sums.seconds
        saved = time.monotonic()
        while update < rung:
            # A joint student warms up by mse alone, without its discriminator.
            adversary = discriminator if update >= spec.warmup else None
            rule = spec.rule if update >= spec.warmup else DISTILLATION
            critic_updates = spec.n_critic if adversary is not None else 1

            # The discriminator: n_critic updates, each on real images and on fakes of its own latents.
            for batch in range(update * critic_updates, (update + 1) * critic_updates):
                z, target = latent.batch(batch)
                # The generator learns by the last fakes alone.
                with torch.set_grad_enabled(batch + 1 == (update + 1) * critic_updates):
                    fake = generator(z)
                if adversary is not None:
                    loss_d = game(CriticStep(spec, adversary, real.batch(batch), fake.detach()))
                    optimizer_d.zero_grad()
                    accelerator.backward(loss_d)
                    optimizer_d.step()
                    sums.discriminator += loss_d.detach()
                    sums.discriminator_updates += 1
                    if spec.clip is not None:
                        _clip(adversary, spec.clip)

            # The generator, through the last fakes and a discriminator that is held still.
            step = Step(spec, update, z, fake, target, partial(real.batch, batch), adversary, extras)
            if adversary is not None:
                adversary.requires_grad_(False)
            loss = rule(step)
            if adversary is not None:
                adversary.requires_grad_(True)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            sums.generator += loss.detach()
            update += 1

            # The average of the generator, its normalisation's statistics included.
            if averaged is not None:
                torch._foreach_lerp_(averages, currents, 1 - min(spec.ema, (1 + update) / (10 + update)))

            if time.monotonic() - saved > checkpoint_seconds and update < rung:
                save()
                saved = time.monotonic()

        if device.type == "cuda":
            torch.cuda.synchronize()  # the last steps are still under way
        seconds = time.monotonic() - begun
        save()
        kept = averaged if averaged is not None else generator
        yield Rung(rung, kept, discriminator, sums.means(rung), seconds)
        generator.train()


_SUMS = ("since", "to_rung", "seconds", "discriminator_updates")  # those that are no tensors


class _Sums:
    """Losses and seconds of the way to a rung. In the checkpoint, so that a trial that was killed tells the same."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.to_rung = 0
        self.begin(0)

    def begin(self, update: int) -> None:
        self.since, self.seconds, self.discriminator_updates = update, 0.0, 0
        self.generator, self.discriminator = (torch.zeros((), device=self.device) for _ in range(2))

    def means(self, update: int) -> dict[str, float]:
        """Per update of each network; of the discriminator nothing if it had none."""
        found = {"generator": float(self.generator) / max(1, update - self.since)}
        if self.discriminator_updates:
            found["discriminator"] = float(self.discriminator) / self.discriminator_updates
        return found

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in _SUMS}
        return numbers | {"generator": float(self.generator), "discriminator": float(self.discriminator)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _SUMS:
            setattr(self, name, state_dict[name])
        self.generator.fill_(state_dict["generator"])
        self.discriminator.fill_(state_dict["discriminator"])


@torch.no_grad()
def _clip(critic: nn.Module, limit: float) -> None:
    """Weights to [-limit, limit]: what keeps the critic of equation (2) Lipschitz."""
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)


def _floats(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers that are not counters, by reference: what an average is taken of."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]

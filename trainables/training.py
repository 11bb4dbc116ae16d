"""THE loop: one trial, from its spec to its rungs."""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from trainables import checkpoint
from trainables.bank import Bank
from trainables.errors import EnvironmentUserError
from trainables.latents import Order, latents, seed_of
from trainables.networks import Discriminator, Generator, memory_format
from trainables.objectives import GAMES, LOSSES
from trainables.rendering import to_float
from trainables.sizes import resident_bytes
from trainables.spec import TrialSpec


@dataclass(frozen=True)
class Rung:
    """A trial at a number of updates. `generator` is what is scored and kept: the average if the spec has one."""

    updates: int
    generator: Generator
    discriminator: Discriminator | None
    losses: dict[str, float]  # means since the rung before, whatever was killed in between
    seconds: float  # of training since then, scoring not included


def train(
    spec: TrialSpec,
    rungs: Sequence[int],
    *,
    pixels: np.ndarray | None,
    bank: Bank | None,
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Rung]:
    """Train one trial and yield it at each rung; to prune it, stop iterating.

    spec: what to train. rungs: generator updates at which to yield, ascending. pixels: the real images, uint8
    [n, C, H, W], if the loss has a discriminator. bank: the teacher's images, if the loss has a teacher.
    checkpoint_path: where the trial goes on from, if there is such a file, and is saved: at each rung before it is
    yielded, and about every checkpoint_seconds between rungs. Where it is already beyond the first of `rungs`, the
    trial starts again, to the same weights.
    Raises EnvironmentUserError when the precision needs a device that is not there.
    """
    # Device and precision. Accelerate's state is process-wide; an actor trains many trials one after the other.
    torch.set_num_threads(spec.threads)
    if spec.precision == "fp16" and not torch.cuda.is_available():
        raise EnvironmentUserError("precision=fp16 needs a GPU, and none is visible; use --precision no or bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=spec.precision)
    device = accelerator.device
    game = GAMES[spec.objective]

    # Networks and optimisers.
    generator = Generator(spec.d, spec.image_size, spec.channels, seed_of(f"generator/{spec.seed}"))
    generator.to(memory_format=memory_format(spec.d, device))
    averaged = deepcopy(generator).to(device) if spec.ema else None
    optimizer = _optimizer(spec, generator, spec.lr)
    generator, optimizer = accelerator.prepare(generator, optimizer)
    parts: checkpoint.Parts = {"generator": generator, "optimizer": optimizer.optimizer}
    discriminator: Discriminator | None = None
    if spec.d_discriminator is not None:
        seed = seed_of(f"discriminator/{spec.seed}")
        discriminator = Discriminator(spec.d_discriminator, spec.image_size, spec.channels, seed)
        discriminator.to(memory_format=memory_format(spec.d_discriminator, device))
        optimizer_d = _optimizer(spec, discriminator, spec.lr_discriminator or spec.lr)
        discriminator, optimizer_d = accelerator.prepare(discriminator, optimizer_d)
        parts |= {"discriminator": discriminator, "optimizer_d": optimizer_d.optimizer}
    if spec.compile == "yes":
        torch._dynamo.reset()  # else the widths of a process's earlier trials count against its limit of recompilations
        for network in (generator, discriminator):
            if network is not None:
                network.compile()
    if averaged is not None:
        parts["averaged"] = averaged
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler

    # Data. What batch a step sees is a function of (seed, step), so that there is no order to save or restore.
    real, latent = _RealImages(pixels, spec, device), _Latents(bank, spec, device)

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
            rule = spec.rule if update >= spec.warmup else LOSSES["mse"]
            critic_updates = spec.n_critic if adversary is not None else 1

            # The discriminator: n_critic updates, each on real images and on fakes of its own latents.
            for step in range(update * critic_updates, (update + 1) * critic_updates):
                z, target = latent.batch(step)
                with torch.set_grad_enabled(
                    step + 1 == (update + 1) * critic_updates
                ):  # the generator learns by the last
                    fake = generator(z)
                if adversary is not None:
                    loss_d = game.discriminator(adversary(real.batch(step)), adversary(fake.detach()))
                    optimizer_d.zero_grad()
                    accelerator.backward(loss_d)
                    optimizer_d.step()
                    sums.discriminator += loss_d.detach()
                    sums.discriminator_updates += 1
                    if spec.clip is not None:
                        _clip(adversary, spec.clip)

            # The generator, through the last fakes and a discriminator that is held still.
            logits = None
            if adversary is not None:
                adversary.requires_grad_(False)
                logits = adversary(fake)
                adversary.requires_grad_(True)
            loss = rule(fake=fake, target=target, logits=logits, game=game, alpha=spec.alpha)
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


class _RealImages:
    """Batches of the data set, in an order that depends on (seed, step) alone. On a GPU all of it, where it fits."""

    def __init__(self, pixels: np.ndarray | None, spec: TrialSpec, device: torch.device) -> None:
        self.pixels, self.batch_size, self.device = pixels, spec.batch_size, device
        self.order = Order(f"real/{spec.seed}", len(pixels) if pixels is not None else 0)
        self.resident: Tensor | None = None
        if pixels is not None and device.type == "cuda":
            whole = torch.cuda.get_device_properties(device).total_memory
            if resident_bytes(pixels.nbytes, whole):
                self.resident = torch.tensor(pixels, device=device)

    def batch(self, step: int) -> Tensor:
        """Images [batch_size, C, H, W] in [-1, 1]."""
        assert self.pixels is not None, "a loss with a discriminator needs real images"
        items = self.order.batch(step, self.batch_size)
        if self.resident is not None:
            return to_float(self.resident[torch.from_numpy(items).to(self.device, non_blocking=True)])
        return to_float(_moved(self.pixels[items], self.device))


class _Latents:
    """Batches of latents: the bank's, with the teacher's images, or a GAN's own endless stream."""

    def __init__(self, bank: Bank | None, spec: TrialSpec, device: torch.device) -> None:
        assert (bank is not None) or not spec.rule.needs_teacher, "a loss with a teacher needs its bank"
        self.bank = bank if spec.rule.needs_teacher else None
        self.batch_size, self.seed, self.device = spec.batch_size, spec.seed, device
        self.order = Order(f"bank/{spec.seed}", self.bank.count if self.bank else 0)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """z [batch_size, 100], and the teacher's images of them, [batch_size, C, H, W] in [-1, 1], or None."""
        if self.bank is None:
            z = latents(f"training/{self.seed}", step * self.batch_size, self.batch_size)
            return _moved(z, self.device), None
        known, images = self.bank(self.order.batch(step, self.batch_size))
        return _moved(known, self.device), to_float(_moved(images, self.device))


def _moved(batch: np.ndarray, device: torch.device) -> Tensor:
    """To a GPU from pinned memory: from other memory the copy of a large batch waits for what the GPU is doing."""
    host = torch.from_numpy(batch)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _optimizer(spec: TrialSpec, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam (0.5, 0.999) for the GAN's game, RMSprop for WGAN (momentum and clipping are a known failure)."""
    if spec.objective == "wgan":
        return torch.optim.RMSprop(network.parameters(), lr=lr, foreach=True)
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), fused=True)


@torch.no_grad()
def _clip(critic: nn.Module, limit: float) -> None:
    """Weights to [-limit, limit]: what keeps the critic of equation (2) Lipschitz."""
    for parameter in critic.parameters():
        parameter.clamp_(-limit, limit)


def _floats(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers that are not counters, by reference: what an average is taken of."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]

"""The arguments of losses and games for one update, as attributes. Logits and real images are computed on first use."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from trainables.narrow import outermost
from trainables.networks import HiddenMaps
from trainables.spec import TrialSpec

FeatureMap = Callable[[Tensor], Tensor]  # images [N, C, H, W] in [-1, 1] → features [N, D]


@dataclass(frozen=True)
class TeacherNetworks:
    """The teacher's networks in eval mode, without gradients of their own weights."""

    generator: nn.Module
    discriminator: nn.Module

    @cached_property
    def maps(self) -> HiddenMaps:
        """The discriminator's hidden maps of images."""
        return HiddenMaps(self.discriminator)


@dataclass(frozen=True)
class Extras:
    """Networks that only some losses load."""

    teacher: TeacherNetworks | None = None
    features: FeatureMap | None = None


class Step:
    """An update of the generator. Its attributes are the names in objectives.ARGUMENTS and WEIGHTS."""

    def __init__(
        self,
        spec: TrialSpec,
        update: int | Tensor,
        z: Tensor,
        fake: Tensor,
        target: Tensor | None,
        real: Callable[[], Tensor],
        discriminator: nn.Module | None,
        extras: Extras,
    ) -> None:
        """update: number of generator updates before this one; in a graph [], on the GPU. real: returns a batch."""
        self.update, self.z, self.fake, self.target = update, z, fake, target
        self.discriminator, self.teacher, self.features = discriminator, extras.teacher, extras.features
        self.game, self.alpha, self.beta = spec.game, spec.alpha, spec.beta
        self._real = real
        self._warmup, self._fade = spec.warmup, spec.fade

    @property
    def fading(self) -> Tensor:
        past = (self.update - self._warmup) / self._fade if self._fade else 1.0
        return 1 - torch.as_tensor(past, dtype=torch.float64).clamp(0, 1).float()

    @cached_property
    def real(self) -> Tensor:
        return self._real()

    @cached_property
    def logits(self) -> Tensor:
        assert self.discriminator is not None
        logits: Tensor = self.discriminator(self.fake)
        return logits

    @property
    def teacher_logits(self) -> Tensor:
        return self.logits


class CriticStep:
    """An update of the discriminator. Its attributes are the names in objectives.GAME_ARGUMENTS and WEIGHTS."""

    def __init__(self, spec: TrialSpec, discriminator: nn.Module, real: Tensor, fake: Tensor) -> None:
        """real, fake: images [N, C, H, W] in [-1, 1]. real: those of the teacher, if the loss loads no real images."""
        self.discriminator, self.real, self.fake = discriminator, real, fake
        self.alpha, self.beta = spec.alpha, spec.beta

    @cached_property
    def _logits(self) -> Tensor:
        """Real and fake in one call, which a narrow discriminator computes faster than two."""
        logits: Tensor = self.discriminator(torch.stack([outermost(self.real), outermost(self.fake)]))
        return logits

    @property
    def real_logits(self) -> Tensor:
        return self._logits[0]

    @property
    def fake_logits(self) -> Tensor:
        return self._logits[1]

"""Equations (1) to (4) of arXiv 1902.00159, as pure functions of tensors.

A game (`objective`) is what generator and discriminator play; a loss is what the generator minimises. To add a
loss, write one function under `@loss`; its arguments say what it needs.

torch is imported inside the two functions that need it, so that a spec can be checked without loading it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Game:
    """What discriminator and generator minimise, from the logits [N] of real and of generated images."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def gan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Equation (1): −E[log f(x)] − E[log(1 − f(g(z)))], with f the sigmoid of the logits."""
    from torch.nn.functional import softplus

    return softplus(-real).mean() + softplus(fake).mean()


def gan_generator(fake: Tensor) -> Tensor:
    """Equation (1) in its non-saturating form: −E[log f(g(z))]."""
    from torch.nn.functional import softplus

    return softplus(-fake).mean()


def wgan_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Equation (2): −E[f(x)] + E[f(g(z))]; f is kept Lipschitz by clipping its weights after each update."""
    return fake.mean() - real.mean()


def wgan_generator(fake: Tensor) -> Tensor:
    """Equation (2): −E[f(g(z))]."""
    return -fake.mean()


GAMES = {
    "gan": Game(gan_discriminator, gan_generator),
    "wgan": Game(wgan_critic, wgan_generator),
}


@dataclass(frozen=True)
class Loss:
    """A generator's loss and what it needs, read off its arguments."""

    compute: Callable[..., Tensor]
    arguments: tuple[str, ...]

    @property
    def needs_teacher(self) -> bool:
        return "target" in self.arguments

    @property
    def needs_discriminator(self) -> bool:
        return "logits" in self.arguments

    @property
    def needs_alpha(self) -> bool:
        return "alpha" in self.arguments

    def __call__(self, **available: Any) -> Tensor:
        return self.compute(**{name: available[name] for name in self.arguments})


LOSSES: dict[str, Loss] = {}


def loss(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register a loss under its function's name. Arguments it may take: fake and target (images in [-1, 1],
    [N, C, H, W]; the teacher's image for the same z), logits ([N], of fake), game, alpha."""
    LOSSES[function.__name__] = Loss(function, tuple(inspect.signature(function).parameters))
    return function


@loss
def adversarial(logits: Tensor, game: Game) -> Tensor:
    """Equations (1) and (2): a teacher, or a control."""
    return game.generator(logits)


@loss
def mse(fake: Tensor, target: Tensor) -> Tensor:
    """Equation (3): E_z ‖g_T(z) − g(z)‖², the mean over pixels; no discriminator, no data."""
    return (target - fake).square().mean()


@loss
def joint(fake: Tensor, target: Tensor, logits: Tensor, game: Game, alpha: float) -> Tensor:
    """Equation (4): alpha · adversarial + (1 − alpha) · mse; alpha = 0 is equation (3), alpha = 1 equation (1)."""
    return alpha * game.generator(logits) + (1 - alpha) * mse(fake, target)

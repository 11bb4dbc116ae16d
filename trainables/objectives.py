"""Equations (1) to (4) of arXiv 1902.00159, as pure functions of tensors.

A game (`objective`) is what generator and discriminator play; a loss is what the generator minimises. To add a loss,
write one function under `@loss`. Its arguments are names in ARGUMENTS; they declare what the trial loads, what an
update costs, and which fields of the spec mean something.

torch is imported inside the functions that need it, so that a spec can be checked without loading it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trainables.errors import UserError
from trainables.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer


class Part(StrEnum):
    """What a trial loads beside its generator."""

    BANK = "bank"  # the teacher's images by latent index
    REAL = "real"  # the real images
    DISCRIMINATOR = "discriminator"  # the trial's own, trained in turn with the generator
    TEACHER = "teacher"  # the teacher's networks
    FEATURES = "features"  # a fixed network


class Network(StrEnum):
    """What an update runs."""

    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"
    TEACHER_DISCRIMINATOR = "teacher's discriminator"
    FEATURES = "features"


@dataclass(frozen=True)
class Argument:
    """What a loss may name. A forward pass counts 1, a backward pass to the input 1, and to the weights 1 more."""

    meaning: str
    loads: frozenset[Part] = frozenset()
    passes: Mapping[Network, int] = field(default_factory=dict)


_ADVERSARY = frozenset({Part.DISCRIMINATOR, Part.REAL})
_THROUGH_IT = {Network.DISCRIMINATOR: 2}  # forward on fake, and backward to it
ARGUMENTS: dict[str, Argument] = {
    "z": Argument("latents [N, 100]"),
    "fake": Argument("the generator's images of z: [N, C, H, W] in [-1, 1]"),
    "target": Argument("the teacher's images of z: [N, C, H, W] in [-1, 1]", frozenset({Part.BANK})),
    "real": Argument("real images: [N, C, H, W] in [-1, 1]", frozenset({Part.REAL})),
    "logits": Argument("the discriminator's logits of fake: [N]", _ADVERSARY, _THROUGH_IT),
    "discriminator": Argument("the trial's discriminator, whose weights are held still", _ADVERSARY, _THROUGH_IT),
    "game": Argument("the game of the spec's objective"),
    "teacher": Argument(
        "the teacher's networks in eval mode: teacher.generator and teacher.discriminator",
        frozenset({Part.TEACHER}),
        {Network.TEACHER_DISCRIMINATOR: 3},  # forward on target and fake, and backward to fake
    ),
    "features": Argument(
        "the network that loss_features names: images [N, C, H, W] in [-1, 1] → features [N, D]",
        frozenset({Part.FEATURES}),
        {Network.FEATURES: 3},  # the same
    ),
    "update": Argument("generator updates done before this one"),
}
WEIGHTS = ("alpha", "beta")  # fields of the spec that a loss or a game may name; for others they mean nothing
GAME_ARGUMENTS = {
    "real_logits": "logits of the real images: [N]",
    "fake_logits": "logits of the generated images: [N]",
    "real": ARGUMENTS["real"].meaning,
    "fake": ARGUMENTS["fake"].meaning,
    "discriminator": "the discriminator itself, for a penalty on its gradient",
}


def _arguments(function: Callable[..., Any], known: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return the names of a function's arguments. Raises UserError for one that is not known."""
    names = tuple(inspect.signature(function).parameters)
    known = [*known, *WEIGHTS]
    for name in names:
        if name not in known:
            function_name = getattr(function, "__name__", "it")
            raise UserError(f"{kind} {function_name} takes {name!r}, which is unknown; it may take {', '.join(known)}")
    return names


@dataclass(frozen=True, kw_only=True)
class Game:
    """What discriminator and generator minimise; and how they are trained where a search space is silent."""

    discriminator: Callable[..., Tensor]  # takes names of real_logits, fake_logits, real, fake, discriminator, weights
    generator: Callable[[Tensor], Tensor]  # of the logits of the generated images: [N]
    optimizer: Callable[[Iterable[Parameter], float], Optimizer]  # (parameters, learning rate) → optimiser
    lr: float
    n_critic: int = 1  # discriminator updates per generator update
    clip: float | None = None  # limit of the discriminator's weights after each update; None: they are not clipped

    arguments: tuple[str, ...] = field(init=False)  # of the discriminator's loss

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "arguments", _arguments(self.discriminator, GAME_ARGUMENTS, "the discriminator's loss")
        )

    @property
    def defaults(self) -> dict[str, Any]:
        """Fields of the spec that a search space may leave out."""
        return {"lr": self.lr, "n_critic": self.n_critic, "clip": self.clip}

    def __call__(self, step: Any) -> Tensor:
        """Return the discriminator's loss. step: has the arguments as attributes (trainables.step.CriticStep)."""
        return self.discriminator(**{name: getattr(step, name) for name in self.arguments})

    @property
    def penalty_passes(self) -> int:
        """Passes of the discriminator that a penalty on its gradient takes: forward, backward, and backward again."""
        return 6 if "discriminator" in self.arguments else 0


def gan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Equation (1): −E[log f(x)] − E[log(1 − f(g(z)))], with f the sigmoid of the logits."""
    from torch.nn.functional import softplus

    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def gan_generator(fake_logits: Tensor) -> Tensor:
    """Equation (1) in its non-saturating form: −E[log f(g(z))]."""
    from torch.nn.functional import softplus

    return softplus(-fake_logits).mean()


def adam(parameters: Iterable[Parameter], lr: float) -> Optimizer:
    """Adam (0.5, 0.999), DCGAN's (arXiv 1511.06434)."""
    from torch.optim import Adam

    return Adam(parameters, lr=lr, betas=(0.5, 0.999), fused=True)


def wgan_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Equation (2): −E[f(x)] + E[f(g(z))]; f is kept Lipschitz by clipping its weights after each update."""
    return fake_logits.mean() - real_logits.mean()


def wgan_generator(fake_logits: Tensor) -> Tensor:
    """Equation (2): −E[f(g(z))]."""
    return -fake_logits.mean()


def rmsprop(parameters: Iterable[Parameter], lr: float) -> Optimizer:
    """RMSprop, WGAN's (arXiv 1701.07875): momentum and clipping are a known failure."""
    from torch.optim import RMSprop

    return RMSprop(parameters, lr=lr, foreach=True)


GAMES: Registry[Game] = Registry("game")
GAMES["gan"] = Game(discriminator=gan_discriminator, generator=gan_generator, optimizer=adam, lr=2e-4)
GAMES["wgan"] = Game(
    discriminator=wgan_critic,
    generator=wgan_generator,
    optimizer=rmsprop,
    lr=5e-5,  # this and the next two are its authors'
    n_critic=5,
    clip=0.01,
)


@dataclass(frozen=True)
class Loss:
    """A generator's loss, and what it needs: read off its arguments."""

    compute: Callable[..., Tensor]
    arguments: tuple[str, ...]

    @property
    def loads(self) -> frozenset[Part]:
        return frozenset().union(*(ARGUMENTS[name].loads for name in self.arguments if name in ARGUMENTS))

    @property
    def needs_teacher(self) -> bool:
        return not self.loads.isdisjoint({Part.BANK, Part.TEACHER})

    @property
    def needs_discriminator(self) -> bool:
        return Part.DISCRIMINATOR in self.loads

    def passes(self, game: Game, n_critic: int) -> dict[Network, int]:
        """Passes per update and image: of the generator, and of each network that the arguments name.

        With a discriminator the generator makes fakes for n_critic updates, of which the last serve its own update,
        too; each of these updates takes the discriminator forward and backward on real and on generated images.
        """
        total: dict[Network, int] = {Network.GENERATOR: 3}
        if self.needs_discriminator:
            total[Network.GENERATOR] = 2 + n_critic
            total[Network.DISCRIMINATOR] = n_critic * (6 + game.penalty_passes)
        for name in self.arguments:
            for network, count in ARGUMENTS[name].passes.items() if name in ARGUMENTS else ():
                total[network] = total.get(network, 0) + count
        return total

    def __call__(self, step: Any) -> Tensor:
        """step: has the arguments as attributes (trainables.step.Step)."""
        return self.compute(**{name: getattr(step, name) for name in self.arguments})


LOSSES: Registry[Loss] = Registry("loss")
Compute = Callable[..., "Tensor"]


def loss(function: Compute) -> Compute:
    """Register a loss under its function's name. Its arguments are names in ARGUMENTS and WEIGHTS.

    Raises UserError for an argument that is unknown.
    """
    LOSSES[function.__name__] = Loss(function, _arguments(function, ARGUMENTS, "loss"))
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


DISTILLATION = LOSSES["mse"]  # alpha = 0 of equation (4); and what a student minimises in its `warmup`

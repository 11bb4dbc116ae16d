"""Equations (1) to (4) of arXiv 1902.00159, as pure functions of tensors.

A game (`objective`) pairs the losses of discriminator and generator; a loss is what the generator minimises. To add a
loss, write one function under `@loss`. Its arguments are names in ARGUMENTS. They determine what the trial loads, what
an update costs, and which fields of the spec apply.

torch is imported inside the functions that need it, so that a spec can be checked without importing torch.
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
    """What a trial loads besides its generator."""

    BANK = "bank"  # the teacher's images by latent index
    REAL = "real"  # the real images
    DISCRIMINATOR = "discriminator"  # the trial's own, trained alternately with the generator
    TEACHER = "teacher"  # the teacher's networks
    FEATURES = "features"  # a fixed network


class Network(StrEnum):
    """A network that an update runs."""

    GENERATOR = "generator"
    DISCRIMINATOR = "discriminator"
    TEACHER_DISCRIMINATOR = "teacher's discriminator"
    FEATURES = "features"


@dataclass(frozen=True)
class Argument:
    """An argument of a loss. passes: a forward pass is 1, a backward pass to the input 1, to the weights 1 more."""

    meaning: str
    loads: frozenset[Part] = frozenset()
    passes: Mapping[Network, int] = field(default_factory=dict)


_ADVERSARY = frozenset({Part.DISCRIMINATOR, Part.REAL})
_PASSES = {Network.DISCRIMINATOR: 2}  # forward on fake, backward to fake
ARGUMENTS: dict[str, Argument] = {
    "z": Argument("latents [N, latent_size]"),
    "fake": Argument("the generator's images of z: [N, C, H, W] in [-1, 1]"),
    "target": Argument("the teacher's images of z: [N, C, H, W] in [-1, 1]", frozenset({Part.BANK})),
    "real": Argument("real images: [N, C, H, W] in [-1, 1]", frozenset({Part.REAL})),
    "logits": Argument("the discriminator's logits of fake: [N]", _ADVERSARY, _PASSES),
    "teacher_logits": Argument(
        "the same, of a discriminator that is trained on the teacher's images instead of real ones: [N]",
        frozenset({Part.DISCRIMINATOR, Part.BANK}),
        _PASSES,
    ),
    "discriminator": Argument("the trial's discriminator, with frozen weights", _ADVERSARY, _PASSES),
    "game": Argument("the game of the spec's objective"),
    "teacher": Argument(
        "the teacher's networks in eval mode: teacher.generator and teacher.discriminator; and teacher.maps: "
        "images → the discriminator's hidden maps",
        frozenset({Part.TEACHER}),
        {Network.TEACHER_DISCRIMINATOR: 3},  # forward on target and fake, backward to fake
    ),
    "features": Argument(
        "the network that loss_features names: images [N, C, H, W] in [-1, 1] → features [N, D]",
        frozenset({Part.FEATURES}),
        {Network.FEATURES: 3},  # forward on target and fake, backward to fake
    ),
    "update": Argument("number of generator updates before this one"),
    "fading": Argument("1 at the end of the warm-up, falling to 0 in `fade` updates; always 0 with fade=0: []"),
}
WEIGHTS = ("alpha", "beta")  # fields of the spec that a loss or a game may take as arguments
GAME_ARGUMENTS = {
    "real_logits": "logits of the real images: [N]",
    "fake_logits": "logits of the generated images: [N]",
    "real": ARGUMENTS["real"].meaning,
    "fake": ARGUMENTS["fake"].meaning,
    "discriminator": "the discriminator, for a penalty on its gradient",
}


def _arguments(function: Callable[..., Any], allowed: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return the names of a function's arguments. Raises UserError for one that is not allowed."""
    names = tuple(inspect.signature(function).parameters)
    allowed = [*allowed, *WEIGHTS]
    for name in names:
        if name not in allowed:
            function_name = getattr(function, "__name__", "it")
            raise UserError(
                f"{kind} {function_name} takes {name!r}, which is unknown; it may take {', '.join(allowed)}"
            )
    return names


@dataclass(frozen=True, kw_only=True)
class Game:
    """The losses of discriminator and generator, with their optimiser and default hyperparameters."""

    discriminator: Callable[..., Tensor]  # its arguments are names in GAME_ARGUMENTS and WEIGHTS
    generator: Callable[[Tensor], Tensor]  # of the logits of the generated images: [N]
    optimizer: Callable[[Iterable[Parameter], float], Optimizer]  # (parameters, learning rate) → optimiser
    lr: float
    n_critic: int = 1  # discriminator updates per generator update
    clip: float | None = None  # limit of the discriminator's weights after each update; None: no clipping

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
        """Return the discriminator's loss. step: a trainables.step.CriticStep."""
        return self.discriminator(**{name: getattr(step, name) for name in self.arguments})

    @property
    def penalty_passes(self) -> int:
        """Extra passes of the discriminator for a penalty on its gradient: forward, backward, and backward again."""
        return 6 if "discriminator" in self.arguments else 0


def gan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return equation (1): −E[log f(x)] − E[log(1 − f(g(z)))], with f the sigmoid of the logits."""
    from torch.nn.functional import softplus

    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def gan_generator(fake_logits: Tensor) -> Tensor:
    """Return equation (1) in its non-saturating form: −E[log f(g(z))]."""
    from torch.nn.functional import softplus

    return softplus(-fake_logits).mean()


def adam(parameters: Iterable[Parameter], lr: float) -> Optimizer:
    """Return Adam with betas (0.5, 0.999), as in DCGAN (arXiv 1511.06434)."""
    from torch.optim import Adam

    return Adam(parameters, lr=lr, betas=(0.5, 0.999), fused=True)


def wgan_critic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return equation (2): −E[f(x)] + E[f(g(z))]. Clipping the weights after each update keeps f Lipschitz."""
    return fake_logits.mean() - real_logits.mean()


def wgan_generator(fake_logits: Tensor) -> Tensor:
    """Return equation (2): −E[f(g(z))]."""
    return -fake_logits.mean()


def rmsprop(parameters: Iterable[Parameter], lr: float) -> Optimizer:
    """Return RMSprop, as in WGAN (arXiv 1701.07875): weight clipping is unstable with momentum."""
    from torch.optim import RMSprop

    return RMSprop(parameters, lr=lr, foreach=True)


GAMES: Registry[Game] = Registry("game")
GAMES["gan"] = Game(discriminator=gan_discriminator, generator=gan_generator, optimizer=adam, lr=2e-4)
GAMES["wgan"] = Game(
    discriminator=wgan_critic,
    generator=wgan_generator,
    optimizer=rmsprop,
    lr=5e-5,  # lr, n_critic and clip as in arXiv 1701.07875
    n_critic=5,
    clip=0.01,
)


@dataclass(frozen=True)
class Loss:
    """A generator's loss. Its arguments determine what it needs."""

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
        """Return the passes per update and image of the generator and of each network that the arguments name.

        With a discriminator, the generator renders fakes for n_critic discriminator updates, and its own update reuses
        the last of them. Each discriminator update runs forward and backward on real and on generated images.
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
        """Return the loss. step: a trainables.step.Step."""
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
    """Return the generator's loss of equations (1) and (2): for teachers and controls."""
    return game.generator(logits)


@loss
def mse(fake: Tensor, target: Tensor) -> Tensor:
    """Return equation (3): E_z ‖g_T(z) − g(z)‖², as a mean over pixels; needs no discriminator and no real images."""
    from torch.nn.functional import mse_loss

    from trainables.narrow import SquaredError

    if fake.stride(0) != 1 or target.requires_grad or fake.shape != target.shape:
        return mse_loss(fake, target)
    error: Tensor = SquaredError.apply(fake, target)  # the batch is innermost in memory
    return error


@loss
def joint(fake: Tensor, target: Tensor, logits: Tensor, game: Game, alpha: float) -> Tensor:
    """Return equation (4): alpha · adversarial + (1 − alpha) · mse; alpha = 0 is (3), alpha = 1 is (1)."""
    return alpha * game.generator(logits) + (1 - alpha) * mse(fake, target)


@loss
def imitation(fake: Tensor, target: Tensor, teacher_logits: Tensor, game: Game, alpha: float) -> Tensor:
    """Return equation (4) with a discriminator between the teacher's images and the student's.

    It needs no real images, and nothing of the teacher but its images (as in TinyGAN, arXiv 2009.13829).
    """
    return joint(fake, target, teacher_logits, game, alpha)


@loss
def perceptual(fake: Tensor, target: Tensor, teacher: Any, fading: Tensor) -> Tensor:
    """Return the mean over the teacher's discriminator's hidden layers φ of ‖φ(g_T(z)) − φ(g(z))‖² / ‖φ(g_T(z))‖².

    A perceptual loss (Johnson et al., arXiv 1603.08155) in the network that judged the teacher, with a pixel term that
    fades (TinyGAN, arXiv 2009.13829). It needs no real images and no discriminator of its own.
    """
    import torch

    with torch.no_grad():
        targets = teacher.maps(target)
    errors = [
        (found - wanted).square().sum() / wanted.square().sum()
        for found, wanted in zip(teacher.maps(fake), targets, strict=True)
    ]
    return torch.stack(errors).mean() + PIXELS * fading * mse(fake, target)


PIXELS = 5.0  # weight of the pixel term of `perceptual` before it fades: docs/results.md
DISTILLATION = LOSSES["mse"]  # equation (4) with alpha = 0; also the loss during `warmup`

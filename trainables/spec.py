"""TrialSpec: everything that determines the results of a trial, and nothing else.

Its signature names the trial. It excludes the budget (a longer sweep continues the trials of a shorter one), paths,
resources and W&B.
"""

import dataclasses
import hashlib
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainables.errors import MissingPluginError, UserError
from trainables.objectives import DISTILLATION, GAMES, LOSSES, WEIGHTS, Game, Loss, Part
from trainables.registry import Registry
from trainables.scores.loading import FEATURES
from trainables.shapes import (
    DEFAULT_FAMILY,
    FAMILIES,
    LATENT_LAWS,
    LATENT_SIZE,
    DiscriminatorShape,
    GeneratorShape,
    LatentLaw,
)

IMAGE_SIZES = (32, 64, 128, 256)
# Of trials that are new. 2: narrow.py computes narrow networks on a CPU. 3: real and fake images in one pass.
# 4: torch's batch normalisation and tanh in narrow.py. 5: wider networks in it.
REVISION = 5
PRECISIONS = ("no", "tf32", "bf16", "fp16")
ROLES = ("teacher", "student")
STARTS = ("random", "teacher")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """The configuration of one trial. Raises UserError for an invalid value, and for a field that its loss ignores."""

    role: str  # teacher (trained on real images; also a control) or student
    dataset: str  # a name, or FOLDER-HASH for a folder of images
    d: int  # the generator's width, the paper's depth scale factor
    channels: int  # 1 or 3
    image_size: int = 32  # 32, 64, 128 or 256
    latent_size: int = LATENT_SIZE  # numbers in a latent z
    latent_law: str = "normal"  # normal, uniform in [-1, 1], or truncated: normal within [-latent_bound, latent_bound]
    latent_bound: float | None = None  # of truncated latents
    family: str = DEFAULT_FAMILY  # the kind of generator: a name in shapes.FAMILIES
    loss: str = "adversarial"  # what the generator minimises: a name in objectives.LOSSES
    objective: str = "gan"  # the game between generator and discriminator: a name in objectives.GAMES
    alpha: float | None = None  # weight of the adversarial term in equation (4); alpha = 0 is mse
    beta: float | None = None  # a second weight, for losses that take it
    warmup: int = 0  # updates by mse alone, before the loss and its discriminator
    fade: int = 0  # updates after the warm-up in which a pixel term beside the perceptual loss falls to 0
    d_discriminator: int | None = None  # the discriminator's width, independent of the generator's
    discriminator_start: str = "random"  # random weights, or those of the teacher's discriminator
    lr: float = 2e-4  # the generator's learning rate
    lr_discriminator: float | None = None  # None: the same as lr
    n_critic: int = 1  # discriminator updates per generator update
    clip: float | None = None  # the critic's weights are clipped to [-clip, clip]
    ema: float = 0.0  # decay of the average of the generator's weights, which is scored and kept; 0: no average
    batch_size: int = 64  # images per update
    latents: int | None = None  # number of the teacher's images that a student trains on
    teacher: str | None = None  # SIGNATURE@UPDATES-WEIGHTSHASH
    loss_features: str | None = None  # the network whose features the loss compares: a name in FEATURES
    seed: int = 0  # seed of initial weights, latents and the order of images
    precision: str = "no"  # no (exact float32), tf32, bf16, fp16; tf32 and fp16 need a GPU
    threads: int = 1  # CPU threads; the number changes the order of sums and so the weights
    compile: bool = False  # use torch.compile; changes the order of sums; takes a minute at each start
    plugin: str | None = None  # NAME-HASH of the plug-ins that define its loss, game, family or features, joined by +
    revision: int = 1  # of the code's numbers; new trials have REVISION

    def __post_init__(self) -> None:
        for name in FIELDS:
            check_type(name, getattr(self, name))
        _check_choice("role", self.role, ROLES)
        _check_choice("image_size", self.image_size, IMAGE_SIZES)
        _check_choice("channels", self.channels, (1, 3))
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("discriminator_start", self.discriminator_start, STARTS)
        _check_choice("latent_law", self.latent_law, LATENT_LAWS)
        if self.plugin is not None and not all(_PLUGIN.fullmatch(identity) for identity in self.plugin.split("+")):
            raise UserError(f"plugin={shown(self.plugin)}: not NAME-HASH, or several joined by +")
        for name, registry in (("loss", LOSSES), ("objective", GAMES), ("family", FAMILIES)):
            self._check_registered(name, registry)
        if self.loss_features is not None:
            self._check_registered("loss_features", FEATURES)
        for name in ("d", "batch_size", "n_critic", "threads", "latents", "d_discriminator", "latent_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} is below 1; give a whole number of at least 1")
        for name in ("lr", "lr_discriminator", "clip"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise UserError(f"{name}={value:g} is not positive and finite; try {name}=0.0002")
        if (self.latent_law == "truncated") != (self.latent_bound is not None):
            raise UserError(f"latent_law={self.latent_law}: latent_bound is for truncated latents, which need it")
        if self.latent_bound is not None and not 0.1 <= self.latent_bound < math.inf:
            raise UserError(f"latent_bound={self.latent_bound:g} is below 0.1 or not finite; try latent_bound=2")
        if self.beta is not None and not math.isfinite(self.beta):
            raise UserError(f"beta={self.beta:g} is not finite; try beta=1")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UserError(f"alpha={self.alpha:g} is outside [0, 1]; alpha=0 is mse, alpha=1 the plain GAN")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema={self.ema:g} is outside [0, 1); try ema=0.99, or ema=0 for no average")
        for name in ("warmup", "fade", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} is negative; give a whole number of at least 0")
        for name in ("d", "d_discriminator", "batch_size", "n_critic", "threads", "latents", "warmup", "fade", "seed"):
            if (getattr(self, name) or 0) > (limit := _MAX_SEED if name == "seed" else _MAX_INT):
                raise UserError(f"{name} is above {limit:,}; give a smaller number")
        if self.batch_size < 2:
            raise UserError("batch_size=1: batch normalisation needs at least 2; try batch_size=64")
        self._check_fields_of_loss()

    def _check_registered(self, name: str, registry: Mapping[str, Any]) -> None:
        if getattr(self, name) not in registry:
            if self.plugin is not None:
                raise MissingPluginError(self.plugin, f"{name}={getattr(self, name)}")
            _check_choice(name, getattr(self, name), registry)

    def _check_fields_of_loss(self) -> None:
        if (self.role == "student") != self.rule.needs_teacher:
            allowed = [n for n, rule in LOSSES.items() if rule.needs_teacher == (self.role == "student")]
            raise UserError(f"loss={self.loss} is not a loss of a {self.role}; try loss={' or loss='.join(allowed)}")
        for name in irrelevant(self.loss, self.objective):
            if getattr(self, name) != DEFAULTS[name]:
                raise UserError(f"{name}={getattr(self, name)} is not used by loss={self.loss}; leave it out")
        for name in needed(self.loss):
            if getattr(self, name) is None:
                raise UserError(f"loss={self.loss} needs {name}; add {name}=… to the search space")

    @property
    def rule(self) -> Loss:
        """The generator's loss."""
        return LOSSES[self.loss]

    @property
    def loads(self) -> frozenset[Part]:
        """What the trial loads: what its loss does, and the teacher's networks if its discriminator starts as one."""
        return self.rule.loads | ({Part.TEACHER} if self.discriminator_start == "teacher" else frozenset())

    @property
    def game(self) -> Game:
        """The losses of discriminator and generator."""
        return GAMES[self.objective]

    @property
    def generator(self) -> GeneratorShape:
        return GeneratorShape(self.family, self.d, self.image_size, self.channels, self.latent_size)

    @property
    def law(self) -> LatentLaw:
        """How the generator's latents are drawn."""
        return LatentLaw(self.latent_size, self.latent_law, self.latent_bound)

    @property
    def discriminator(self) -> DiscriminatorShape | None:
        """The trial's own discriminator; None if its loss needs none."""
        if self.d_discriminator is None:
            return None
        return DiscriminatorShape(self.d_discriminator, self.image_size, self.channels)

    @property
    def kind(self) -> str:
        """The kind of training, for tables: the loss of a student, the game of a teacher or control."""
        return self.loss if self.rule.needs_teacher else self.objective

    @property
    def position_on_alpha(self) -> float | None:
        """The position of the trial on an axis of alpha: 0 for equation (3)."""
        return 0.0 if self.rule is DISTILLATION else self.alpha

    def canonical(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as the store keeps them. The signature is their hash.

        A bool is written as on the command line: yes or no.
        """
        values = {name: getattr(self, name) for name in FIELDS}
        changed = {k: v for k, v in values.items() if k not in DEFAULTS or v != DEFAULTS[k]}
        return {k: _BOOL_WORDS[v] if isinstance(v, bool) else v for k, v in changed.items()}

    @classmethod
    def from_canonical(cls, values: Mapping[str, Any]) -> "TrialSpec":
        """Restore a spec from `canonical`. Raises UserError, and MissingPluginError if a plug-in is not loaded."""
        for name in values:
            if name not in FIELDS:
                raise UserError(f"{name!r} is not a field of a trial")
        for name in FIELDS:
            if name not in values and name not in DEFAULTS:
                raise UserError(f"a trial needs {name}")
        return cls(**{k: _BOOLS.get(str(v), v) if _field_types(k) == (bool,) else v for k, v in values.items()})

    @property
    def signature(self) -> str:
        """12 hex digits that name the trial."""
        return _digest(self.canonical())

    @property
    def configuration(self) -> str:
        """The signature without the seed. Trials that differ only in their seed are promoted or pruned together."""
        return _digest({k: v for k, v in self.canonical().items() if k != "seed"})

    def label(self) -> str:
        """Return a readable description: `d=2 joint alpha=0.02 lr=0.002`."""
        names = ["alpha", "beta", "warmup", "fade", "lr", "lr_discriminator", "d_discriminator", "ema", "seed"]
        shown = {n: getattr(self, n) for n in names if getattr(self, n) != DEFAULTS[n] or n == "lr"}
        start = ["from the teacher's discriminator"] if self.discriminator_start == "teacher" else []
        return " ".join([self.generator.label, self.kind, *(f"{n}={v:g}" for n, v in shown.items()), *start])


FIELDS = {f.name: f for f in dataclasses.fields(TrialSpec)}
DEFAULTS = {n: f.default for n, f in FIELDS.items() if f.default is not dataclasses.MISSING}
_TYPES = typing.get_type_hints(TrialSpec)


def irrelevant(loss: str, objective: str) -> set[str]:
    """Return the fields that a trial of this loss and objective does not read."""
    rule, game = LOSSES[loss], GAMES.get(objective)
    read = set(rule.arguments)
    unused: set[str] = set()
    if rule.needs_discriminator:
        read |= set(game.arguments) if game else set()
    else:
        unused |= {"objective", "d_discriminator", "lr_discriminator", "n_critic", "clip", "discriminator_start"}
    unused |= set(WEIGHTS) - read
    if not rule.needs_teacher:
        unused |= {"teacher", "warmup", "discriminator_start"}
    if Part.BANK not in rule.loads:
        unused |= {"latents", "warmup"}
    if rule is DISTILLATION:
        unused |= {"warmup"}
    if "fading" not in rule.arguments:
        unused |= {"fade"}
    if Part.FEATURES not in rule.loads:
        unused |= {"loss_features"}
    if game is None or game.clip is None:
        unused |= {"clip"}
    return unused


def plugin_of(fields: Mapping[str, Any]) -> str | None:
    """Return the plug-ins that define the names in these fields: NAME-HASH, joined by +; None if there are none."""
    registries: list[tuple[str, Registry[Any]]] = [("loss", LOSSES), ("objective", GAMES), ("family", FAMILIES)]
    registries.append(("loss_features", FEATURES))
    origins = {registry.origin(fields[name]) for name, registry in registries if name in fields}
    return "+".join(sorted(origin for origin in origins if origin)) or None


def needed(loss: str) -> list[str]:
    """Return the fields that a trial of this loss requires."""
    rule = LOSSES[loss]
    parts = {"d_discriminator": Part.DISCRIMINATOR, "latents": Part.BANK, "loss_features": Part.FEATURES}
    fields = [name for name in WEIGHTS if name in rule.arguments]
    fields += [name for name, part in parts.items() if part in rule.loads]
    return [*fields, "teacher"] if rule.needs_teacher else fields


def parse(name: str, text: str) -> Any:
    """Parse the value of a field from the command line. Raises UserError."""
    if name not in FIELDS:
        raise UserError(f"{name!r} is not a field of a trial; the fields are {', '.join(sorted(FIELDS))}")
    types = _field_types(name)
    if type(None) in types and text.lower() == "none":
        return None
    if bool in types and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    for number in (int, float):
        if number in types:
            try:
                return number(text)
            except ValueError:
                break
    if str in types:
        return text
    raise UserError(f"{name}={text}: {_MISMATCH[types[0]]}; try --set {name}={_example(name)}")


def check_type(name: str, value: Any) -> None:
    """Raise UserError if a value has the wrong type. An int is accepted as a float."""
    types = _field_types(name)
    if type(value) in types:
        return
    if float in types and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_SEED:
        return
    if isinstance(value, bool) or not isinstance(value, types):
        raise UserError(f"{name}={shown(value)}: {_MISMATCH[types[0]]}; try {name}={_example(name)}")


def shown(value: Any) -> str:
    """Return a value for a message: its repr, shortened, in one line, also if its repr raises."""
    return " ".join(reprlib.repr(value).split())


_MAX_INT, _MAX_SEED = 10**9, 2**63 - 1  # PyTorch takes no larger seed
_PLUGIN = re.compile(r"\w+-[0-9a-f]{8}")
_MISMATCH = {int: "not a whole number", float: "not a number", str: "not a word", bool: "not yes or no"}
_BOOL_WORDS = {True: "yes", False: "no"}
_BOOLS = {word: value for value, word in _BOOL_WORDS.items()}


@cache
def _field_types(name: str) -> tuple[type, ...]:
    hint = _TYPES[name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _example(name: str) -> str:
    examples = {"d": "2,4,8", "alpha": "0.02", "d_discriminator": "8", "latents": "20000", "clip": "0.01"}
    examples |= {"beta": "1", "loss_features": "imagenet", "compile": "yes"}
    return examples.get(name, str(DEFAULTS.get(name) or "1"))


def _check_choice(name: str, value: Any, allowed: typing.Iterable[Any]) -> None:
    names = [str(a) for a in allowed]
    if str(value) not in names:
        raise UserError(f"{name}={value} is unknown; it is one of {', '.join(names)}")


def _digest(values: dict[str, Any]) -> str:
    # An int in a float field is written as a float, so that lr=1 and lr=1.0 have one signature.
    normalised = {k: float(v) if float in _field_types(k) and v is not None else v for k, v in values.items()}
    text = json.dumps(normalised, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""What an update and a score cost: timed on this machine, once, or computed from a table of throughputs."""

import dataclasses
import hashlib
import json
import math
import os
import platform
import statistics
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.arithmetic import update_macs
from trainables.errors import UserError
from trainables.files import read_json, write_json
from trainables.latents import latents
from trainables.objectives import Part
from trainables.scores.loading import FEATURES
from trainables.spec import TrialSpec

if TYPE_CHECKING:
    from trainables.step import Extras

TABLE = Path(__file__).with_name("throughputs.toml")
VERSION = 2  # of the file of timings
SECONDS = 0.3  # how long each of the three timings of one kind of trial takes, about
_COSTLY = ["d", "d_discriminator", "loss", "objective", "n_critic", "batch_size", "image_size", "channels"]
_COSTLY += ["precision", "threads", "compile", "family", "loss_features"]
COMPILE_SECONDS = 60.0  # assumed of a card that is not here


@dataclass(frozen=True)
class Cost:
    """Of one kind of trial. The spread is what repeated timings deviate by, as a part of the median."""

    seconds_per_update: float
    seconds_per_image: float  # to make it; its features are on top
    seconds_to_compile: float  # at each start of the trial: 0 unless spec.compile
    spread: float


class TimedCosts:
    """Costs timed with the real training loop on random images, kept in a file of this machine's cache."""

    def __init__(self, tell: Callable[[str], None], teacher: TrialSpec | None) -> None:
        """tell: is told what is being timed. teacher: the students' teacher."""
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
        self.where = f"{platform.node()}, {device}, torch {torch.__version__}"
        name = hashlib.sha256(self.where.encode()).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.file, self.tell, self.teacher = cache / "sweeper" / f"calibration-{VERSION}-{name}.json", tell, teacher
        self.known: dict[str, Any] = self._read()
        self.timed = 0

    @property
    def basis(self) -> str:
        return f"timed on {self.where}" + ("" if self.timed else ", earlier") + f" ({self.file})"

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """As if it were alone on its device: what neighbours cost is not timed."""
        facts = {name: getattr(spec, name) for name in _COSTLY} | {"ema": spec.ema > 0, "plugin": spec.plugin}
        if Part.TEACHER in spec.rule.loads and self.teacher is not None:
            facts["teacher"] = [self.teacher.generator.label, self.teacher.d_discriminator]
        key = json.dumps(facts, sort_keys=True)
        if key not in self.known:
            self.tell(f"timing {spec.label()}")
            self._keep(key, dataclasses.asdict(_time(spec, self.teacher)))
        return Cost(**self.known[key])

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        """Of one image of the spec's kind through the network that scores are computed on, as if alone."""
        key = f"features {features} {spec.image_size} {spec.channels}"
        if key not in self.known:
            self.tell(f"timing features {features}")
            self._keep(key, _time_features(features, spec))
        return float(self.known[key])

    def _read(self) -> dict[str, Any]:
        """What was timed before; a file that is not readable is timed anew."""
        try:
            return dict(read_json(self.file))
        except (OSError, ValueError, TypeError):
            return {"where": self.where}

    def _keep(self, key: str, value: Any) -> None:
        self.known[key], self.timed = value, self.timed + 1
        try:
            write_json(self.file, self.known)
        except OSError as error:
            self.tell(f"{self.file} is not kept ({error.strerror}): the next plan will time again")


class TableCosts:
    """Costs of a GPU that is not here, from a table of throughputs."""

    def __init__(self, gpu: str, table: Path, teacher: TrialSpec | None) -> None:
        """teacher: the students' teacher. Raises UserError for a file that is no table, or a GPU that is not in it."""
        try:
            cards = tomllib.loads(table.read_text())
            if gpu not in cards:
                raise UserError(
                    f"--gpu-type {gpu}: {table} has {', '.join(cards)}; add it to a copy, for --throughputs"
                )
            card = {name: float(cards[gpu][name]) for name in ("teraflops", "use", "milliseconds", "memory_gb")}
            if not all(0 < value < math.inf for value in card.values()):
                raise ValueError(f"[{gpu}] has a value that is not positive and finite")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"--throughputs {table}: {error}; see {TABLE} for one that works") from None
        self.teacher = teacher
        self.macs_per_second = card["teraflops"] * 1e12 / 2 * card["use"]
        self.least, self.memory = card["milliseconds"] / 1000, card["memory_gb"] * 1e9
        self.basis = f"computed from {table}'s line for {gpu}, not timed"

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """share: of the card, which is all that neighbours leave of its arithmetic."""
        rate = self.macs_per_second * share
        image = spec.generator.macs / rate
        compiling = COMPILE_SECONDS if spec.compile else 0.0
        return Cost(max(self.least, update_macs(spec, self.teacher) / rate), image, compiling, spread=2.0)

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        return FEATURES[features].macs / (self.macs_per_second * share)


def _time(spec: TrialSpec, teacher: TrialSpec | None) -> Cost:
    from trainables.bank import Bank
    from trainables.rendering import render
    from trainables.training import train

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (256, spec.channels, spec.image_size, spec.image_size), dtype=np.uint8)
    bank = Bank(Path(os.devnull), len(pixels), lambda z: pixels)  # no folder: it stays in memory
    spec = dataclasses.replace(spec, warmup=0)  # the adversary's phase: most of a joint student's updates

    def trained(rungs: list[int]) -> list[Any]:
        return list(train(spec, rungs, pixels=pixels, bank=bank, extras=_untrained_extras(spec, teacher)))

    first, second = trained([2, 4])
    compiling = max(0.0, first.seconds - second.seconds) if spec.compile else 0.0
    chunk = min(100, max(2, int(SECONDS / second.seconds * 2)))
    rungs = trained([2, 2 + chunk, 2 + 2 * chunk, 2 + 3 * chunk])
    updates = [rung.seconds / chunk for rung in rungs[1:]]
    z = latents("calibration", 0, 100)
    begun = time.monotonic()
    render(rungs[-1].generator, z)
    median = statistics.median(updates)
    return Cost(median, (time.monotonic() - begun) / len(z), compiling, (max(updates) - min(updates)) / median)


def _untrained_extras(spec: TrialSpec, teacher: TrialSpec | None) -> "Extras":
    """What the loss loads, with weights that do not matter."""
    import torch

    from trainables.networks import build
    from trainables.step import Extras, TeacherNetworks

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = None
    if Part.TEACHER in spec.rule.loads and teacher is not None and teacher.discriminator is not None:
        generator, discriminator = build(teacher.generator), build(teacher.discriminator)
        networks = TeacherNetworks(*(n.to(device).eval().requires_grad_(False) for n in (generator, discriminator)))
    if spec.loss_features is None:
        return Extras(networks)
    network = _untrained_features(spec.loss_features, spec.channels)
    return Extras(networks, network.map)


def _time_features(features: str, spec: TrialSpec) -> float:
    images = np.zeros((20, spec.channels, spec.image_size, spec.image_size), dtype=np.uint8)
    network = _untrained_features(features, spec.channels)
    network(images)
    begun = time.monotonic()
    network(images)
    return (time.monotonic() - begun) / len(images)


def _untrained_features(name: str, channels: int) -> Any:
    """A feature network that costs what the real one does: without a data set or a weights file, its weights are
    random."""
    from trainables.scores.classifier import Classifier, LeNet
    from trainables.scores.inception import RandomInception
    from trainables.scores.loading import load_features

    if name == "classifier":
        return Classifier(LeNet(channels, 10), channels, name, 0.0, 0.0)
    if name == "inception":
        return RandomInception()
    return load_features(name, None, Path())

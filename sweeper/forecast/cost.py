"""The cost of an update and of a score: timed once per machine, or computed from a table of throughputs."""

import dataclasses
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.forecast.cards import TABLE, read_cards
from trainables.arithmetic import update_macs
from trainables.errors import UserError
from trainables.files import read_json, write_json
from trainables.latents import latents
from trainables.objectives import Part
from trainables.scores.loading import FEATURES
from trainables.spec import TrialSpec

if TYPE_CHECKING:
    from trainables.step import Extras

VERSION = 2  # of the file of timings
SECONDS = 0.3  # approximate time of each of the three timings of a kind of trial
# Fields of the spec that affect the cost of an update.
_COSTLY = ["d", "d_discriminator", "loss", "objective", "n_critic", "batch_size", "image_size", "channels"]
_COSTLY += ["precision", "threads", "compile", "family", "loss_features"]
COMPILE_SECONDS = 60.0  # assumed, for a GPU of the table


@dataclass(frozen=True)
class Cost:
    """Cost of one kind of trial."""

    seconds_per_update: float
    seconds_per_image: float  # to generate it; without its features
    seconds_to_compile: float  # at each start of the trial: 0 unless spec.compile
    spread: float  # range of repeated timings, relative to their median


class TimedCosts:
    """Costs timed with the training loop on random images, and cached in a file per machine."""

    def __init__(self, report: Callable[[str], None], teacher: TrialSpec | None) -> None:
        """report: callback for messages to the user. teacher: the students' teacher."""
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
        self.machine = f"{platform.node()}, {device}, torch {torch.__version__}"
        name = hashlib.sha256(self.machine.encode()).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.file, self.report, self.teacher = cache / "sweeper" / f"calibration-{VERSION}-{name}.json", report, teacher
        self.timings: dict[str, Any] = self._read()
        self.new_timings = 0

    @property
    def basis(self) -> str:
        """Description of where the costs come from."""
        return f"timed on {self.machine}" + ("" if self.new_timings else ", earlier") + f" ({self.file})"

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """Return the cost of a trial alone on its device, whatever its share. Time it, unless it is cached."""
        facts = {name: getattr(spec, name) for name in _COSTLY} | {"ema": spec.ema > 0, "plugin": spec.plugin}
        if Part.TEACHER in spec.rule.loads and self.teacher is not None:
            facts["teacher"] = [self.teacher.generator.label, self.teacher.d_discriminator]
        key = json.dumps(facts, sort_keys=True)
        if key not in self.timings:
            self.report(f"timing {spec.label()}")
            self._save(key, dataclasses.asdict(_time_trial(spec, self.teacher)))
        return Cost(**self.timings[key])

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        """Return the seconds that a feature network takes for one image of the spec's size, alone on its device."""
        key = f"features {features} {spec.image_size} {spec.channels}"
        if key not in self.timings:
            self.report(f"timing features {features}")
            self._save(key, _time_features(features, spec))
        return float(self.timings[key])

    def _read(self) -> dict[str, Any]:
        """Read the cached timings. Ignore a file that is not readable: its timings are repeated."""
        try:
            return dict(read_json(self.file))
        except (OSError, ValueError, TypeError):
            return {"where": self.machine}

    def _save(self, key: str, value: Any) -> None:
        self.timings[key], self.new_timings = value, self.new_timings + 1
        try:
            write_json(self.file, self.timings)
        except OSError as error:
            self.report(f"{self.file} cannot be written ({error.strerror}): the next plan repeats the timings")


class TableCosts:
    """Costs on a GPU of a table of throughputs."""

    def __init__(self, gpu: str, table: Path, teacher: TrialSpec | None) -> None:
        """teacher: the students' teacher. Raises UserError for a wrong table, or a GPU that it lacks."""
        try:
            cards = read_cards(table)
            if gpu not in cards:
                raise UserError(f"--gpu-type {gpu}: {table} has {', '.join(cards)}; add it to a copy for --throughputs")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"--throughputs {table}: {error}; see {TABLE} for an example") from None
        self.teacher, self.card = teacher, cards[gpu]
        self.basis = f"computed from the entry {gpu} of {table}, not timed"

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """Return the cost of a trial that has `share` of the GPU's throughput."""
        rate = self.card.macs_per_second * share
        image = spec.generator.macs / rate
        compiling = COMPILE_SECONDS if spec.compile else 0.0
        return Cost(max(self.card.launch_seconds, update_macs(spec, self.teacher) / rate), image, compiling, spread=2.0)

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        """Return the seconds that a feature network takes for one image on `share` of the GPU."""
        return FEATURES[features].macs / (self.card.macs_per_second * share)


def _time_trial(spec: TrialSpec, teacher: TrialSpec | None) -> Cost:
    import torch

    from trainables import graphs
    from trainables.bank import Bank
    from trainables.rendering import render
    from trainables.training import train

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, spec.channels, spec.image_size, spec.image_size), dtype=np.uint8)
    bank = Bank(Path(os.devnull), len(pixels), lambda z: pixels)  # not a folder, so that the bank stays in memory
    spec = dataclasses.replace(
        spec, warmup=0
    )  # time the adversarial phase, which most updates of a joint student are in

    def trained(rungs: list[int]) -> list[Any]:
        return list(train(spec, rungs, pixels=pixels, bank=bank, extras=_untrained_extras(spec, teacher)))

    warm = 2 + (graphs.WARM_UP if torch.cuda.is_available() else 0)  # a GPU captures its graph on the way
    first, second = trained([warm, warm + 2])
    compiling = max(0.0, first.seconds - second.seconds) if spec.compile else 0.0
    chunk = min(100, max(2, int(SECONDS / second.seconds * 2)))
    rungs = trained([warm + number * chunk for number in range(4)])
    updates = [rung.seconds / chunk for rung in rungs[1:]]
    z = latents("calibration", 0, 100)
    if torch.cuda.is_available():
        render(rungs[-1].generator, z)  # the first call loads kernels
    start = time.monotonic()
    render(rungs[-1].generator, z)
    median = statistics.median(updates)
    return Cost(median, (time.monotonic() - start) / len(z), compiling, (max(updates) - min(updates)) / median)


def _untrained_extras(spec: TrialSpec, teacher: TrialSpec | None) -> "Extras":
    """Return the networks that the loss needs, with random weights: weights do not affect the cost."""
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
    start = time.monotonic()
    network(images)
    return (time.monotonic() - start) / len(images)


def _untrained_features(name: str, channels: int) -> Any:
    """Return a feature network with random weights. It costs the same, and needs no data set and no weights file."""
    from trainables.scores.classifier import Classifier, LeNet
    from trainables.scores.inception import RandomInception
    from trainables.scores.loading import load_features

    if name == "classifier":
        return Classifier(LeNet(channels, 10), channels, name, 0.0, 0.0)
    if name == "inception":
        return RandomInception()
    return load_features(name, None, Path())

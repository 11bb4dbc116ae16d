"""Timings of one kind of trial, and of one feature network, on this machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.latents import latents
from trainables.objectives import Part
from trainables.spec import TrialSpec
from trainables.teacher_images import TeacherImages

if TYPE_CHECKING:
    from trainables.step import Extras
    from trainables.training import Rung

SECONDS = 0.3  # approximate time of each timing of a kind of trial
SLOW = 5.0  # seconds of an update that is timed alone


@dataclass(frozen=True)
class Cost:
    """Cost of one kind of trial."""

    seconds_per_update: float
    seconds_per_image: float  # to generate it; without its features
    seconds_to_compile: float  # at each start of the trial: 0 unless spec.compile
    spread: float  # range of repeated timings, relative to their median; 0 of a single timing


def time_trial(spec: TrialSpec, teacher: TrialSpec | None) -> Cost:
    """Time a few updates of the training loop on random images, and the generation of images.

    teacher: the students' teacher.
    """
    import torch

    from trainables import graphs
    from trainables.bank import Bank
    from trainables.rendering import render
    from trainables.training import train

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, spec.channels, spec.image_size, spec.image_size), dtype=np.uint8)
    bank = Bank(None, len(pixels), TeacherImages(lambda z: pixels, spec.law))
    # Time the adversarial phase, which most updates of a joint student are in.
    spec = dataclasses.replace(spec, warmup=0)

    def train_to(rungs: list[int]) -> Iterator[Rung]:
        return train(spec, rungs, pixels=pixels, bank=bank, extras=_untrained_extras(spec, teacher))

    # The first update warms up, unless it is so slow that this does not matter. The rungs of `train` are lazy.
    seconds: list[float] = []
    for rung in train_to([1, 2, 3, 4]):
        seconds.append(rung.seconds)
        slow = seconds[0] > SLOW and not spec.compile  # compiling is part of the first update
        if slow or sum(seconds[1:]) > SECONDS:
            break
    compiling = max(0.0, seconds[0] - seconds[-1]) if spec.compile else 0.0
    updates = seconds[1:] or seconds
    if (chunk := min(100, int(SECONDS / statistics.median(updates)))) > 1:
        warm = 2 + (graphs.WARM_UP if torch.cuda.is_available() else 0)  # a GPU captures its graph after these
        rungs = list(train_to([warm + number * chunk for number in range(4)]))
        rung, updates = rungs[-1], [each.seconds / chunk for each in rungs[1:]]
    median = statistics.median(updates)
    image = _seconds_each(lambda n: render(rung.generator, latents("calibration", 0, n, spec.law)), many=100)
    return Cost(median, image, compiling, (max(updates) - min(updates)) / median)


def time_features(features: str, spec: TrialSpec) -> float:
    """Return the seconds of a feature network for one image, in exact float32 as in a score."""
    network = _untrained_features(features, spec.channels)
    shape = (spec.channels, spec.image_size, spec.image_size)
    return _seconds_each(lambda n: network(np.zeros((n, *shape), dtype=np.uint8)), many=50)


def time_teacher(images: TeacherImages) -> float:
    """Return the seconds of an added teacher for one image."""
    return _seconds_each(lambda n: images.images("calibration", 0, n), many=100)


def _seconds_each(call: Callable[[int], object], many: int) -> float:
    """Return the seconds per item of call(number of items). Each timed call follows an equal call that warms up."""
    for n in (4, many):
        call(n)
        start = time.monotonic()
        call(n)
        seconds = time.monotonic() - start
        if seconds > SECONDS:
            break
    return seconds / n


def _untrained_extras(spec: TrialSpec, teacher: TrialSpec | None) -> Extras:
    """Return the networks that the loss needs, with random weights: weights do not affect the cost."""
    import torch

    from trainables.networks import build
    from trainables.step import Extras, TeacherNetworks

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = None
    if Part.TEACHER in spec.loads and teacher is not None and teacher.discriminator is not None:
        generator, discriminator = build(teacher.generator), build(teacher.discriminator)
        networks = TeacherNetworks(*(n.to(device).eval().requires_grad_(False) for n in (generator, discriminator)))
    if spec.loss_features is None:
        return Extras(networks)
    network = _untrained_features(spec.loss_features, spec.channels)
    return Extras(networks, network.map)


def _untrained_features(name: str, channels: int) -> Any:
    """Return a feature network with random weights. It costs the same, and needs no data set and no weights file."""
    from trainables.scores.classifier import Classifier, LeNet
    from trainables.scores.inception import RandomInception
    from trainables.scores.loading import load_features

    if name == "classifier":
        return Classifier(LeNet(channels, 10), channels, name, 0.0, 0.0, 0.0)
    if name == "inception":
        return RandomInception()
    return load_features(name, None, Path())

"""The cost of an update and of a score: timed once per machine, or computed from a table of throughputs."""

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.execution import mps
from sweeper.execution.resources import slowdown
from sweeper.forecast import timing
from sweeper.forecast.cards import TABLE, read_cards
from sweeper.forecast.timing import Cost
from trainables.arithmetic import update_launches, update_macs
from trainables.errors import UserError
from trainables.files import write_json
from trainables.objectives import Part
from trainables.reading import read_record
from trainables.scores.loading import FEATURES
from trainables.spec import TrialSpec
from trainables.teacher_images import TeacherImages

VERSION = 3  # of the file of timings
BUDGET = 60.0  # seconds that the timings of one plan take, approximately
MACS_PER_SECOND = 2e10  # assumed of a CPU thread where nothing is timed yet; a wide network reaches about twice that
# Fields of the spec that affect the cost of an update.
_WIDTHS = ["d", "d_discriminator"]
_COSTLY = ["loss", "objective", "n_critic", "batch_size", "image_size", "channels"]
_COSTLY += ["precision", "threads", "compile", "family", "loss_features"]
COMPILE_SECONDS = 60.0  # assumed, for a GPU of the table


def extrapolate(points: Iterable[tuple[float, float]], rate: float, macs: float) -> float:
    """Return seconds at `macs`, which never decrease with it.

    points: (multiply-accumulates, seconds) of timings. Between two points the seconds are interpolated. Beyond the
    last one each multiply-accumulate takes 1 / rate. Below the first one launches dominate: the seconds stay.
    """
    ordered = sorted(points)
    xs = [x for x, _ in ordered]
    ys = list(accumulate((y for _, y in ordered), max))
    beyond = max(0.0, macs - xs[-1]) / rate
    return float(np.interp(macs, xs, ys)) + beyond


def _rate(points: Iterable[tuple[float, float]]) -> float:
    """Return the highest timed throughput, in multiply-accumulates per second: wide networks come near it."""
    return max(macs / seconds for macs, seconds in points)


def _group(spec: TrialSpec) -> str:
    """Return the kind of loss: trials that differ in their widths alone have the same."""
    return json.dumps([getattr(spec, name) for name in _COSTLY])


class TimedCosts:
    """Costs timed with the training loop on random images, and cached in a file per machine.

    `calibrate` times narrow kinds first, for BUDGET seconds. Costs of the other kinds are extrapolated.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        teacher: TrialSpec | None,
        *,
        time_trial: Callable[[TrialSpec, TrialSpec | None], Cost] = timing.time_trial,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """report: callback for messages to the user. teacher: the students' teacher."""
        import torch

        self.has_gpu = torch.cuda.is_available()
        device = torch.cuda.get_device_name() if self.has_gpu else platform.processor() or "cpu"
        self.machine = f"{platform.node()}, {device}, torch {torch.__version__}"
        name = hashlib.sha256(self.machine.encode()).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.file, self.report, self.teacher = cache / "sweeper" / f"calibration-{VERSION}-{name}.json", report, teacher
        self.timings: dict[str, Any] = self._read()
        self.new_timings = 0
        self._time_trial, self._clock, self._seconds = time_trial, clock, 0.0
        self._kinds: dict[str, TrialSpec] = {}  # of the plan, by cache key
        self._stand_ins: dict[str, TrialSpec] = {}  # timed

    @property
    def extrapolated(self) -> int:
        """Number of kinds of trials whose cost is extrapolated."""
        return sum(key not in self.timings for key in self._kinds)

    @property
    def basis(self) -> str:
        """Description of where the costs come from."""
        timed = f"timed on {self.machine}" + ("" if self.new_timings else ", earlier") + f" ({self.file})"
        if not self.extrapolated:
            return timed
        return (
            f"{timed}; {self.extrapolated} of {len(self._kinds)} kinds of trials extrapolated by "
            "multiply-accumulates per second"
        )

    def calibrate(self, specs: Iterable[TrialSpec]) -> None:
        """Time kinds of trials in ascending order of multiply-accumulates, the first two of each loss first."""
        self._kinds |= {self._key(spec): spec for spec in specs}
        kinds = sorted(self._kinds.values(), key=self._macs)
        of_loss: dict[str, int] = {}
        order: list[tuple[bool, float, str]] = []
        for spec in kinds:
            loss = _group(spec)
            of_loss[loss] = of_loss.get(loss, 0) + 1
            order.append((of_loss[loss] > 2, self._macs(spec), self._key(spec)))
        if kinds and not self._timed():
            # At least one timing: of a narrower stand-in, if the narrowest kind itself is too wide for the budget.
            spec = kinds[0]
            while spec.d > 1 and self._timing_seconds(spec) > BUDGET - self._seconds:
                half = spec.d_discriminator and max(1, spec.d_discriminator // 2)
                spec = dataclasses.replace(spec, d=spec.d // 2, d_discriminator=half)
            self._time(spec)
        for *_, key in sorted(order):
            if key not in self.timings and self._timing_seconds(self._kinds[key]) <= BUDGET - self._seconds:
                self._time(self._kinds[key])

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """Return the cost of a trial. share: of a GPU, beside trials of equal shares, or CPUs."""
        key = self._key(spec)
        if key not in self._kinds and key not in self.timings:
            self.calibrate([spec])
        if key in self.timings:
            return self._beside(Cost(**self.timings[key]), share)
        timed = self._timed()
        alike = [pair for pair in timed if _group(pair[0]) == _group(spec)] or timed
        alone = Cost(
            seconds_per_update=self._seconds_per_update(spec),
            seconds_per_image=self.seconds_per_image(spec, share),
            seconds_to_compile=max(cost.seconds_to_compile for _, cost in alike) if spec.compile else 0.0,
            spread=max(cost.spread for _, cost in alike),
        )
        return self._beside(alone, share)

    def _beside(self, alone: Cost, share: float) -> Cost:
        if not self.has_gpu:
            return alone
        slower = slowdown(share) if mps.is_installed() else 1 / share
        return dataclasses.replace(alone, seconds_per_update=alone.seconds_per_update * slower)

    def seconds_per_image(self, spec: TrialSpec, share: float) -> float:
        """Return the seconds that the generator takes for one image, alone on its device."""
        if (key := self._key(spec)) in self.timings:
            return Cost(**self.timings[key]).seconds_per_image
        points = [(float(other.generator.macs), cost.seconds_per_image) for other, cost in self._timed()]
        return extrapolate(points, _rate(points), spec.generator.macs)

    def seconds_per_teacher_image(self, name: str, images: TeacherImages) -> float:
        """Return the seconds that an added teacher takes for one image, alone on its device. name: its id and hash."""
        key = f"teacher {name}"
        if key not in self.timings:
            self.report("timing the teacher")
            self._save(key, timing.time_teacher(images))
        return float(self.timings[key])

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        """Return the seconds that a feature network takes for one image of the spec's size, alone on its device."""
        key = f"features {features} {spec.image_size} {spec.channels}"
        if key not in self.timings:
            self.report(f"timing features {features}")
            start = self._clock()
            self._save(key, timing.time_features(features, spec))
            self._seconds += self._clock() - start
        return float(self.timings[key])

    def _seconds_per_update(self, spec: TrialSpec) -> float:
        points = [(_group(other), (self._macs(other), cost.seconds_per_update)) for other, cost in self._timed()]
        alike = [point for group, point in points if group == _group(spec)]
        every = [point for _, point in points]
        return extrapolate(alike or every, _rate(every), self._macs(spec))

    def _timing_seconds(self, spec: TrialSpec) -> float:
        """Return the expected time of timing a kind: two updates, or short repeats of a fast one."""
        # Timings of other losses say little: the throughput of a small network is a fraction of that of a large one.
        timed = any(_group(other) == _group(spec) for other, _ in self._timed())
        update = self._seconds_per_update(spec) if timed else self._macs(spec) / MACS_PER_SECOND
        return 2.5 * update + 4 * timing.SECONDS

    def _time(self, spec: TrialSpec) -> None:
        self.report(f"timing {spec.label()}")
        start, key = self._clock(), self._key(spec)
        cost = self._time_trial(spec, self.teacher)
        self._seconds += self._clock() - start
        self._stand_ins |= {key: spec}
        self._save(key, dataclasses.asdict(cost))

    def _timed(self) -> list[tuple[TrialSpec, Cost]]:
        every = (self._kinds | self._stand_ins).items()
        return [(spec, Cost(**self.timings[key])) for key, spec in every if key in self.timings]

    def _macs(self, spec: TrialSpec) -> float:
        return update_macs(spec, self.teacher)

    def _key(self, spec: TrialSpec) -> str:
        facts = {name: getattr(spec, name) for name in [*_WIDTHS, *_COSTLY]}
        facts |= {"ema": spec.ema > 0, "plugin": spec.plugin}
        if Part.TEACHER in spec.loads and self.teacher is not None:
            facts["teacher"] = [self.teacher.generator.label, self.teacher.d_discriminator]
        return json.dumps(facts, sort_keys=True)

    def _read(self) -> dict[str, Any]:
        """Read the cached timings. Ignore a file that is not readable: its timings are repeated."""
        try:
            return read_record(self.file, dict[str, Any]) or {"where": self.machine}
        except UserError:
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
        self.teacher, self.card, self.extrapolated = teacher, cards[gpu], 0
        self.basis = f"computed from the entry {gpu} of {table}, not timed"

    def cost(self, spec: TrialSpec, share: float) -> Cost:
        """Return the cost of a trial that has `share` of the GPU's throughput, beside others that launch kernels."""
        arithmetic = update_macs(spec, self.teacher) / (self.card.macs_per_second * share)
        launching = update_launches(spec) * self.card.seconds_per_launch * slowdown(share)
        compiling = COMPILE_SECONDS if spec.compile else 0.0
        return Cost(max(launching, arithmetic), self.seconds_per_image(spec, share), compiling, spread=2.0)

    def calibrate(self, specs: Iterable[TrialSpec]) -> None:
        """Nothing is timed."""

    def seconds_per_image(self, spec: TrialSpec, share: float) -> float:
        """Return the seconds that the generator takes for one image on `share` of the GPU."""
        return spec.generator.macs / (self.card.macs_per_second * share)

    def seconds_per_feature(self, features: str, spec: TrialSpec, share: float) -> float:
        """Return the seconds that a feature network takes for one image on `share` of the GPU."""
        return FEATURES[features].macs / (self.card.macs_per_second * share)

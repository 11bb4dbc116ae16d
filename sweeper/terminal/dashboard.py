"""Draw a sweep in a terminal: trials per state, the best of each shape and its control, the rungs, running trials.

The data are the store's records, and the live state of the command that trains (`Live`).
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.records import AddedTeacher
from sweeper.results.comparison import rung_of
from sweeper.scheduling.selection import control_sweep, controls_of
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from trainables.reading import STRICT, Line, Name, Seconds, read_record
from trainables.shapes import DEFAULT_FAMILY, GeneratorShape

MAX_LINES = 4  # of running trials, and of failures


@dataclass(frozen=True)
class Live:
    """The live state of the command that trains, which the records do not hold."""

    driver: str | None = None  # the command, as in Store.driver
    running: dict[Name, Seconds] = field(default_factory=dict)  # signature → Unix time at which its job started
    updates: dict[Name, int] = field(default_factory=dict)  # signature → updates done, of trials that have begun
    used: float = 0.0  # in units
    capacity: float = 0.0
    unit: Line = "slots"
    seconds_left: Seconds | None = None
    failures: tuple[str, ...] = ()  # the latest, one line each
    __pydantic_config__ = STRICT

    @classmethod
    def read(cls, store: Store, name: str) -> "Live":
        """Read the state that the command now holding the store saved. Ignore that of an earlier command."""
        driver, live = store.driver(), read_record(store.live(name), cls)
        return live if driver is not None and live is not None and live.driver == driver else cls()

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Baselines:
    """FID on the rung latents of the finished trials that students are compared with."""

    controls: dict[GeneratorShape, dict[int, float]]  # shape → updates → FID
    teacher: tuple[str, float] | None  # name of its shape, or of an added teacher; FID

    @classmethod
    def of(cls, sweep: Sweep, store: Store) -> "Baselines":
        """Return a student sweep's baselines. They are empty for a teacher sweep, and if the rung protocols differ."""
        pinned, protocol = sweep.manifest.teacher, sweep.manifest.protocols["rung"]
        if pinned is None:
            return cls({}, None)
        known = store.taught_by(pinned)
        if isinstance(known, AddedTeacher):
            rungs = [scores.rung["fid"] for scores in known.scores]
            name, fids = known.name, [fid["mean"] for fid in rungs if fid["protocol"] == protocol]
        else:
            rung = store.require(pinned.signature).rung(pinned.updates, protocol)
            name, fids = known.generator.label, [rung.scores["fid"]["mean"]] if rung and rung.scores else []
        teacher = (name, fids[0]) if fids else None
        teachers = control_sweep(store, sweep.manifest)
        if teachers is None or teachers.protocols["rung"] != protocol:
            return cls({}, teacher)
        controls = controls_of(store, teachers, sweep.manifest)
        chosen = {shape: trials[0] for shape in controls.strata if (trials := controls.best(shape))}
        return cls({shape: _fids(controls, trial) for shape, trial in chosen.items()}, teacher)


def _fids(sweep: Sweep, trial: str) -> dict[int, float]:
    """Return updates → FID of a trial."""
    rungs = {updates: rung_of(sweep, trial, updates) for updates in sweep.manifest.rungs}
    return {updates: r.scores["fid"]["mean"] for updates, r in rungs.items() if r and r.scores}


def draw(sweep: Sweep, baselines: Baselines, live: Live) -> RenderableType:
    """Return the whole view."""
    parts: list[RenderableType] = [_states(sweep, baselines, live), _rung_counts(sweep)]
    if baselines.teacher:
        name, fid = baselines.teacher
        parts.append(Text(f"the teacher, {name}: FID {fid:.2f}"))
    if live.capacity:
        parts.append(Text(f"{live.used:g} of {live.capacity:g} {live.unit} in use; {time_left(live.seconds_left)}"))
    now = time.time()
    running = sorted((s for s in live.running if s in sweep.records), key=live.running.__getitem__)
    parts += _first_lines(list(reversed(live.failures)), "red")  # first: a small window cuts off the end
    lines = [f"{sweep.records[s].spec.label()} ({now - live.running[s]:.0f} s{_done(live, s)})" for s in running]
    parts += _first_lines(lines, "cyan")
    return Group(*parts)


def _done(live: Live, signature: str) -> str:
    return f", {live.updates[signature]:,} updates" if signature in live.updates else ""


def _first_lines(lines: Sequence[str], style: str) -> list[Text]:
    more = ["and more"] if len(lines) > MAX_LINES else []
    return [Text(line, style=style, overflow="ellipsis", no_wrap=True) for line in [*lines[:MAX_LINES], *more]]


def _states(sweep: Sweep, baselines: Baselines, live: Live) -> Table:
    """Return a table with a row per shape. States without trials are left out."""
    states = sweep.states() | dict.fromkeys(live.running, State.RUNNING)
    present = [state for state in State if state in set(states.values())]
    table = Table(title=sweep.manifest.name, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    control = ["control's FID"] if baselines.controls else []
    for heading in ("d", *present, "best FID", "IS", "at", *control):
        table.add_column(heading, justify="right")
    for shape, stratum in sweep.strata.items():
        fresh = sweep.confirmations[shape].configurations if shape in sweep.confirmations else ()
        trials = [*chain(*stratum.configurations.values()), *fresh]
        counts = Counter(states.get(trial, State.WAITING) for trial in trials)  # a fresh seed may have just been added
        leader = sweep.leader(shape)
        scores = [f"{leader.scores[n]['mean']:.2f}" if leader and n in leader.scores else "—" for n in ("fid", "is")]
        cells = [_size(shape), *(str(counts[state] or "·") for state in present), *scores]
        cells.append(f"{leader.updates:,}" if leader else "—")
        if control:
            control_fid = baselines.controls.get(shape, {}).get(leader.updates) if leader else None
            beaten = control_fid is not None and leader is not None and leader.scores["fid"]["mean"] < control_fid
            text = f"{control_fid:.2f}" if control_fid is not None else "—"
            cells.append(f"[green]{text} beaten[/green]" if beaten else text)
        table.add_row(*cells)
    return table


def _size(shape: GeneratorShape) -> str:
    return str(shape.d) if shape.family == DEFAULT_FAMILY else f"{shape.family} {shape.d}"


def _rung_counts(sweep: Sweep) -> Text:
    """Return a line with the configurations scored at each rung, out of those expected there."""
    reached, expected = Counter[int](), Counter[int]()
    for stratum in sweep.strata.values():
        for number, (scored, unknown) in enumerate(zip(stratum.reported(), stratum.unreported(), strict=True)):
            reached[number] += scored
            expected[number] += scored + unknown
    steps = [f"{updates:,}: {reached[n]}/{expected[n]}" for n, updates in enumerate(sweep.manifest.rungs)]
    text = "rungs (updates: configurations)  " + "  ".join(steps)
    if sweep.manifest.confirm:
        done = sum(sum(stratum.reported()) for stratum in sweep.confirmations.values())
        text += f"  fresh seeds: {done}/{done + sum(map(sweep.fresh_left, sweep.strata))}"
    return Text(text)


def time_left(seconds: float | None) -> str:
    """Return the time left in words. None: not known yet."""
    if seconds is None:
        return "time left: not known yet"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"

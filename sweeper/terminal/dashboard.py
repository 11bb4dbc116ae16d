"""A sweep in a terminal: trials per state, the best of each d beside its control, the rungs, what is running.

Drawn from the store's records, and from what the command that trains says of the moment (`Live`).
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.results.comparison import rung_of
from sweeper.scheduling.selection import best, controls_of
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from trainables.shapes import DEFAULT_FAMILY, GeneratorShape

SHOWN = 4  # running trials and failures that are named


@dataclass(frozen=True)
class Live:
    """What only the command that trains knows."""

    driver: str | None = None  # who says it, as in Store.driver
    running: dict[str, float] = field(default_factory=dict)  # signature → Unix time when its job began
    used: float = 0.0  # slots, or GPUs
    capacity: float = 0.0
    unit: str = "slots"
    seconds_left: float | None = None
    failures: tuple[str, ...] = ()  # the last ones, one line each

    @classmethod
    def read(cls, store: Store, name: str) -> "Live":
        """Of the command that drives the store; what another one left behind does not count."""
        driver, record = store.driver(), store.live(name)
        if driver is None or record is None or record["driver"] != driver:
            return cls()
        return cls(**{**record, "failures": tuple(record["failures"])})

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Baselines:
    """What a student is measured against: FID by the rung's latents, of trials that have finished."""

    controls: dict[GeneratorShape, dict[int, float]]  # shape → updates → FID
    teacher: tuple[GeneratorShape, float] | None  # shape, FID

    @classmethod
    def of(cls, sweep: Sweep, store: Store) -> "Baselines":
        """Of a student sweep, where its rungs are scored like the teachers'; a teacher sweep has none."""
        pinned = sweep.manifest.teacher
        teachers = store.sweep(pinned.sweep) if pinned else None
        if pinned is None or teachers is None or teachers.protocols["rung"] != sweep.manifest.protocols["rung"]:
            return cls({}, None)
        controls, record = controls_of(store, teachers, sweep.manifest), store.require(pinned.signature)
        chosen = {shape: trials[0] for shape in controls.strata if (trials := best(controls, shape))}
        found = {shape: _fids(controls, trial) for shape, trial in chosen.items()}
        rung = record.rung(pinned.updates, teachers.protocols["rung"])
        return cls(found, (record.spec.generator, rung.scores["fid"]["mean"]) if rung and rung.scores else None)


def _fids(sweep: Sweep, trial: str) -> dict[int, float]:
    rungs = {updates: rung_of(sweep, trial, updates) for updates in sweep.manifest.rungs}
    return {updates: r.scores["fid"]["mean"] for updates, r in rungs.items() if r and r.scores}


def draw(sweep: Sweep, baselines: Baselines, live: Live) -> RenderableType:
    """The whole view."""
    parts: list[RenderableType] = [_states(sweep, baselines, live), _ladder(sweep)]
    if baselines.teacher:
        shape, fid = baselines.teacher
        parts.append(Text(f"the teacher, {shape.label}: FID {fid:.2f}"))
    if live.capacity:
        parts.append(Text(f"{live.used:g} of {live.capacity:g} {live.unit} in use; {time_left(live.seconds_left)}"))
    now = time.time()
    names = sorted((s for s in live.running if s in sweep.records), key=live.running.__getitem__)
    parts += _few(list(reversed(live.failures)), "red")  # before what may be cut off by the window's end
    parts += _few([f"{sweep.records[s].spec.label()} ({now - live.running[s]:.0f} s)" for s in names], "cyan")
    return Group(*parts)


def _few(lines: Sequence[str], style: str) -> list[Text]:
    more = ["and more"] if len(lines) > SHOWN else []
    return [Text(line, style=style, overflow="ellipsis", no_wrap=True) for line in [*lines[:SHOWN], *more]]


def _states(sweep: Sweep, baselines: Baselines, live: Live) -> Table:
    """A line per d; states that no trial is in are left out."""
    states = sweep.states() | dict.fromkeys(live.running, State.RUNNING)
    present = [state for state in State if state in set(states.values())]
    table = Table(title=sweep.manifest.name, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    control = ["control's FID there"] if baselines.controls else []
    for heading in ("d", *present, "best FID", "IS", "at", *control):
        table.add_column(heading, justify="right")
    for shape, stratum in sweep.strata.items():
        counts = Counter(states[trial] for trials in stratum.configurations.values() for trial in trials)
        leader = sweep.leader(shape)
        scores = [f"{leader.scores[n]['mean']:.2f}" if leader and n in leader.scores else "—" for n in ("fid", "is")]
        cells = [_size(shape), *(str(counts[state] or "·") for state in present), *scores]
        cells.append(f"{leader.updates:,}" if leader else "—")
        if control:
            theirs = baselines.controls.get(shape, {}).get(leader.updates) if leader else None
            beaten = theirs is not None and leader is not None and leader.scores["fid"]["mean"] < theirs
            shown = f"{theirs:.2f}" if theirs is not None else "—"
            cells.append(f"[green]{shown} beaten[/green]" if beaten else shown)
        table.add_row(*cells)
    return table


def _size(shape: GeneratorShape) -> str:
    return str(shape.d) if shape.family == DEFAULT_FAMILY else f"{shape.family} {shape.d}"


def _ladder(sweep: Sweep) -> Text:
    """How many configurations have their scores at each rung, of how many that are to come there."""
    reached, expected = Counter[int](), Counter[int]()
    for stratum in sweep.strata.values():
        for number, (scored, unknown) in enumerate(zip(stratum.reported(), stratum.unreported(), strict=True)):
            reached[number] += scored
            expected[number] += scored + unknown
    steps = [f"{updates:,}: {reached[n]}/{expected[n]}" for n, updates in enumerate(sweep.manifest.rungs)]
    return Text("rungs (updates: configurations)  " + "  ".join(steps))


def time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left: not known yet"
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"

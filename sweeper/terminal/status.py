"""Print the state of a store: its sweeps, one trial's rungs, or the sweep that is running."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

from rich.console import Console
from rich.live import Live as Screen
from rich.markup import escape

from sweeper.records import Manifest, TrialRecord
from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Store
from sweeper.terminal.dashboard import Baselines, Live, draw
from trainables.errors import MissingPluginError, UserError

SECONDS = 2.0  # between two reads of the store


def show(store: Store) -> None:
    """Print the sweeps and the states of their trials on stdout."""
    print_line = Console(highlight=False, soft_wrap=True).print
    manifests = store.sweeps()
    for manifest in manifests:
        try:
            sweep = Sweep.read(manifest, store)
        except MissingPluginError as error:
            print_line(f"[bold]{manifest.name}[/bold]: {len(manifest.members)} trials; {escape(str(error))}")
            continue
        live = Live.read(store, manifest.name)
        counts = Counter((sweep.states() | dict.fromkeys(live.running, State.RUNNING)).values())
        states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
        print_line(f"[bold]{manifest.name}[/bold]: {len(sweep.records)} trials, {states}")
        if not sweep.finished() and not live.running:
            print_line(f"  continue with `{escape(manifest.command)}`")
    added = store.teachers.all()
    for teacher in added:
        print_line(f"[bold]{teacher.name}[/bold]: an added teacher, for `--teacher {teacher.name}`")
    if not manifests and not added:
        print_line(escape(f"{store.root} holds no sweep yet; start one with `sweeper run teachers --dataset mnist5k`"))


def watch(store: Store, looks: int | None = None) -> None:
    """Draw the latest sweep until its command ends or Ctrl-C: in place in a terminal, one below the other elsewhere.

    looks: the largest number of drawings; None for no limit.
    """
    console = Console(highlight=False)
    reader = _Reader(store)
    with Screen(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as screen:
        while True:
            start = time.monotonic()
            sweep = reader.sweep()
            drawn = draw(sweep, reader.baselines(sweep), Live.read(store, sweep.manifest.name))
            if screen:
                screen.update(drawn, refresh=True)
            else:
                console.print(drawn)
            looks = None if looks is None else looks - 1
            if looks == 0 or not store.driver():
                break
            time.sleep(max(SECONDS, 3 * (time.monotonic() - start)))
    if not store.driver():
        console.print(escape(f"no sweep is running in {store.root}" + _how_to_continue(sweep)), soft_wrap=True)


def _how_to_continue(sweep: Sweep) -> str:
    return "" if sweep.finished() else f"; continue {sweep.manifest.name} with `{sweep.manifest.command}`"


class _Reader:
    """Reads the latest sweep repeatedly, and only the records that changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._records: dict[str, tuple[int, TrialRecord]] = {}
        self._baselines: tuple[str, Baselines] | None = None

    def sweep(self) -> Sweep:
        """Return the latest sweep. Raises UserError if there is none."""
        manifest = self.store.latest()
        if manifest is None:
            raise UserError(f"{self.store.root} holds no sweep yet; start one with `sweeper run teachers`")
        for signature in manifest.signatures:
            changed = self.store.modified(signature)
            if self._records.get(signature, (None,))[0] != changed:
                self._records[signature] = changed, self.store.require(signature)
        records = {signature: self._records[signature][1] for signature in manifest.signatures}
        return Sweep(manifest, records, find=self.store.trial)

    def baselines(self, sweep: Sweep) -> Baselines:
        """Return the sweep's baselines. They are final, so they are read once."""
        if self._baselines is None or self._baselines[0] != sweep.manifest.name:
            self._baselines = sweep.manifest.name, Baselines.of(sweep, self.store)
        return self._baselines[1]


def show_trial(store: Store, signature: str) -> None:
    """Print a trial's rungs in every sweep that has it.

    signature: its signature or the beginning of it. Raises UserError unless it matches one trial.
    """
    print_line = Console(highlight=False, soft_wrap=True).print
    matches = {(m.name, s): m for m in store.sweeps() for s in m.members if s.startswith(signature)}
    signatures = sorted({s for _, s in matches})
    if len(signatures) != 1:
        trials = ", ".join(signatures) or "no trial of any sweep"
        raise UserError(f"--trial {signature} matches {trials}; give one signature")
    for (_, match), manifest in matches.items():
        _show_in(Sweep.read(manifest, store), manifest, match, print_line)


def _show_in(sweep: Sweep, manifest: Manifest, signature: str, print_line: Callable[[str], None]) -> None:
    record = sweep.records.get(signature)
    if record is None:
        print_line(f"[bold]{signature}[/bold]: a fresh seed of a configuration that is no longer selected")
        return
    print_line(f"[bold]{signature}[/bold] {record.spec.label()}: {sweep.states()[signature]} in {manifest.name}")
    confirms = signature in manifest.confirming
    if confirms:
        print_line("  trains the selected configuration again, with a fresh seed")
    places = [] if confirms else sweep.strata[record.spec.generator].ranks(signature)
    for number, updates in enumerate(manifest.rungs):
        rung = record.rung(updates, manifest.protocols["rung"])
        if rung is None:
            continue
        if rung.diverged:
            print_line(f"  at {updates} updates diverged")
            continue
        line = f"  at {updates} updates FID {rung.scores['fid']['mean']:.2f}"
        if number < len(places):
            place, ranked, continuing = places[number]
            cut = f"; the best {continuing} continue" if continuing else ""
            line += f": place {place} of {ranked} ranked configurations of {record.spec.generator.label}{cut}"
        print_line(line)

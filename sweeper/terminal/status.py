"""What a store holds: its sweeps and how far they are; one trial's way through the rungs; the sweep that runs now."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

from rich.console import Console
from rich.live import Live as Screen

from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import Manifest, Store, TrialRecord
from sweeper.terminal.dashboard import Baselines, Live, draw
from trainables.errors import MissingPluginError, UserError

SECONDS = 2.0  # between two looks at the store


def show(store: Store) -> None:
    """Print the sweeps, on stdout."""
    print_line = Console(highlight=False, soft_wrap=True).print
    manifests = store.sweeps()
    for manifest in manifests:
        try:
            sweep = Sweep.read(manifest, store)
        except MissingPluginError as error:
            print_line(f"[bold]{manifest.name}[/bold]: {len(manifest.signatures)} trials; {error}")
            continue
        live = Live.read(store, manifest.name)
        counts = Counter((sweep.states() | dict.fromkeys(live.running, State.RUNNING)).values())
        shown = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
        print_line(f"[bold]{manifest.name}[/bold]: {len(manifest.signatures)} trials, {shown}")
        if not sweep.finished() and not live.running:
            print_line(f"  goes on with `{manifest.command}`")
    if not manifests:
        print_line(f"{store.root} holds no sweep yet; start one with `sweeper run teachers --dataset mnist5k`")


def watch(store: Store, looks: int | None = None) -> None:
    """Draw the sweep that a command trains, in place, until it ends or Ctrl-C; where there is no terminal, each look is
    printed under the last. looks: at most so many."""
    console = Console(highlight=False)
    reader = _Reader(store)
    with Screen(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as screen:
        while True:
            begun = time.monotonic()
            sweep = reader.sweep()
            drawn = draw(sweep, reader.baselines(sweep), Live.read(store, sweep.manifest.name))
            if screen:
                screen.update(drawn, refresh=True)
            else:
                console.print(drawn)
            looks = None if looks is None else looks - 1
            if looks == 0 or not store.driver():
                break
            time.sleep(max(SECONDS, 3 * (time.monotonic() - begun)))
    if not store.driver():
        console.print(f"nothing trains in {store.root} now" + _goes_on(sweep), soft_wrap=True)


def _goes_on(sweep: Sweep) -> str:
    return "" if sweep.finished() else f"; {sweep.manifest.name} goes on with `{sweep.manifest.command}`"


class _Reader:
    """Reads the sweep that was worked on last, again and again: of its trials only those that changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._records: dict[str, tuple[int, TrialRecord]] = {}
        self._baselines: tuple[str, Baselines] | None = None

    def sweep(self) -> Sweep:
        manifest = self.store.latest()
        if manifest is None:
            raise UserError(f"{self.store.root} holds no sweep yet; start one with `sweeper run teachers`")
        for signature in manifest.signatures:
            changed = self.store.modified(signature)
            if self._records.get(signature, (None,))[0] != changed:
                self._records[signature] = changed, self.store.require(signature)
        return Sweep(manifest, {signature: self._records[signature][1] for signature in manifest.signatures})

    def baselines(self, sweep: Sweep) -> Baselines:
        """They have finished: read once."""
        if self._baselines is None or self._baselines[0] != sweep.manifest.name:
            self._baselines = sweep.manifest.name, Baselines.of(sweep, self.store)
        return self._baselines[1]


def show_trial(store: Store, signature: str) -> None:
    """Print a trial's rungs in every sweep that it is in. A beginning of its signature will do. Raises UserError."""
    print_line = Console(highlight=False, soft_wrap=True).print
    found = {(m.name, s): m for m in store.sweeps() for s in m.signatures if s.startswith(signature)}
    names = sorted({name for _, name in found})
    if len(names) != 1:
        raise UserError(
            f"--trial {signature} is {'no trial of any sweep' if not names else ', '.join(names)}; give one signature"
        )
    for (_, name), manifest in found.items():
        _show_in(Sweep.read(manifest, store), manifest, name, print_line)


def _show_in(sweep: Sweep, manifest: Manifest, signature: str, print_line: Callable[[str], None]) -> None:
    record = sweep.records[signature]
    print_line(f"[bold]{signature}[/bold] {record.spec.label()}: {sweep.states()[signature]} in {manifest.name}")
    places = sweep.strata[record.spec.generator].ranks(signature)
    for number, updates in enumerate(manifest.rungs):
        rung = record.rung(updates, manifest.protocols["rung"])
        if rung is None:
            continue
        if rung.diverged:
            print_line(f"  at {updates} updates it diverged")
            continue
        line = f"  at {updates} updates FID {rung.scores['fid']['mean']:.2f}"
        if number < len(places):
            place, ranked, going_on = places[number]
            cut = f"; the best {going_on} go on" if going_on else ""
            line += f": place {place} of {ranked} ranked configurations of {record.spec.generator.label}{cut}"
        print_line(line)

"""What a store holds: its sweeps and how far they are; one trial's way through the rungs."""

from collections import Counter
from collections.abc import Callable

from rich.console import Console

from sweeper.store import Manifest, Store
from sweeper.sweep import STATES, Sweep
from trainables.errors import UserError


def show(store: Store) -> None:
    """Print the sweeps, on stdout."""
    print_line = Console(highlight=False, soft_wrap=True).print
    manifests = store.sweeps()
    for manifest in manifests:
        sweep = Sweep.read(manifest, store)
        counts = Counter(sweep.states().values())
        shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        print_line(f"[bold]{manifest.name}[/bold]: {len(manifest.signatures)} trials, {shown}")
        if not sweep.finished():
            print_line(f"  goes on with `{manifest.command}`")
    if not manifests:
        print_line(f"{store.root} holds no sweep yet; start one with `sweeper run teachers --dataset mnist5k`")


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
    places = sweep.strata[record.spec.d].places(signature)
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
            line += f": place {place} of the {ranked} configurations of d={record.spec.d} that are ranked there{cut}"
        print_line(line)

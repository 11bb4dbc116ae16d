"""What a store holds: its sweeps and how far they are."""

from collections import Counter

from rich.console import Console

from sweeper.store import Store
from sweeper.sweep import STATES, Sweep


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

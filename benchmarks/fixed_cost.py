"""Measure the overhead of a trial: 24 trials that do nothing, three rungs each, two at a time.

The baseline is Ray Tune with its defaults: a function trainable that imports torch and reports three times. The two run
in turn, A B A B …. Both times exclude the start of Ray.

python benchmarks/fixed_cost.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from sweeper.execution.tune import run, session  # isort: split

import ray
from ray import tune

from sweeper.execution.nodes import Cluster
from sweeper.records import Manifest, RungRecord
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.sweeper import stores
from tests.sweeper.replay import LADDER, Order, Replay

TRIALS, SLOTS, REPEATS = 24, 2, 3


def run_plain_tune(folder: Path) -> None:
    """Run the trials on Ray Tune with its defaults."""

    def trainable(config: dict[str, float]) -> None:
        import torch

        for step in range(3):
            tune.report({"fid": float(torch.tensor(config["lr"])) / (step + 1)})

    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"lr": tune.grid_search([0.001 * (1 + n) for n in range(TRIALS)])},
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()


def add_sweep(store: Store, trials: int, rung: RungRecord | None = None) -> Manifest:
    """Add a sweep of trials that have no record yet, or the record `rung`. Return its manifest."""
    store.create()
    specs = [stores.teacher(2, lr=0.001 * (1 + n)) for n in range(trials)]
    for spec in specs:
        store.add(spec, rung=rung)
    signatures = [spec.signature for spec in specs]
    return stores.sweep(store, "teacher", signatures, updates=LADDER[-1], rungs=LADDER, eta=1)


def run_sweeper(folder: Path, cluster: Cluster, trials: int = TRIALS) -> None:
    """Run trials that do nothing on sweeper."""
    store = Store(folder)
    manifest = add_sweep(store, trials)
    run(Sweep.read(manifest, store), store, cluster, SLOTS, [Order()], actor=Replay)


def main() -> None:
    seconds: dict[str, list[float]] = {"Ray Tune": [], "sweeper": []}
    with session(SLOTS) as cluster, tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            begun = time.monotonic()
            run_plain_tune(Path(folder) / f"tune{repeat}")
            seconds["Ray Tune"].append((time.monotonic() - begun) / TRIALS)
            begun = time.monotonic()
            run_sweeper(Path(folder) / f"sweeper{repeat}", cluster)
            seconds["sweeper"].append((time.monotonic() - begun) / TRIALS)
        assert ray.is_initialized()
    medians = {name: statistics.median(repeats) for name, repeats in seconds.items()}
    print("| | seconds per trial | all repeats |\n|---|--:|---|")
    for name, repeats in seconds.items():
        print(f"| {name} | {medians[name]:.2f} | {', '.join(f'{s:.2f}' for s in repeats)} |")
    print(f"| ratio | {medians['Ray Tune'] / medians['sweeper']:.1f} | |")


if __name__ == "__main__":
    main()

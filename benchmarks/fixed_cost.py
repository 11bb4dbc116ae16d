"""What a trial costs beside its training: 24 trials that do nothing, three rungs each, two at a time.

Against Ray Tune as it comes: a function trainable that imports torch and reports three times. In turn, A B A B …;
starting Ray is in neither. python benchmarks/fixed_cost.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import ray
from ray import tune

from sweeper.execution.resources import Machine
from sweeper.execution.tune import run, session
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Manifest, RungRecord, Store
from tests.sweeper import stores
from tests.sweeper.replay import LADDER, Order, Replay

TRIALS, SLOTS, REPEATS = 24, 2, 3


def theirs(folder: Path) -> None:
    def trainable(config: dict[str, float]) -> None:
        import torch

        for step in range(3):
            tune.report({"fid": float(torch.tensor(config["lr"])) / (step + 1)})

    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"lr": tune.grid_search([0.001 * (1 + n) for n in range(TRIALS)])},
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()


def registered(store: Store, trials: int, rung: RungRecord | None = None) -> Manifest:
    """A sweep of trials that have nothing, or one rung, behind them."""
    store.create()
    specs = [stores.teacher(2, lr=0.001 * (1 + n)) for n in range(trials)]
    for spec in specs:
        store.add(spec, rung=rung)
    signatures = [spec.signature for spec in specs]
    return stores.sweep(store, "teacher", signatures, updates=LADDER[-1], rungs=LADDER, eta=1)


def ours(folder: Path, machine: Machine, trials: int = TRIALS) -> None:
    store = Store(folder)
    manifest = registered(store, trials)
    run(Sweep.read(manifest, store), store, machine, SLOTS, [Order()], actor=Replay)


def main() -> None:
    seconds: dict[str, list[float]] = {"Ray Tune": [], "sweeper": []}
    with session(None, SLOTS) as machine, tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            begun = time.monotonic()
            theirs(Path(folder) / f"theirs{repeat}")
            seconds["Ray Tune"].append((time.monotonic() - begun) / TRIALS)
            begun = time.monotonic()
            ours(Path(folder) / f"ours{repeat}", machine)
            seconds["sweeper"].append((time.monotonic() - begun) / TRIALS)
        assert ray.is_initialized()
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    print("| | seconds per trial | all |\n|---|--:|---|")
    for name, found in seconds.items():
        print(f"| {name} | {medians[name]:.2f} | {', '.join(f'{s:.2f}' for s in found)} |")
    print(f"| ratio | {medians['Ray Tune'] / medians['sweeper']:.1f} | |")


if __name__ == "__main__":
    main()

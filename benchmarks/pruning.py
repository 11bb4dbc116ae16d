"""Measure the pruning rule on real learning curves, and schedules of large sweeps. Print the tables of the docs.

python benchmarks/pruning.py curves      # updates and best scores, against no pruning and stop-only ASHA
python benchmarks/pruning.py makespan    # the paper's full sweep on simulated GPUs
python benchmarks/pruning.py driver      # the cost of scheduling, per trial
python benchmarks/pruning.py picture FILE   # docs/images/rungs.png
python benchmarks/pruning.py record STORE SWEEP FILE   # save the curves of a sweep that ran with --no-pruning

The curves in benchmarks/curves are of trials on mnist5k at 32×32 with 1,620 updates, 27 configurations per stratum.
NAME-seeds.jsonl has the best configuration of each stratum with two more seeds. They were recorded by

    sweeper run teachers --dataset mnist5k $C --set d=2,4,8 \\
      --set lr=0.0005,0.001,0.002,0.003,0.004,0.006,0.008,0.012,0.016 --set lr_discriminator=0.0005,0.001,0.002
    sweeper run students --dataset mnist5k $C --set d=2,4,6 --set loss=mse --set latents=10000 \\
      --set lr=0.0005,0.001,0.002,0.003,0.004,0.006,0.008,0.012,0.016 --set ema=0,0.9,0.99

with C="--no-pruning --set updates=1620 --set first_rung=20 --set rungs=4 --set n_rung=1000 --set n_report=1000".
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine
from sweeper.execution.slots import Slots
from sweeper.execution.tune import JobSearcher
from sweeper.forecast.curves import Curve, curves_of, read_curves, shuffled, true_best, write_curves
from sweeper.forecast.simulator import Outcome, simulate, simulate_stop_only
from sweeper.records import FinalRecord, RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests.sweeper import stores
from tests.sweeper.replay import LADDER, fid
from trainables.arithmetic import update_macs
from trainables.spec import TrialSpec

CURVES = Path(__file__).parent / "curves"
SWEEPS = {"GANs": "mnist5k-gans", "MSE students": "mnist5k-mse-students"}
LADDERS, ETA, ORDERS = ([60, 180, 540, 1620], [20, 60, 180, 540, 1620]), 3, 200


def curves() -> None:
    """Print updates and best scores of 200 shuffled orders, on one slot and on eight, with two ladders."""
    spent = ["| trials | first rung | slots | updates, of unpruned | stop-only's | ratio | orders |"]
    spent += ["|---|--:|--:|--:|--:|--:|--:|"]
    reached = [
        "| stratum | true best FID | deviation | first rung | sweeper's | within, 1 slot | 8 slots | stop-only's |"
    ]
    reached += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
    for kind, name in SWEEPS.items():
        recorded, seeds = read_curves(CURVES / f"{name}.jsonl"), read_curves(CURVES / f"{name}-seeds.jsonl")
        # Equal costs within a stratum: otherwise the costs would order the trials, and shuffling would have no effect.
        costs_by_stratum = {
            s: mean(c.seconds_per_update for c in recorded if c.stratum == s) for s in {c.stratum for c in recorded}
        }
        recorded = [replace(curve, seconds_per_update=costs_by_stratum[curve.stratum]) for curve in recorded]
        orders = [shuffled(recorded, seed) for seed in range(ORDERS)]
        for ladder in LADDERS:
            unpruned, best = simulate(recorded, ladder, 1, 1).updates, true_best(recorded, ladder[-1])
            spread = {s: statistics.stdev(c.score(ladder[-1]) for c in seeds if c.stratum == s) for s in best}
            pruned: dict[int, list[Outcome]] = {}
            for slots in (1, 8):
                pruned[slots] = [simulate(order, ladder, ETA, slots) for order in orders]
                stop_only = [simulate_stop_only(order, ladder, ETA, slots) for order in orders]
                pairs = [
                    (a.updates, b.updates)
                    for a, b in zip(pruned[slots], stop_only, strict=True)
                    if all(b.best[s] <= a.best[s] for s in best)
                ]
                ratio = f"{mean(a / b for a, b in pairs):.2f} | {len(pairs)}" if pairs else "— | 0"
                parts = [mean(o.updates for o in outcomes) / unpruned for outcomes in (pruned[slots], stop_only)]
                spent.append(f"| {kind} | {ladder[0]} | {slots} | {parts[0]:.1%} | {parts[1]:.1%} | {ratio} |")
                if slots == 1:
                    stop_only_one_slot = stop_only
            for s in best:
                within = [f"{mean(o.best[s] <= best[s] + spread[s] for o in pruned[slots]):.0%}" for slots in (1, 8)]
                row = [f"{best[s]:.1f}", f"{spread[s]:.1f}", f"{ladder[0]}"]
                row += [f"{mean(o.best[s] for o in pruned[1]):.1f}", *within]
                row += [f"{mean(o.best[s] for o in stop_only_one_slot):.1f}"]
                reached.append(f"| {kind}, {s} | {' | '.join(row)} |")
    print("\n".join([*spent, "", *reached]))


def mean(values: object) -> float:
    return statistics.fmean(values)  # type: ignore[call-overload,no-any-return]


def paper_sweeps() -> dict[str, list[TrialSpec]]:
    """Return the specs of the paper's full sweeps by name.

    Teachers: nine d × 12 configurations. Students: eight d × (mse and seven alphas) × 2 learning rates × 3 seeds.
    """
    widths = (2, 4, 8, 16, 32, 64, 128, 192, 256)
    joint = [{"loss": "joint", "alpha": 10.0**-a, "d_discriminator": 64} for a in range(1, 8)]
    return {
        "teachers": [
            TrialSpec(role="teacher", dataset="celeba", d=d, channels=3, image_size=64, d_discriminator=64,
                      lr=0.001 * (1 + n % 4), lr_discriminator=0.001 * (1 + n // 4))
            for d in widths for n in range(12)
        ],
        "students": [
            TrialSpec(role="student", dataset="celeba", d=d, channels=3, image_size=64, teacher="t", latents=100_000,
                      lr=lr, seed=seed, **fields)
            for d in widths[:-1] for lr in (0.001, 0.002) for seed in range(3)
            for fields in [{"loss": "mse"}, *joint]
        ],
    }  # fmt: skip


def makespans(seed: str = "") -> Iterator[tuple[str, int, int, int, Outcome]]:
    """Yield (sweep, trials, rungs, GPUs, outcome) of the paper's full sweeps. seed: of the scores."""
    for name, specs in paper_sweeps().items():
        seconds = costs(specs)
        for first in (3_333, 1_111):
            ladder = [first * 3**k for k in range(9) if first * 3**k < 89_000] + [90_000]
            curves_of_specs = [curve(spec, seconds[spec.signature], ladder, seed) for spec in specs]
            for slots in (8, 64, 1_024):
                yield name, len(specs), len(ladder), slots, simulate(curves_of_specs, ladder, 3, slots)


def makespan() -> None:
    """Print makespans of the paper's full sweeps: with the scores of one seed, and over twenty more seeds."""
    more: dict[tuple[str, int, int], list[float]] = {}
    for seed in range(20):
        for name, _, rungs, slots, outcome in makespans(f"{seed}"):
            more.setdefault((name, rungs, slots), []).append(outcome.makespan / outcome.bound)
    print("| sweep | trials | rungs | GPUs | makespan / bound | speculative updates | mean of 20 seeds | worst |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, trials, rungs, slots, outcome in makespans():
        ratio, part = outcome.makespan / outcome.bound, outcome.speculative / outcome.updates
        ratios = more[name, rungs, slots]
        row = [f"{trials}", f"{rungs}", f"{slots:,}", f"{ratio:.3f}", f"{part:.1%}", f"{mean(ratios):.3f}"]
        print(f"| {name} | {' | '.join(row)} | {max(ratios):.3f} |")


def costs(specs: list[TrialSpec]) -> dict[str, float]:
    """Return seconds per update by signature: linear in multiply-accumulates, scaled to 1 … 4,000."""
    macs = {spec.signature: update_macs(spec, None) for spec in specs}
    low, high = min(macs.values()), max(macs.values())
    return {name: 1 + 3_999 * (value - low) / (high - low) for name, value in macs.items()}


def curve(spec: TrialSpec, seconds: float, ladder: list[int], seed: str) -> Curve:
    """Return a random learning curve: a level per configuration, plus noise per trial and rung."""
    level = random.Random(f"{spec.configuration}{seed}").random()
    noise = [random.Random(f"{spec.signature}/{updates}{seed}").random() for updates in ladder]
    points = [(updates, level + 0.3 * value) for updates, value in zip(ladder, noise, strict=True)]
    return Curve(
        stratum=str(spec.d),
        trial=spec.signature,
        configuration=spec.configuration,
        seconds_per_update=seconds,
        points=points,
    )


def driver() -> None:
    """Time the searcher on a store, without Tune: reading, ranking and ordering when a job ends and another starts.

    Nine strata, one slot per ten trials. Writing the records is not timed, because trials do it.
    """
    print("| trials | jobs | ms per trial |\n|--:|--:|--:|")
    for trials in (1_000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            store.create()
            specs = [stores.teacher(2 ** (n % 9), lr=0.001 + n * 1e-6) for n in range(trials)]
            for spec in specs:
                store.add(spec)
            signatures = [spec.signature for spec in specs]
            manifest = stores.sweep(store, "teacher", signatures, updates=LADDER[-1], rungs=LADDER)
            slots = trials // 10
            machine = Cluster.of(Machine(cpus=slots, gpus=0))
            searcher = JobSearcher(Sweep.read(manifest, store), store, Slots(machine, None), [])
            seconds, jobs, running = 0.0, 0, list[str]()
            while True:
                begun = time.perf_counter()
                suggested = searcher.suggest(f"{jobs}")
                seconds += time.perf_counter() - begun
                if isinstance(suggested, dict):
                    running.append(f"{jobs}")
                    jobs += 1
                elif running:
                    tune_id = running.pop(0)
                    write(store, searcher.running[tune_id], manifest.updates)
                    begun = time.perf_counter()
                    searcher.on_trial_complete(tune_id, {"done": True})
                    seconds += time.perf_counter() - begun
                else:
                    break
            print(f"| {trials:,} | {jobs:,} | {1000 * seconds / trials:.2f} |", flush=True)


def write(store: Store, job: Job, budget: int) -> None:
    """Write the records of a job, as a trial does."""
    spec, value = store.require(job.signature).spec, fid(job.signature, job.updates)
    if job.updates == budget:
        store.add(
            spec, final=FinalRecord(budget, "w", *(stores.scores(value, 1.0, p) for p in ("selection", "report")))
        )
    store.add(spec, rung=RungRecord(job.updates, 0.1, {}, stores.scores(value, 1.0, "rung"), False))


def record(store: str, sweep: str, file: str) -> None:
    """Save the learning curves of a sweep."""
    opened = Store(Path(store))
    manifest = opened.sweep(sweep)
    assert manifest is not None, f"{store} has no sweep {sweep}"
    write_curves(curves_of(Sweep.read(manifest, opened)), Path(file))


def picture(file: str) -> None:
    """Draw each curve up to the rung where the rule prunes it."""
    from matplotlib import pyplot

    recorded = read_curves(CURVES / "mnist5k-gans.jsonl")
    ladder = LADDERS[0]
    outcome = simulate(recorded, ladder, ETA, 1)
    reached = {trial: ladder[: rung + 1] for trial, rung in outcome.steps}
    strata = sorted(outcome.sets)
    figure, axes = pyplot.subplots(1, len(strata), figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, stratum in zip(axes, strata, strict=True):
        for curve in (c for c in recorded if c.stratum == stratum):
            rungs = reached[curve.trial]
            winner = len(rungs) == len(ladder)
            style = {"color": "tab:blue", "linewidth": 2, "zorder": 3} if winner else {"color": "0.65", "linewidth": 1}
            axis.plot(rungs, [curve.score(u) for u in rungs], marker="o", markersize=3, **style)
        axis.set(xscale="log", yscale="log", title=stratum, xlabel="updates", xticks=ladder, xticklabels=ladder)
        axis.minorticks_off()
    axes[0].set_ylabel("FID (classifier, n = 1,000)")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    commands = {"curves": curves, "makespan": makespan, "driver": driver, "picture": picture, "record": record}
    commands[sys.argv[1]](*sys.argv[2:])

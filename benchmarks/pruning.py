"""The pruning rule on real learning curves, and schedules of large sweeps; prints the tables of docs/performance.md.

python benchmarks/pruning.py curves      # updates and best scores against no pruning and stop-only ASHA
python benchmarks/pruning.py makespan    # the paper's full sweep on simulated GPUs
python benchmarks/pruning.py driver      # the cost of deciding, per trial
python benchmarks/pruning.py picture FILE   # docs/images/rungs.png
python benchmarks/pruning.py record STORE SWEEP FILE   # write the curves of a sweep that ran with --no-pruning

The curves in benchmarks/curves are GANs of d = 2, 4 and 8 on mnist5k at 32×32, 27 configurations each (9 rates of the
generator × 3 of the discriminator), 1,620 updates, and in seeds.jsonl the best of each d with two more seeds. Made by

    sweeper run teachers --dataset mnist5k --no-pruning --rungs 4 --set d=2,4,8 \\
      --set lr=0.0005,0.001,0.002,0.003,0.004,0.006,0.008,0.012,0.016 --set lr_discriminator=0.0005,0.001,0.002 \\
      --set updates=1620 --set first_rung=20 --set rungs=4 --set n_rung=1000
"""

import random
import statistics
import sys
import time
from pathlib import Path

from sweeper.curves import Curve, curves_of, read_curves, shuffled, true_best, write_curves
from sweeper.simulation import Outcome, play, play_stop_only
from sweeper.store import Store
from sweeper.sweep import Sweep, update_macs
from trainables.spec import TrialSpec

CURVES = Path(__file__).parent / "curves"
LADDER, ETA, ORDERS = [20, 60, 180, 540, 1620], 3, 200


def curves() -> None:
    """200 shuffled orders, on one slot and on eight."""
    recorded, seeds = read_curves(CURVES / "mnist5k-gans.jsonl"), read_curves(CURVES / "seeds.jsonl")
    best = true_best(recorded, LADDER[-1])
    spread = {s: statistics.stdev(c.score(LADDER[-1]) for c in seeds if c.stratum == s) for s in best}
    none = play(recorded, LADDER, 1, 1).updates
    orders = [shuffled(recorded, seed) for seed in range(ORDERS)]
    print("| slots | updates, of no pruning | of them speculative | stop-only ASHA, of no pruning | ratio |")
    print("|--:|--:|--:|--:|--:|")
    outcomes: dict[int, tuple[list[Outcome], list[Outcome]]] = {}
    for slots in (1, 8):
        ours = [play(order, LADDER, ETA, slots) for order in orders]
        theirs = [play_stop_only(order, LADDER, ETA, slots) for order in orders]
        outcomes[slots] = ours, theirs
        spent, spent_by_them = mean(o.updates for o in ours), mean(o.updates for o in theirs)
        speculative = mean(o.speculative for o in ours) / spent
        print(f"| {slots} | {spent / none:.1%} | {speculative:.1%} | {spent_by_them / none:.1%} |", end="")
        print(f" {spent / spent_by_them:.2f} |")
    print("\n| stratum | true best FID | deviation, 3 seeds | sweeper's, 1 slot | within it | 8 slots | stop-only |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    one, stopped = outcomes[1]
    for stratum in best:
        ours, many, theirs = ([o.best[stratum] for o in found] for found in (one, outcomes[8][0], stopped))
        within = mean(score <= best[stratum] + spread[stratum] for score in ours)
        print(f"| {stratum} | {best[stratum]:.1f} | {spread[stratum]:.1f} | {mean(ours):.1f} | {within:.0%} |", end="")
        print(f" {mean(many):.1f} | {mean(theirs):.1f} |")
    pairs = [(a, b) for a, b in zip(one, stopped, strict=True) if all(b.best[s] <= a.best[s] for s in best)]
    print(f"\nStop-only ASHA's best is as good as ours in every stratum in {len(pairs)} of {ORDERS} orders;")
    if pairs:
        print(f"in these we spend {mean(a.updates / b.updates for a, b in pairs):.2f} of its updates.")


def mean(values: object) -> float:
    return statistics.fmean(values)  # type: ignore[call-overload,no-any-return]


def makespan() -> None:
    """Teachers of nine d × 12 configurations; students of eight d × 8 of alpha and mse × 2 rates × 3 seeds."""
    widths = (2, 4, 8, 16, 32, 64, 128, 192, 256)
    joint = [{"loss": "joint", "alpha": 10.0**-a, "d_discriminator": 64} for a in range(1, 8)]
    sweeps = {
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
    print("| sweep | trials | rungs | GPUs | makespan / bound | speculative updates |\n|---|--:|--:|--:|--:|--:|")
    for name, specs in sweeps.items():
        for first in (3_333, 1_111):
            ladder = [first * 3**k for k in range(9) if first * 3**k < 89_000] + [90_000]
            found = costs(specs)
            played = [curve(spec, found[spec.signature], ladder) for spec in specs]
            for slots in (8, 64, 1_024):
                outcome = play(played, ladder, 3, slots)
                ratio, part = outcome.makespan / outcome.bound, outcome.speculative / outcome.updates
                print(f"| {name} | {len(specs)} | {len(ladder)} | {slots:,} | {ratio:.3f} | {part:.1%} |", flush=True)


def costs(specs: list[TrialSpec]) -> dict[str, float]:
    """Seconds per update in proportion to multiply-accumulates, with a floor so that they spread 1 : 4,000."""
    macs = {spec.signature: update_macs(spec) for spec in specs}
    low, high = min(macs.values()), max(macs.values())
    return {name: 1 + 3_999 * (value - low) / (high - low) for name, value in macs.items()}


def curve(spec: TrialSpec, seconds: float, ladder: list[int]) -> Curve:
    luck = random.Random(spec.configuration)
    talent = luck.random()
    points = [(updates, talent + 0.3 * random.Random(f"{spec.signature}/{updates}").random()) for updates in ladder]
    return Curve(
        stratum=str(spec.d),
        trial=spec.signature,
        configuration=spec.configuration,
        seconds_per_update=seconds,
        points=points,
    )


def driver() -> None:
    """Everything that is decided in sweeps of nine strata: reports, standings, order. Medians of 3."""
    print("| trials | decisions | ms per trial |\n|--:|--:|--:|")
    for trials in (1_000, 10_000):
        luck = random.Random(0)
        played = [
            Curve(
                stratum=str(n % 9),
                trial=f"{n}",
                configuration=f"{n}",
                seconds_per_update=4_000.0 ** ((n % 9) / 8),
                points=[(3**k, luck.random()) for k in range(5)],
            )
            for n in range(trials)
        ]
        seconds, steps = [], 0
        for _ in range(3):
            begun = time.perf_counter()
            steps = len(play(played, [3**k for k in range(5)], 3, 1_024).steps)
            seconds.append(time.perf_counter() - begun)
        print(f"| {trials:,} | {steps:,} | {statistics.median(seconds) / trials * 1000:.3f} |")


def record(store: str, sweep: str, file: str) -> None:
    opened = Store(Path(store))
    manifest = opened.sweep(sweep)
    assert manifest is not None, f"{store} holds no sweep {sweep}"
    write_curves(curves_of(Sweep.read(manifest, opened)), Path(file))


def picture(file: str) -> None:
    """Curves as far as the rule trains them."""
    from matplotlib import pyplot

    recorded = read_curves(CURVES / "mnist5k-gans.jsonl")
    outcome = play(recorded, LADDER, ETA, 1)
    reached = {trial: LADDER[: rung + 1] for trial, rung in outcome.steps}
    strata = sorted(outcome.sets)
    figure, axes = pyplot.subplots(1, len(strata), figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, stratum in zip(axes, strata, strict=True):
        for curve in (c for c in recorded if c.stratum == stratum):
            rungs = reached[curve.trial]
            winner = len(rungs) == len(LADDER)
            style = {"color": "tab:blue", "linewidth": 2, "zorder": 3} if winner else {"color": "0.65", "linewidth": 1}
            axis.plot(rungs, [curve.score(u) for u in rungs], marker="o", markersize=3, **style)
        axis.set(xscale="log", yscale="log", title=stratum, xlabel="updates", xticks=LADDER, xticklabels=LADDER)
        axis.minorticks_off()
    axes[0].set_ylabel("FID (classifier, n = 1,000)")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    {"curves": curves, "makespan": makespan, "driver": driver, "picture": picture, "record": record}[sys.argv[1]](
        *sys.argv[2:]
    )

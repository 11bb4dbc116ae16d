"""A sweep under Ray whose trials replay curves instead of training: `python -m tests.sweeper.replay STORE SLOTS`.

The store, the scheduling, the searcher, Tune and the actors are real. A trial's scores are a function of its signature,
so that every process replays the same curves.
"""

import random
import sys
from collections.abc import Mapping
from pathlib import Path

from sweeper.execution import tune
from sweeper.forecast.curves import Curve
from sweeper.records import FinalRecord, Manifest, RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests.sweeper import stores
from trainables.arithmetic import update_macs
from trainables.spec import TrialSpec

LADDER = [10, 30, 90]
WIDTHS, RATES, SEEDS = (2, 4, 8), tuple(round(0.001 * n, 3) for n in range(1, 8)), (0, 1)


def fid(signature: str, updates: int) -> float:
    """Return a FID that falls with the updates. The ranks of the trials differ between rungs."""
    talent = random.Random(signature).random()
    luck = random.Random(f"{signature}/{updates}").random()
    return (talent + 0.3 * luck) * 1000 / updates


class Replay(tune.TrialActor):
    """Writes the records that a trained trial would write."""

    def work(self) -> None:
        spec = self.store.require(self.job.signature).spec
        value = fid(self.job.signature, self.job.updates)
        if self.job.updates == self.sweep.updates:
            named = {purpose: stores.scores(value, 1.0, purpose) for purpose in ("selection", "report")}
            self.store.add(spec, final=FinalRecord(self.job.updates, "w", named["selection"], named["report"]))
        self.store.add(spec, rung=RungRecord(self.job.updates, 0.1, {}, stores.scores(value, 1.0, "rung"), False))


class Order:
    """A tune.Watcher that records the jobs in the order in which they start."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.failures: list[str] = []

    def started(self, sweep: Sweep, job: Job) -> None:
        self.jobs.append(job)

    def trained(self, sweep: Sweep, updates: Mapping[str, int]) -> None:
        pass

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        pass

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self.failures.append(reason)


def specs() -> list[TrialSpec]:
    return [stores.teacher(d, lr=lr, seed=seed) for d in WIDTHS for lr in RATES for seed in SEEDS]


def curves() -> list[Curve]:
    """Return the replayed curves for the simulator. One multiply-accumulate takes one second."""
    return [
        Curve(
            stratum=str(spec.d),
            trial=spec.signature,
            configuration=spec.configuration,
            seconds_per_update=update_macs(spec, None),
            points=[(updates, fid(spec.signature, updates)) for updates in LADDER],
        )
        for spec in specs()
    ]


def create(folder: Path) -> tuple[Store, Manifest]:
    """Create a store with an untrained sweep, or open the one in the folder."""
    store = Store(folder)
    store.create()
    for spec in specs():
        if store.trial(spec.signature) is None:
            store.add(spec)
    signatures = [spec.signature for spec in specs()]
    return store, stores.sweep(store, "teacher", signatures, updates=LADDER[-1], rungs=LADDER)


def replay(folder: Path, slots: int) -> tuple[Sweep, Order]:
    store, manifest = create(folder)
    sweep, order = Sweep.read(manifest, store), Order()
    with tune.session(slots) as cluster:
        tune.run(sweep, store, cluster, slots, [order], actor=Replay)
    return sweep, order


if __name__ == "__main__":
    replay(Path(sys.argv[1]), int(sys.argv[2]))

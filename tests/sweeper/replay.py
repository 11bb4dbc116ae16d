"""A sweep under Ray that replays curves instead of training: `python -m tests.sweeper.replay STORE SLOTS [SECONDS]`.

The store, the scheduling, the searcher, Tune and the actors are real. A trial's scores are a function of its signature,
so that every process replays the same curves.
"""

import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sweeper.execution import tune
from sweeper.execution.experience import Experience
from sweeper.forecast.curves import Curve
from sweeper.records import FinalRecord, Manifest, RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from tests.sweeper import stores
from trainables.arithmetic import update_macs
from trainables.errors import Interrupted
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


class Sleeping(Replay):
    """A replay that takes time: `seconds` of the store per update since the rung before. It can be told to stop.

    Writes a line to the file `places` of the store: its node, and how the job ended.
    """

    def work(self) -> None:
        import ray  # after sweeper.execution.tune

        self.node = ray.get_runtime_context().get_node_id()
        per_update = float((self.store.root / "seconds").read_text())
        updates = self.job.updates - max([0, *(rung for rung in LADDER if rung < self.job.updates)])
        deadline = time.monotonic() + updates * per_update
        while (left := deadline - time.monotonic()) > 0:
            if self.pulse(1):
                self.note("interrupted")
                raise Interrupted
            time.sleep(min(left, 0.2))
        super().work()
        self.note("done")

    def note(self, end: str) -> None:
        with open(self.store.root / "places", "a") as places:
            places.write(f"{self.node} {end}\n")


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


def replay(folder: Path, slots: int, seconds: float | None = None) -> tuple[Sweep, Order]:
    """Train the sweep. slots: 0 for as many as fit; a negative number for trials that need a GPU each.

    seconds: per update; None: at once.
    """
    store, manifest = create(folder)
    if seconds is not None:
        (store.root / "seconds").write_text(f"{seconds}")
    if slots < 0:
        for spec in specs():
            Experience.read(store).save_min_share(store, spec, "", 1.0)
    sweep, order, limit = Sweep.read(manifest, store), Order(), abs(slots) or None
    with tune.session(limit) as cluster:
        tune.run(sweep, store, cluster, limit, [order], actor=Replay if seconds is None else Sleeping)
    return sweep, order


if __name__ == "__main__":
    slots_, *seconds_ = sys.argv[2:]
    replay(Path(sys.argv[1]), int(slots_), *map(float, seconds_))

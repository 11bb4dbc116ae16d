"""Nodes that come, go, are too small or fail: where jobs are placed, and what is said. The clusters are made up."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.execution import placement, pulse
from sweeper.execution.demand import Demand
from sweeper.execution.failures import DEATHS
from sweeper.execution.nodes import Cluster, Node
from sweeper.execution.resources import Machine, Share
from sweeper.execution.searcher import JobSearcher
from sweeper.execution.slots import Slots
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.sweeper import stores
from tests.sweeper.execution.test_failures import lose, raised, start
from tests.sweeper.execution.test_tune import finish
from trainables.errors import EnvironmentUserError

CPU = Machine(cpus=1, gpus=0)
T4 = Machine(cpus=8, gpus=1, gpu_name="T4", gpu_bytes=16e9)
A100 = Machine(cpus=8, gpus=1, gpu_name="A100", gpu_bytes=80e9)
TINY = Machine(cpus=8, gpus=1, gpu_name="tiny", gpu_bytes=1.2e9)


class Changing(Cluster):
    """A cluster whose nodes the test changes."""

    shared = True

    def __init__(self, **machines: Machine) -> None:
        super().__init__()
        self.grows = False
        self.asked: list[Sequence[Share]] = []
        self.become(**machines)

    def become(self, **machines: Machine) -> None:
        self.nodes = tuple(Node(machine, name, f"10.0.0.1 ({name})") for name, machine in machines.items())

    @property
    def can_grow(self) -> bool:
        return self.grows

    @property
    def kind(self) -> Machine:
        return super().kind if self.usable else T4

    def ask(self, shares: Sequence[Share]) -> None:
        self.asked.append(shares)


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SECONDS_BETWEEN_LOOKS", 0.0)


def searcher_on(cluster: Cluster, folder: Path, limit: int | None = None, widths: Sequence[int] = (2,)) -> JobSearcher:
    store = Store(folder)
    store.create()
    specs = [stores.teacher(d, lr=0.001 * n) for d in widths for n in (1, 2, 3, 4)]
    for spec in specs:
        store.add(spec)
    sweep = Sweep.read(stores.sweep(store, "teacher", [spec.signature for spec in specs]), store)
    return JobSearcher(sweep, store, Slots(cluster, limit), [])


def node_of(jobs: JobSearcher, name: str) -> str:
    suggested = jobs.suggest(name)
    assert isinstance(suggested, dict)
    return str(suggested["node"])


def test_jobs_are_packed_on_few_nodes(tmp_path: Path) -> None:
    jobs = searcher_on(Changing(a=Machine(cpus=2, gpus=0), b=Machine(cpus=2, gpus=0)), tmp_path)
    assert [node_of(jobs, name) for name in "123"] == ["a", "a", "b"]
    finish(jobs, "1", 1.0)
    assert node_of(jobs, "4") in "ab"


def test_a_gpu_node_that_comes_late_is_used_and_the_cpus_no_more(tmp_path: Path) -> None:
    cluster = Changing(head=CPU)
    jobs = searcher_on(cluster, tmp_path)
    assert node_of(jobs, "1") == "head"
    assert jobs.suggest("2") is None, "the head is full"
    cluster.become(head=CPU, worker=T4)
    assert [node_of(jobs, name) for name in "23"] == ["worker", "worker"]
    finish(jobs, "1", 1.0)
    assert node_of(jobs, "4") == "worker"


def test_a_share_is_that_of_the_card_on_which_the_trial_lands(tmp_path: Path) -> None:
    cluster = Changing(small=T4)
    jobs = searcher_on(cluster, tmp_path)
    first = jobs.suggest("1")
    cluster.become(large=A100)
    second = jobs.suggest("2")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["share"]["gpu"] == 1 / 8, "CUDA alone takes a sixteenth of 16 GB"
    assert second["share"]["gpu"] == 1 / 16


def test_a_trial_never_lands_on_a_card_that_is_too_small(tmp_path: Path) -> None:
    jobs = searcher_on(Changing(tiny=TINY, large=A100), tmp_path, widths=(256,))
    assert node_of(jobs, "1") == "large"


def test_a_cluster_whose_only_card_is_too_small_is_an_error_before_the_first_trial(tmp_path: Path) -> None:
    jobs = searcher_on(Changing(tiny=TINY), tmp_path, widths=(2, 256))
    assert jobs.suggest("1") is None
    assert jobs.suggest("1") == "FINISHED"
    assert isinstance(jobs.error, EnvironmentUserError)
    assert "d=256 gan needs 1 GB on one GPU, and 10.0.0.1 (tiny) has 8 CPUs and 1 GPUs of 1 GB" in str(jobs.error)
    assert not jobs.running


def test_a_cluster_without_nodes_is_waited_for_with_a_line_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Changing()
    cluster.grows = True
    jobs = searcher_on(cluster, tmp_path)
    assert jobs.suggest("1") is None
    assert jobs.error is None
    line = "waiting for a node: d=2 gan needs 0.5 CPUs and 0.125 GPUs on one node, and no node has come that can train"
    assert line.partition("needs")[0] in capsys.readouterr().err
    monkeypatch.setattr(placement, "SECONDS_FOR_A_NODE", -1.0)
    assert jobs.suggest("1") is None
    assert isinstance(jobs.error, EnvironmentUserError)
    assert "no node has come within" in str(jobs.error)


def test_what_the_sweep_needs_is_asked_for_as_a_whole_and_then_nothing(tmp_path: Path) -> None:
    cluster = Changing()
    cluster.grows = True
    jobs = searcher_on(cluster, tmp_path, limit=3)
    jobs.suggest("1")
    jobs.suggest("1")
    assert [len(shares) for shares in cluster.asked] == [3, 3]
    cluster.become(a=A100)
    names = iter("123456789abcdef")
    while jobs.suggest(name := next(names)) not in ("FINISHED", None):
        finish(jobs, name, 1.0)
    jobs._look_at_nodes()
    assert cluster.asked[-1] == []


def test_jobs_leave_a_node_that_is_to_be_shut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    monkeypatch.setattr(pulse, "leave", left.append)
    monkeypatch.setattr(pulse, "updates_of", lambda signatures: {})
    cluster = Changing(a=CPU, b=CPU)
    jobs = searcher_on(cluster, tmp_path)
    job = start(jobs, "1")
    cluster.become(b=CPU)
    cluster.leaving = {"a"}
    jobs.on_step()
    assert left == ["a"]
    jobs.on_trial_complete("1", {"done": True, "interrupted": True})
    assert node_of(jobs, "2") == "b"
    assert jobs.running["2"] == job


def test_a_job_that_waits_for_a_lost_node_is_taken_back(tmp_path: Path) -> None:
    cluster = Changing(a=CPU, b=CPU)
    jobs = searcher_on(cluster, tmp_path)
    assert node_of(jobs, "1") == "a"
    job = jobs.running["1"]
    cluster.become(b=CPU)
    jobs._look_at_nodes()
    assert jobs.stranded == {"1"}
    jobs.on_trial_complete("1")  # as Tune does for a trial that is stopped while it is pending
    assert node_of(jobs, "2") == "b"
    assert jobs.running["2"] == job
    assert not jobs.stranded


def test_a_process_that_dies_before_its_node_is_known_to_be_lost_does_not_count(tmp_path: Path) -> None:
    from ray.exceptions import ActorDiedError

    cluster = Changing(a=CPU)
    jobs = searcher_on(cluster, tmp_path)
    for number in range(2 * DEATHS):
        cluster.become(a=CPU)
        start(jobs, f"{number}")
        lose(jobs, f"{number}", ActorDiedError())
        cluster.become()
        jobs._look_at_nodes()
    assert not jobs.sweep.failed


def test_a_node_on_which_every_job_fails_is_not_used_and_no_trial_suffers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = searcher_on(Changing(bad=CPU, good=CPU), tmp_path)
    for number in range(placement.ERRORS_OF_A_NODE):
        start(jobs, f"{number}")
        lose(jobs, f"{number}", raised(reason="OSError: [Errno 5] Input/output error"))
    assert (
        "node 10.0.0.1 (bad) is not used any more: 2 trials in a row stopped there, OSError" in capsys.readouterr().err
    )
    assert [node.id for node in jobs.slots.cluster.usable] == ["good"]
    for name in "abc":
        assert node_of(jobs, name) == "good"
        finish(jobs, name, 1.0)
    assert not jobs.sweep.failed
    assert jobs.error is None


@given(capacity=st.integers(0, 70), wanted=st.integers(1, 70))
def test_demand_finds_the_most_that_an_autoscaler_can_give(capacity: int, wanted: int) -> None:
    demand, requests = Demand(), 0
    while True:
        amount = demand.amount(wanted)
        demand.answer(amount, possible=amount <= capacity)
        requests += 1
        if demand.amount(wanted) == amount or demand.hopeless:
            break
    assert demand.amount(wanted) == min(wanted, capacity)
    assert demand.hopeless == (capacity == 0)
    assert requests <= 9

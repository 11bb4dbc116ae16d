"""What the doctor says about facts that are made up here: a broken machine is not at hand."""

from dataclasses import replace

import pytest

from sweeper.doctor.findings import Finding, Level, Node, of_cluster, of_machine, of_node, raise_first
from sweeper.doctor.machine import Facts, Mps, StoreFacts, Versions
from trainables.errors import EnvironmentUserError

VERSIONS = Versions(sweeper="1.2.3", torch="2.8.0", ray="2.60.0", python="3.12.3")
STORE = StoreFacts(path="/shared/runs", id="ab12cd34", free_bytes=500 * 10**9)
HERE = Facts(host="head", cpus=8, versions=VERSIONS, store=STORE, launcher={}, threads=8, wandb=True, inception="w.pth")
SEEN = replace(STORE, sees_probe=True, sees_lock=True)
THERE = replace(HERE, host="worker", store=SEEN)


def node(facts: Facts | None = THERE, **fields: object) -> Node:
    return Node(**{"name": "10.0.0.2 (worker)", "facts": facts, **fields})  # type: ignore[arg-type]


def stops(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings if one.level is Level.STOP]


def test_nothing_stops_a_run_on_a_good_machine_and_a_good_cluster() -> None:
    assert stops(of_machine(HERE)) == []
    assert of_node(HERE, node()) == []
    assert stops(of_cluster(HERE, [node()])) == []
    raise_first(HERE, [node(), node()])


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (replace(HERE, launcher={"LOCAL_RANK": "0"}), "`unset LOCAL_RANK`"),
        (replace(HERE, store=replace(STORE, problem="/shared is not a store")), "use another --store"),
        (replace(HERE, store=replace(STORE, lockable=False)), "cannot be locked; mount it with locks"),
        (replace(HERE, store=replace(STORE, free_bytes=10**6)), "has 0.0 GB left; free some"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_machine_that_would_stop_a_run_is_told_what_to_do(facts: Facts, text: str) -> None:
    (said,) = stops(of_machine(facts))
    assert text in said


def other(**versions: str) -> Facts:
    return replace(THERE, versions=replace(VERSIONS, **versions))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (other(sweeper="1.2.2"), "sweeper 1.2.2, and 1.2.3 on the driver"),
        (other(torch="2.7.0"), "torch 2.7.0, and 2.8.0 on the driver"),
        (other(ray="2.59.0"), "ray 2.59.0, and 2.60.0"),
        (other(python="3.11.7"), "python 3.11.7, and 3.12.3"),
        (other(torch="missing"), "torch missing, and 2.8.0"),
        (replace(THERE, store=replace(SEEN, id="other")), "is store other, and store ab12cd34 on the driver"),
        (replace(THERE, store=replace(SEEN, id=None)), "is no store, and store ab12cd34 on the driver"),
        (replace(THERE, store=replace(SEEN, sees_probe=False)), "is another folder than on the driver; mount one"),
        (replace(THERE, store=replace(SEEN, sees_lock=False)), "a lock of the driver is not seen"),
        (replace(THERE, store=replace(SEEN, problem="cannot be written")), "cannot be written; mount one file system"),
        (replace(THERE, launcher={"PMI_SIZE": "4"}), "`unset PMI_SIZE`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_would_stop_a_run_is_named(facts: Facts, text: str) -> None:
    (said,) = stops(of_node(HERE, node(facts)))
    assert text in said
    with pytest.raises(EnvironmentUserError, match=r"node 10\.0\.0\.2 \(worker\): ") as raised:
        raise_first(HERE, [node(), node(facts)])
    assert "\n" not in str(raised.value)


def test_a_node_that_does_not_answer_is_named() -> None:
    silent = node(None, error="no answer within 120 s; see `ray status`")
    assert stops(of_cluster(HERE, [silent, node()])) == ["no answer within 120 s; see `ray status`"]


def test_the_number_of_further_nodes_is_given() -> None:
    nodes = [replace(node(other(torch="2.7.0")), name=f"10.0.0.{number}") for number in (2, 3, 4)]
    with pytest.raises(EnvironmentUserError, match=r"node 10\.0\.0\.2: torch 2\.7\.0.*and 2 more nodes"):
        raise_first(HERE, nodes)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (node(skew_seconds=-7.04), "its clock is -7.0 s off"),
        (node(gpus=2.0), "Ray counts 2 GPUs and torch sees 0"),
        (node(replace(THERE, store=replace(SEEN, write_bytes_per_second=1e6))), "8 MB are written at 1.0 MB/s"),
        (node(replace(THERE, store=replace(SEEN, read_bytes_per_second=2e6))), "8 MB are read at 2.0 MB/s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_slows_or_misleads_is_a_note(one: Node, text: str) -> None:
    (finding,) = of_node(HERE, one)
    assert finding.level is Level.NOTE
    assert text in str(finding)


def test_a_cluster_without_gpus_is_a_note() -> None:
    assert "trials train on CPUs" in str(of_cluster(HERE, [node()])[-1])
    with_gpu = node(replace(THERE, gpus=["L4, 24 GB"]), gpus=1.0)
    assert of_cluster(HERE, [with_gpu])[-1].level is Level.OK


def test_every_finding_is_one_line() -> None:
    bad = replace(HERE, launcher={"LOCAL_RANK": "0"}, no_cuda="no driver", wandb=False, inception=None)
    bad = replace(bad, missing_extras=["onnx", "report"])
    assert all("\n" not in str(one) for one in of_machine(bad))


def test_extras_that_are_not_installed_are_a_note() -> None:
    assert not any("extras" in str(one) for one in of_machine(HERE))
    (found,) = [one for one in of_machine(replace(HERE, missing_extras=["onnx", "report"])) if "extras" in one.text]
    assert found.level is Level.NOTE
    assert "pip install 'gan-sweeper[onnx,report]'" in found.text


@pytest.mark.parametrize(("mps", "said"), [(Mps.MISSING, True), (Mps.INSTALLED, False), (Mps.RUNS, False)])
def test_a_machine_with_a_gpu_is_told_that_mps_is_missing(mps: Mps, said: bool) -> None:
    with_gpu = replace(HERE, gpus=["H100, 85 GB"], mps=mps)
    assert any("trials that share a GPU run in turn" in one.text for one in of_machine(with_gpu)) == said
    assert not any("run in turn" in one.text for one in of_machine(replace(HERE, mps=mps))), "it has no GPU"


@pytest.mark.parametrize(("mps", "said"), [(Mps.MISSING, True), (Mps.INSTALLED, True), (Mps.RUNS, False)])
def test_a_node_with_a_gpu_is_told_to_start_mps_before_ray(mps: Mps, said: bool) -> None:
    found = of_node(HERE, node(replace(THERE, gpus=["H100, 85 GB"], mps=mps), gpus=1.0))
    assert [one.level for one in found] == [Level.NOTE] * said
    assert all("`nvidia-cuda-mps-control -d` before `ray start`" in one.text for one in found)

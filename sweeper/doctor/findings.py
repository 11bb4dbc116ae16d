"""What the facts about machines mean: one line each, with what to do."""

from dataclasses import dataclass
from enum import StrEnum

from sweeper.doctor.machine import PROBE_BYTES, Facts, Mps, StoreFacts
from sweeper.execution.mps import CONTROL
from trainables.errors import EnvironmentUserError
from trainables.extras import installation

GB = 1e9
MIN_FREE_BYTES = 1 * GB
MIN_BYTES_PER_SECOND = 5e6
MAX_SKEW_SECONDS = 2.0
_IN_TURN = "trials that share a GPU run in turn"


class Level(StrEnum):
    """Whether a run is possible."""

    OK = "ok"
    NOTE = "note"
    STOP = "stop"  # a run would fail


@dataclass(frozen=True)
class Finding:
    """A fact and what to do about it. node: empty for this machine."""

    level: Level
    text: str
    node: str = ""

    def __str__(self) -> str:
        where = f"node {self.node}: " if self.node else ""
        return f"{self.level:<5}{where}{self.text}"


@dataclass(frozen=True)
class Node:
    """A node's answer: facts, or why there are none."""

    name: str  # its address, and its host if that is another word
    facts: Facts | None
    error: str = ""
    skew_seconds: float = 0.0  # its clock minus the driver's
    gpus: float = 0.0  # that Ray counts


def of_machine(facts: Facts) -> list[Finding]:
    """Return what the facts about one machine mean."""
    return [
        *_environment(facts),
        *_torch(facts),
        *_store(facts.store),
        *_store_extras(facts.store),
        _weights(facts),
        _data(facts),
        _wandb(facts),
        *_extras(facts),
    ]


def of_cluster(driver: Facts, nodes: list[Node]) -> list[Finding]:
    """Return what is wrong on the nodes of a cluster, beside a summary. driver: facts of the machine that asks."""
    found = [one for node in nodes for one in of_node(driver, node)]
    answered = [node for node in nodes if node.facts is not None]
    gpus = sum(node.gpus for node in nodes)
    level = Level.OK if gpus else Level.NOTE
    train = "" if gpus else "; trials train on CPUs: start GPU workers if they should not"
    found.append(Finding(level, f"{len(answered)} of {len(nodes)} nodes answered; Ray counts {gpus:g} GPUs{train}"))
    return found


def of_node(driver: Facts, node: Node) -> list[Finding]:
    """Return what is wrong on one node."""
    if node.facts is None:
        return [Finding(Level.STOP, node.error, node.name)]
    here, there = driver.versions, node.facts.versions
    found = [
        Finding(Level.STOP, f"{name} {getattr(there, name)}, and {getattr(here, name)} on the driver; install one")
        for name in here.differences(there)
    ]
    found += [*_environment(node.facts), *_store_on_node(driver.store, node.facts.store)]
    if abs(node.skew_seconds) > MAX_SKEW_SECONDS:
        found.append(Finding(Level.NOTE, f"its clock is {node.skew_seconds:+.1f} s off the driver's; start chrony"))
    if node.facts.threads is not None and len(node.facts.gpus) != node.gpus:
        reason = f" ({node.facts.no_cuda})" if node.facts.no_cuda else ""
        text = f"Ray counts {node.gpus:g} GPUs and torch sees {len(node.facts.gpus)}{reason}; "
        found.append(Finding(Level.NOTE, text + "correct `ray start --num-gpus`, the driver or torch"))
    if node.facts.gpus and node.facts.mps is not Mps.RUNS:
        found.append(Finding(Level.NOTE, f"{_IN_TURN}: MPS {node.facts.mps}; run `{CONTROL} -d` before `ray start`"))
    return [Finding(one.level, one.text, node.name) for one in found]


def raise_first(driver: Facts, nodes: list[Node]) -> None:
    """Raise EnvironmentUserError if a node would stop a run."""
    stops = [one for node in nodes for one in of_node(driver, node) if one.level is Level.STOP]
    if stops:
        others = {one.node for one in stops} - {stops[0].node}
        more = f" (and {len(others)} more nodes: `sweeper doctor --address auto`)" if others else ""
        raise EnvironmentUserError(f"node {stops[0].node}: {stops[0].text}{more}")


def _environment(facts: Facts) -> list[Finding]:
    if not facts.launcher:
        return []
    names = " ".join(facts.launcher)
    text = (
        f"{', '.join(f'{name}={value}' for name, value in facts.launcher.items())}: set by a launcher of distributed "
    )
    return [Finding(Level.STOP, text + f"training, so that trials would wait for other processes; `unset {names}`")]


def _torch(facts: Facts) -> list[Finding]:
    versions = facts.versions
    text = f"sweeper {versions.sweeper}, torch {versions.torch} with {facts.threads} threads, ray {versions.ray}, "
    found = [Finding(Level.OK, f"{text}python {versions.python}, {facts.cpus} CPUs")]
    found += [Finding(Level.OK, f"GPU {number}: {gpu}") for number, gpu in enumerate(facts.gpus)]
    if facts.gpus and facts.mps is Mps.MISSING:
        found.append(Finding(Level.NOTE, f"{_IN_TURN}: install NVIDIA's driver with {CONTROL}"))
    if facts.no_cuda:
        text = f"no GPU ({facts.no_cuda}): trials train on the CPU; if there is a GPU, `nvidia-smi` must show it, and "
        found.append(Finding(Level.NOTE, f"{text}torch needs a build for its CUDA (https://pytorch.org/get-started)"))
    return found


def _store(store: StoreFacts) -> list[Finding]:
    """Return what stops a run."""
    if store.problem:
        return [Finding(Level.STOP, f"{store.problem}; use another --store, or correct its permissions")]
    found = []
    if not store.lockable:
        found.append(Finding(Level.STOP, f"{store.path} cannot be locked; mount it with locks, or use another --store"))
    if store.free_bytes < MIN_FREE_BYTES:
        text = f"{store.path} has {store.free_bytes / GB:.1f} GB left; free some, or use another --store"
        found.append(Finding(Level.STOP, text))
    return found


def _store_extras(store: StoreFacts) -> list[Finding]:
    if store.problem:
        return []
    state = f"store {store.id}" if store.id else "no store yet"
    found = [Finding(Level.OK, f"{store.path}: {state}, writable, {store.free_bytes / GB:,.1f} GB free")]
    if store.driver:
        found.append(Finding(Level.NOTE, f"{store.path} is in use by {store.driver}; another run has to wait for it"))
    return found + _bandwidth(store)


def _store_on_node(here: StoreFacts, there: StoreFacts) -> list[Finding]:
    advice = "mount one file system on all nodes, and give its absolute path as --store"
    if here.problem:  # reported once, for the driver
        return []
    if there.problem:
        return [Finding(Level.STOP, f"{there.problem}; {advice}")]
    if here.id != there.id:
        found = f"store {there.id}" if there.id else "no store"
        return [Finding(Level.STOP, f"{there.path} is {found}, and store {here.id} on the driver; {advice}")]
    if there.sees_probe is False:
        return [Finding(Level.STOP, f"{there.path} is another folder than on the driver; {advice}")]
    if there.sees_lock is False:
        text = f"{there.path}: a lock of the driver is not seen; mount it with locks (NFS 4.1 without nolock)"
        return [Finding(Level.STOP, text)]
    return [*_store(there), *_bandwidth(there)]


def _bandwidth(store: StoreFacts) -> list[Finding]:
    rates = {"written": store.write_bytes_per_second, "read": store.read_bytes_per_second}
    slow = {word: rate for word, rate in rates.items() if rate is not None and rate < MIN_BYTES_PER_SECOND}
    size = PROBE_BYTES >> 20
    return [
        Finding(Level.NOTE, f"{store.path}: {size} MB are {word} at {rate / 1e6:.1f} MB/s; use a faster file system")
        for word, rate in slow.items()
    ]


def _weights(facts: Facts) -> Finding:
    if facts.inception:
        return Finding(Level.OK, f"Inception's weights: {facts.inception}")
    text = "Inception's weights are missing: colour data sets need --download, or --features imagenet or classifier"
    return Finding(Level.NOTE, text)


def _data(facts: Facts) -> Finding:
    return Finding(Level.OK, f"data sets: {', '.join(facts.datasets)}")


def _wandb(facts: Facts) -> Finding:
    if facts.wandb:
        return Finding(Level.OK, "W&B has an API key")
    return Finding(Level.NOTE, "W&B has no API key: runs stay in the store; `wandb login` to upload them")


def _extras(facts: Facts) -> list[Finding]:
    if not facts.missing_extras:
        return []
    names, command = ", ".join(facts.missing_extras), installation(*facts.missing_extras)
    return [Finding(Level.NOTE, f"extras that are not installed: {names}; `{command}` if you need them")]

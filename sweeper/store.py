"""The store: the folder that holds sweeps and trials. This module alone reads and writes their records.

runs/
  store.json                    the store's version
  driver.lock                   locked while a command trains; names its process and host
  datasets/                     one uint8 array per set and size
  scores/                       classifiers, and statistics of the real images
  bank/TEACHER/                 the teacher's images by latent index, in shards; under SWEEPER_CACHE if that is set
  sweeps/NAME.json              manifests
  trials/SIGNATURE/record.json  spec, rung records, final scores
                  /checkpoint.safetensors, /error.txt (the traceback of a failed job)
                  /generator-UPDATES.safetensors, /discriminator-UPDATES.safetensors
                  /samples-UPDATES.png   from the same latents for every trial
  plugins/NAME-HASH/NAME.py     copies of the plug-ins that the sweeps use
  live/SWEEP.json               the running trials, for `sweeper status --watch`
  shares.json, memory.json      what trials need of a GPU's memory (sweeper.execution.experience)
  pictures/  wandb/  transfers.json (hashes, for `sweeper store push` and `pull`)
"""

import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainables.errors import MissingPluginError, UserError
from trainables.files import read_json, replacing, write_json
from trainables.plugins import Plugin
from trainables.scores.protocol import Score
from trainables.spec import TrialSpec

VERSION = 1


@dataclass(frozen=True)
class RungRecord:
    """A trial's result at a rung."""

    updates: int
    seconds: float  # of training since the previous record
    losses: dict[str, float]
    scores: dict[str, Score]  # by the rung latents; empty if the trial diverged
    diverged: bool


@dataclass(frozen=True)
class FinalRecord:
    """A trial's result at a sweep's budget."""

    updates: int
    weights: str  # hash of the generator's weights file
    selection: dict[str, Score]
    report: dict[str, Score]


@dataclass(frozen=True)
class TrialRecord:
    """Everything that the store records about a trial."""

    spec: TrialSpec
    rungs: list[RungRecord] = field(default_factory=list)
    finals: list[FinalRecord] = field(default_factory=list)

    def rung(self, updates: int, protocol: str) -> RungRecord | None:
        """Return the record at a number of updates, if it was scored by this protocol or diverged."""
        for record in self.rungs:
            if record.updates == updates and (record.diverged or record.scores["fid"]["protocol"] == protocol):
                return record
        return None

    def final(self, updates: int, protocols: Mapping[str, str]) -> FinalRecord | None:
        """Return the final record at a budget, if it was scored by these protocols."""
        for record in self.finals:
            pair = record.selection["fid"]["protocol"], record.report["fid"]["protocol"]
            if record.updates == updates and pair == (protocols["selection"], protocols["report"]):
                return record
        return None


@dataclass(frozen=True)
class Teacher:
    """The teacher of a student sweep, pinned by signature, updates and weights."""

    signature: str
    updates: int
    weights: str
    sweep: str  # the teacher sweep that it was selected from; its trials are the controls
    by: str  # the value of --teacher: best, d=N or a signature

    @property
    def name(self) -> str:
        return f"{self.signature}@{self.updates}-{self.weights}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The definition of a sweep: its trials, rungs and scores."""

    name: str
    role: str
    dataset: str
    image_size: int
    metric: str  # "is" or "fid": selects the best trial
    features: str  # a name in trainables.scores.loading.FEATURES: the network that FID is computed on
    real: dict[str, float | None]  # Inception Score and sharpness of the real images
    real_bytes: int  # size of the real images as one uint8 array
    updates: int  # the budget
    rungs: list[int]  # in updates, the budget included
    eta: int
    n: dict[str, int]  # purpose (rung, selection, report) → images per score
    protocols: dict[str, str]  # purpose → protocol
    signatures: list[str]  # of the search space's trials
    confirm: int = 0  # fresh seeds with which the best configuration of each shape is trained again
    confirming: list[str] = field(default_factory=list)  # signatures of these trials, once they are known
    teacher: Teacher | None = None
    command: str = ""  # the command that runs the sweep again
    wandb: str = "offline"  # offline, online or disabled: whether its runs may be uploaded to W&B
    plugins: list[str] = field(default_factory=list)  # NAME-HASH of the plug-ins that define its losses, data set …

    @property
    def members(self) -> list[str]:
        """Return the signatures of all trials."""
        return [*self.signatures, *self.confirming]


class Store:
    """The store in a folder. The folder is created by the first write."""

    def __init__(self, root: Path) -> None:
        """Raises UserError if the folder is not a store, or is a store of another version."""
        self.root = root.resolve()
        self.datasets, self.scores = self.root / "datasets", self.root / "scores"
        path = self.root / "store.json"
        if path.exists():
            try:
                version = read_json(path)["version"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path} holds no store version; name another folder with --store") from None
            if version != VERSION:
                raise UserError(
                    f"{self.root} is a store of version {version}, and this sweeper reads version {VERSION}; "
                    "use the sweeper that wrote it, or name another folder with --store"
                )
        elif self.root.exists() and not _is_empty(self.root):
            raise UserError(f"{self.root} is not a store; name a store or a new folder with --store")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store for training, and create it. Raises UserError if another command holds the lock."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.root} cannot be created ({error.strerror}); use another --store") from None
        with open(self.root / "driver.lock", "a+") as file:
            if not _try_lock(file):
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(f"{self.root} is in use by {holder}; wait for it, or use another --store")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self.create()
            yield

    def driver(self) -> str | None:
        """Return the process and host of the command that holds the lock. None if it is free."""
        try:
            with open(self.root / "driver.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return (self.root / "driver.lock").read_text().strip() or "another process"
        except OSError:
            return None
        return None

    def create(self) -> None:
        """Make the folder a store, unless it is one."""
        if not (self.root / "store.json").exists():
            write_json(self.root / "store.json", {"version": VERSION, "id": os.urandom(4).hex()})

    @property
    def id(self) -> str:
        """Random hex digits that distinguish the W&B runs of this store from those of others."""
        return str(read_json(self.root / "store.json")["id"])

    # Paths that other modules write to.

    def bank(self, teacher: str) -> Path:
        """Return a teacher's bank folder: under SWEEPER_CACHE (a node's local disk) if set, else in the store."""
        return Path(os.environ.get("SWEEPER_CACHE") or self.root) / "bank" / teacher

    def checkpoint(self, signature: str) -> Path:
        return self._trial(signature) / "checkpoint.safetensors"

    def weights(self, signature: str, network: str, updates: int) -> Path:
        """Return the path of a network's weights. network: generator or discriminator."""
        return self._trial(signature) / f"{network}-{updates}.safetensors"

    def samples(self, signature: str, updates: int) -> Path:
        """Return the path of a rung's sample grid. A trial that diverged has none."""
        return self._trial(signature) / f"samples-{updates}.png"

    def picture(self, sweep: str) -> Path:
        return self.root / "pictures" / f"{sweep}.png"

    # Trials.

    def trial(self, signature: str) -> TrialRecord | None:
        path = self._trial(signature) / "record.json"
        if not path.exists():
            return None
        record = _read(path)
        return TrialRecord(
            spec=self._spec(record["spec"]),
            rungs=[RungRecord(**rung) for rung in record["rungs"]],
            finals=[FinalRecord(**final) for final in record["finals"]],
        )

    def _spec(self, canonical: Mapping[str, Any]) -> TrialSpec:
        try:
            return TrialSpec.from_canonical(canonical)
        except MissingPluginError as error:
            copies = [copy for identity in error.plugin.split("+") if (copy := self.plugin_copy(identity))]
            raise MissingPluginError(error.plugin, error.what, " --plugin ".join(map(str, copies))) from None

    def plugin_copy(self, identity: str) -> Path | None:
        """Return the copy of a plug-in's file. None for a module. identity: NAME-HASH."""
        path = self.root / "plugins" / identity / f"{identity.rpartition('-')[0]}.py"
        return path if path.exists() else None

    def save_plugin(self, plugin: Plugin) -> str:
        """Copy a plug-in's file for other processes and nodes. Return the reference that they load: path or module."""
        if plugin.file is None:
            return plugin.reference
        path = self.root / "plugins" / plugin.id / f"{plugin.name}.py"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(plugin.file.read_bytes())
        return str(path)

    def require(self, signature: str) -> TrialRecord:
        """Return a trial's record. Raises UserError if the store has none."""
        record = self.trial(signature)
        if record is None:
            raise UserError(f"{self.root} holds no trial {signature}; `sweeper status` lists its sweeps")
        return record

    def add(self, spec: TrialSpec, *, rung: RungRecord | None = None, final: FinalRecord | None = None) -> None:
        """Register a trial, or add to its record. Replace a result of the same updates and protocol."""
        old = self.trial(spec.signature) or TrialRecord(spec)
        rungs, finals = list(old.rungs), list(old.finals)
        if rung is not None:
            rungs = sorted([r for r in rungs if _identity(r) != _identity(rung)] + [rung], key=lambda r: r.updates)
        if final is not None:
            finals = sorted([f for f in finals if _identity(f) != _identity(final)] + [final], key=lambda f: f.updates)
        record = {
            "spec": spec.canonical(),
            "rungs": [dataclasses.asdict(r) for r in rungs],
            "finals": [dataclasses.asdict(f) for f in finals],
        }
        write_json(self._trial(spec.signature) / "record.json", record)

    def traceback(self, signature: str) -> Path:
        return self._trial(signature) / "error.txt"

    def save_traceback(self, signature: str, text: str) -> None:
        """Write a failed job's traceback beside the trial's record."""
        with replacing(self.traceback(signature)) as temporary:
            temporary.write_text(text)

    def modified(self, signature: str) -> int:
        """Return when a trial's record was last written, in nanoseconds. Equal times mean equal records."""
        return (self._trial(signature) / "record.json").stat().st_mtime_ns

    # Sweeps.

    def sweep(self, name: str) -> Manifest | None:
        path = self.root / "sweeps" / f"{name}.json"
        if not path.exists():
            return None
        record = _read(path)
        teacher = record.pop("teacher")
        return Manifest(**record, teacher=Teacher(**teacher) if teacher else None)

    def sweeps(self) -> list[Manifest]:
        names = sorted(path.stem for path in (self.root / "sweeps").glob("*.json"))
        return [manifest for name in names if (manifest := self.sweep(name))]

    def save_sweep(self, manifest: Manifest) -> None:
        write_json(self.root / "sweeps" / f"{manifest.name}.json", dataclasses.asdict(manifest))

    def latest(self) -> Manifest | None:
        """Return the sweep whose manifest was written last. None if there is none."""
        paths = sorted((self.root / "sweeps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return self.sweep(paths[-1].stem) if paths else None

    def live(self, name: str) -> dict[str, Any] | None:
        """Return what `save_live` wrote last."""
        path = self.root / "live" / f"{name}.json"
        return dict(_read(path)) if path.exists() else None

    def save_live(self, name: str, moment: dict[str, object]) -> None:
        write_json(self.root / "live" / f"{name}.json", moment, durable=False)  # useless after a crash

    def _trial(self, signature: str) -> Path:
        return self.root / "trials" / signature


def _try_lock(file: IO[str]) -> bool:
    """Return whether the lock was acquired. Try twice, because `Store.driver` holds it for a moment to test it."""
    for seconds in (0.2, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(seconds)
    return False


def _is_empty(root: Path) -> bool:
    """Return whether a folder is empty, apart from files that a killed command left before it created the store."""
    return root.is_dir() and all(p.name == "driver.lock" or p.name.startswith(".") for p in root.iterdir())


def _identity(record: RungRecord | FinalRecord) -> tuple[int, str, str]:
    """Return (updates, protocol, protocol). Of two records with equal identities the newer replaces the older."""
    scores = [record.scores] if isinstance(record, RungRecord) else [record.selection, record.report]
    protocols = [score["fid"]["protocol"] if score else "diverged" for score in scores]
    return record.updates, protocols[0], protocols[-1]


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is corrupt ({error}); restore it from a backup, or delete it") from None


def dump(value: Any) -> str:
    """Return a value as indented JSON. Raises ValueError for NaN and infinities."""
    return json.dumps(value, indent=1, allow_nan=False)

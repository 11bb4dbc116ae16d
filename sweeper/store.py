"""The store: a folder with everything that a sweep knows. The only reader and writer of its records.

runs/
  store.json                    the store's version
  driver.lock                   held while a command trains; names its host and process
  datasets/                     one uint8 array per set and size
  scores/                       classifiers, statistics of the real images
  bank/TEACHER/                 the teacher's images by latent index, in shards; under SWEEPER_CACHE where that is set
  sweeps/NAME.json              manifests
  trials/SIGNATURE/record.json  spec, rung records, final scores
                  /checkpoint.safetensors
                  /generator-UPDATES.safetensors, /discriminator-UPDATES.safetensors
                  /samples-UPDATES.png   from the same latents for every trial
  plugins/NAME-HASH/NAME.py     the plug-ins that trials were trained with
  live/SWEEP.json               what runs at the moment, for `sweeper status --watch`
  shares.json                   shape → share of a GPU, where trials ran out of memory
  pictures/  wandb/
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
    """One trial at one rung."""

    updates: int
    seconds: float  # of training since the record before
    losses: dict[str, float]
    scores: dict[str, Score]  # by the rung latents; empty if the trial diverged
    diverged: bool


@dataclass(frozen=True)
class FinalRecord:
    """A trial that reached a sweep's budget."""

    updates: int
    weights: str  # hash of the generator's file
    selection: dict[str, Score]
    report: dict[str, Score]


@dataclass(frozen=True)
class TrialRecord:
    """All that is known of a trial."""

    spec: TrialSpec
    rungs: list[RungRecord] = field(default_factory=list)
    finals: list[FinalRecord] = field(default_factory=list)

    def rung(self, updates: int, protocol: str) -> RungRecord | None:
        """The record at a number of updates; one that was scored by another protocol does not count."""
        for record in self.rungs:
            if record.updates == updates and (record.diverged or record.scores["fid"]["protocol"] == protocol):
                return record
        return None

    def final(self, updates: int, protocols: Mapping[str, str]) -> FinalRecord | None:
        for record in self.finals:
            found = record.selection["fid"]["protocol"], record.report["fid"]["protocol"]
            if record.updates == updates and found == (protocols["selection"], protocols["report"]):
                return record
        return None


@dataclass(frozen=True)
class Teacher:
    """A pinned teacher: signature, updates and weights name it."""

    signature: str
    updates: int
    weights: str
    sweep: str  # the teacher sweep that it was chosen from, where the controls are
    by: str  # how it was asked for: best, SIGNATURE, d=N

    @property
    def name(self) -> str:
        return f"{self.signature}@{self.updates}-{self.weights}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A sweep: what it trains, how far, and how it scores."""

    name: str
    role: str
    dataset: str
    image_size: int
    metric: str  # "is" or "fid": what chooses the best
    features: str  # what FID is computed on: a name in trainables.scores.features, or an import path
    real: dict[str, float | None]  # the real images' own is and sharpness
    real_bytes: int  # that they take as one uint8 array
    updates: int
    rungs: list[int]  # in updates, the budget included
    eta: int
    n: dict[str, int]  # images per score: rung, selection, report
    protocols: dict[str, str]  # by the same names
    signatures: list[str]
    teacher: Teacher | None = None
    command: str = ""  # how to run it again
    wandb: str = "offline"  # offline, online or disabled: whether its runs may go to W&B
    plugins: list[str] = field(default_factory=list)  # NAME-HASH of what defines its losses, families, data set …


class Store:
    """A store at a folder, which need not exist before the first write."""

    def __init__(self, root: Path) -> None:
        """Raises UserError if the folder is no store, or a store of another version."""
        self.root = root.resolve()
        mark = self.root / "store.json"
        if mark.exists():
            try:
                version = read_json(mark)["version"]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{mark} is not readable as a store's version; name another folder with --store"
                ) from None
            if version != VERSION:
                raise UserError(
                    f"{self.root} is a store of version {version}, and this sweeper reads version {VERSION}; "
                    "use the sweeper that wrote it, or name another folder with --store"
                )
        elif self.root.exists() and not _is_empty(self.root):
            raise UserError(f"{self.root} is not a store; name a new folder, or one that sweeper made, with --store")

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Hold the store for writing. Raises UserError when another command does."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.root} cannot be made ({error.strerror}); name another folder with --store"
            ) from None
        with open(self.root / "driver.lock", "a+") as lock:
            if not _locked(lock):
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise UserError(f"{self.root} is in use by {holder}; wait for it, or use another --store")
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            self.create()
            yield

    def driver(self) -> str | None:
        """Who holds the store for writing; None if nobody does."""
        try:
            with open(self.root / "driver.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return (self.root / "driver.lock").read_text().strip() or "another process"
        except OSError:
            return None
        return None

    def create(self) -> None:
        """Make the folder a store, if it is none yet."""
        if not (self.root / "store.json").exists():
            write_json(self.root / "store.json", {"version": VERSION, "id": os.urandom(4).hex()})

    @property
    def id(self) -> str:
        """What tells this store's W&B runs from another's."""
        return str(read_json(self.root / "store.json")["id"])

    # Folders that trials fill by themselves.

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    def bank(self, teacher: str) -> Path:
        """In the folder SWEEPER_CACHE, where that is set: a disk of the node's own, if the store is on a network."""
        return Path(os.environ.get("SWEEPER_CACHE") or self.root) / "bank" / teacher

    def checkpoint(self, signature: str) -> Path:
        return self._trial(signature) / "checkpoint.safetensors"

    def weights(self, signature: str, network: str, updates: int) -> Path:
        """network: generator or discriminator."""
        return self._trial(signature) / f"{network}-{updates}.safetensors"

    def samples(self, signature: str, updates: int) -> Path:
        """What the generator made at a rung; of a trial that diverged there are none."""
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
        """Return the kept file of a plug-in, NAME-HASH. None for a module, which is installed."""
        path = self.root / "plugins" / identity / f"{identity.rpartition('-')[0]}.py"
        return path if path.exists() else None

    def keep_plugin(self, plugin: Plugin) -> str:
        """Keep a copy of a plug-in's file for other processes and nodes. Returns what they load: a path or a module."""
        if plugin.file is None:
            return plugin.reference
        path = self.root / "plugins" / plugin.id / f"{plugin.name}.py"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(plugin.file.read_bytes())
        return str(path)

    def require(self, signature: str) -> TrialRecord:
        """A trial that must be there. Raises UserError."""
        record = self.trial(signature)
        if record is None:
            raise UserError(f"{self.root} holds no trial {signature}; `sweeper status` lists its sweeps")
        return record

    def add(self, spec: TrialSpec, *, rung: RungRecord | None = None, final: FinalRecord | None = None) -> None:
        """Register a trial, or add to its record; a record of the same updates and protocol is replaced."""
        old = self.trial(spec.signature) or TrialRecord(spec)
        rungs, finals = list(old.rungs), list(old.finals)
        if rung is not None:
            rungs = sorted([r for r in rungs if _key(r) != _key(rung)] + [rung], key=lambda r: r.updates)
        if final is not None:
            finals = sorted([f for f in finals if _key(f) != _key(final)] + [final], key=lambda f: f.updates)
        record = {
            "spec": spec.canonical(),
            "rungs": [dataclasses.asdict(r) for r in rungs],
            "finals": [dataclasses.asdict(f) for f in finals],
        }
        write_json(self._trial(spec.signature) / "record.json", record)

    def least_shares(self) -> dict[str, float]:
        """Return the share of a GPU that trials of a shape need, where the estimate ran out of memory, by its label."""
        path = self.root / "shares.json"
        return {label: float(share) for label, share in _read(path).items()} if path.exists() else {}

    def save_least_share(self, label: str, share: float) -> None:
        write_json(self.root / "shares.json", self.least_shares() | {label: share})

    def traceback(self, signature: str) -> Path:
        return self._trial(signature) / "error.txt"

    def save_traceback(self, signature: str, text: str) -> None:
        """Beside the trial's record, for whoever wants to know why it failed."""
        with replacing(self.traceback(signature)) as temporary:
            temporary.write_text(text)

    def changed(self, signature: str) -> int:
        """When a trial's record was last written: equal times, equal records."""
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
        """The sweep that a command was last given for."""
        paths = sorted((self.root / "sweeps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return self.sweep(paths[-1].stem) if paths else None

    def live(self, name: str) -> dict[str, Any] | None:
        """What `save_live` was last given."""
        path = self.root / "live" / f"{name}.json"
        return dict(_read(path)) if path.exists() else None

    def save_live(self, name: str, moment: dict[str, object]) -> None:
        write_json(self.root / "live" / f"{name}.json", moment, durable=False)  # worth nothing after a crash

    def _trial(self, signature: str) -> Path:
        return self.root / "trials" / signature


def _locked(file: IO[str]) -> bool:
    """Whether the lock is ours now. `Store.driver` holds it for a moment to see whether it is free: tried twice."""
    for seconds in (0.2, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(seconds)
    return False


def _is_empty(root: Path) -> bool:
    """But for what a killed command may have left before it made the store."""
    return root.is_dir() and all(p.name == "driver.lock" or p.name.startswith(".") for p in root.iterdir())


def _key(record: RungRecord | FinalRecord) -> tuple[int, str, str]:
    """What makes two records of a trial the same one: how far, and scored how."""
    scores = [record.scores] if isinstance(record, RungRecord) else [record.selection, record.report]
    protocols = [score["fid"]["protocol"] if score else "diverged" for score in scores]
    return record.updates, protocols[0], protocols[-1]


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is spoiled ({error}); put it back from a copy, or delete it") from None


def dump(value: Any) -> str:
    """JSON for other programs."""
    return json.dumps(value, indent=1, allow_nan=False)

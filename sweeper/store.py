"""The store: the folder that holds sweeps and trials. This module alone reads and writes their records.

runs/
  store.json                    the store's version
  driver.claim                  while a command trains: its process and host; renewed every few seconds
  datasets/                     one uint8 array per set and size
  scores/                       classifiers, and statistics of the real images
  bank/TEACHER[.SIDE]/          the teacher's images by latent index, in shards; under SWEEPER_CACHE if that is set
  sweeps/NAME.json              manifests
  trials/SIGNATURE/record.json  spec, rung records, final scores
                  /checkpoint-*.safetensors (trainables.checkpoint), /error.txt (the traceback of a failed job)
                  /generator-UPDATES.safetensors, /discriminator-UPDATES.safetensors
                  /samples-UPDATES.png   from the same latents for every trial
                  /export-FORMAT.json    scores of the exported generator
  teachers/NAME/record.json     an added teacher, with /generator.onnx, or /z.npy and /images.npy, and /samples.png
  measured/HASH.json            latencies and file sizes on one machine
  plugins/NAME-HASH/NAME.py     copies of the plug-ins that the sweeps use
  live/SWEEP.json               the running trials, for `sweeper status --watch`
  shares.json, memory.json      what trials need of a GPU's memory (sweeper.execution.experience)
  pictures/  wandb/  reports/  transfers.json (hashes, for `sweeper store push` and `pull`)
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeper.added import AddedTeachers
from sweeper.records import (
    ONNX_FORMATS,
    AddedTeacher,
    ExportRecord,
    FinalRecord,
    Manifest,
    Measurement,
    RungRecord,
    StoreFacts,
    Teacher,
    TrialFile,
    TrialRecord,
)
from trainables.errors import LostClaimError, MissingPluginError, UserError
from trainables.files import replacing, write_json
from trainables.locks import HEARTBEAT, LEASE, Claim, holder, loss
from trainables.plugins import Plugin
from trainables.reading import is_name, read_record
from trainables.spec import TrialSpec

VERSION = 1
TUNE_FOLDER = "sweeper-tune-"  # how the names of Tune's temporary folders begin
OUTPUTS = [("reports",), ("exported",)]  # folders of the store that hold pages and exports, none of its own files


class Store:
    """The store in a folder. The folder is created by the first write."""

    def __init__(self, root: Path, token: str | None = None) -> None:
        """token: of the claim (`token`) of the command whose job this process runs. It writes no record after that.

        Raises UserError if the folder is not a store, or is a store of another version.
        """
        self.root = Path(os.path.realpath(root))  # as resolve(), without an error for a loop of symbolic links
        self.datasets, self.scores = self.root / "datasets", self.root / "scores"
        self.teachers = AddedTeachers(self.root / "teachers", self.check_claim)
        self._claim: Claim | None = None  # while this process is the command that trains
        self._token = token
        facts = self._facts()
        if facts is not None and facts.version != VERSION:
            raise UserError(
                f"{self.root} is a store of version {facts.version}, and this sweeper reads version {VERSION}; "
                "use the sweeper that wrote it, or name another folder with --store"
            )
        if facts is None and self.root.exists() and not _is_empty(self.root):
            raise UserError(f"{self.root} is not a store; name a store or a new folder with --store")

    @contextmanager
    def lock(self, tell: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """Claim the store for training, and create it. tell: prints why that takes a while.

        Raises UserError if another command has it.
        """
        claim = Claim(self._claimed)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            taken = claim.take(
                lambda other: tell(f"{self.root}: looking for a sign of life of {other}, for {LEASE + HEARTBEAT:.0f} s")
            )
        except OSError as error:
            raise UserError(f"{self.root} cannot be written ({error.strerror}); use another --store") from None
        if not taken:
            raise UserError(f"{self.root} is in use by {claim.holder()}; wait for it, or use another --store")
        self._claim = claim
        try:
            self.create()
            yield
        finally:
            self._claim = None
            claim.release()

    def check_claim(self) -> None:
        """Raise LostClaimError if this process, or the command whose job it runs, had the store and has lost it."""
        if reason := self._loss():
            raise LostClaimError(
                f"this command gave no sign of life and has lost {self.root}: {reason}; nothing more is written; "
                "run it again once no other command trains there"
            )

    def _loss(self) -> str | None:
        if self._claim:
            return self._claim.loss()
        return loss(self._claimed, self._token) if self._token else None

    @property
    def token(self) -> str | None:
        """The token of this process's claim, for the processes of its jobs. None without one."""
        return self._claim.token if self._claim else None

    @property
    def _claimed(self) -> Path:
        return self.root / "driver.claim"

    def driver(self) -> str | None:
        """Return the process and host of the command that trains in this store. None if there is none."""
        return holder(self._claimed)

    def create(self) -> None:
        """Make the folder a store, unless it is one."""
        if not (self.root / "store.json").exists():
            write_json(self.root / "store.json", {"version": VERSION, "id": os.urandom(4).hex()})

    @property
    def id(self) -> str:
        """Random hex digits that distinguish the W&B runs of this store from those of others."""
        facts = self._facts()
        if facts is None or facts.id is None:
            raise UserError(f"{self.root / 'store.json'} holds no id; restore it from a backup")
        return facts.id

    def _facts(self) -> StoreFacts | None:
        path = self.root / "store.json"
        return read_record(path, StoreFacts, "restore it from a backup, or name another folder with --store")

    def check_output(self, path: Path) -> None:
        """Raise UserError for a page or an export in the place of the store's own files."""
        path = Path(os.path.realpath(path))
        if path.is_relative_to(self.root) and path.relative_to(self.root).parts[:1] not in OUTPUTS:
            raise UserError(
                f"-o {path} is among the store's own files; name a place in {self.root}/reports or elsewhere"
            )

    # Paths that other modules write to.

    def bank(self, teacher: str, side: int | None = None) -> Path:
        """Return a bank's folder, under SWEEPER_CACHE (a node's local disk) if set. side: if below the teacher's."""
        name = teacher if side is None else f"{teacher}.{side}"
        return Path(os.environ.get("SWEEPER_CACHE") or self.root) / "bank" / name

    def checkpoint(self, signature: str) -> Path:
        """Return the path of a trial's checkpoints; trainables.checkpoint adds their updates to the name."""
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
        record = read_record(path, TrialFile)
        if record is None:
            return None
        spec = self._spec(record.spec, path)
        if spec.signature != signature:
            raise UserError(f"{path} holds the trial {spec.signature}; restore it from a backup, or delete it")
        return TrialRecord(spec, record.rungs, record.finals)

    def _spec(self, canonical: Mapping[str, Any], path: Path) -> TrialSpec:
        try:
            return TrialSpec.from_canonical(canonical)
        except MissingPluginError as error:
            copies = [copy for identity in error.plugin.split("+") if (copy := self.plugin_copy(identity))]
            raise MissingPluginError(error.plugin, error.what, " --plugin ".join(map(str, copies))) from None
        except UserError as error:
            raise UserError(f"{path} is corrupt ({error}); restore it from a backup, or delete it") from None

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
        """Register a trial, or add to its record. Replace a result of the same updates and protocol.

        Raises LostClaimError.
        """
        self.check_claim()
        old = self.trial(spec.signature) or TrialRecord(spec)
        rungs, finals = list(old.rungs), list(old.finals)
        if rung is not None:
            rungs = sorted([r for r in rungs if _identity(r) != _identity(rung)] + [rung], key=lambda r: r.updates)
        if final is not None:
            finals = sorted([f for f in finals if _identity(f) != _identity(final)] + [final], key=lambda f: f.updates)
        self._write(TrialRecord(spec, rungs, finals))

    def drop_finals(self, signature: str, updates: int) -> None:
        """Remove the final records at a budget: the weights that they are of are lost."""
        old = self.require(signature)
        self._write(dataclasses.replace(old, finals=[final for final in old.finals if final.updates != updates]))

    def _write(self, record: TrialRecord) -> None:
        lists = {name: [dataclasses.asdict(r) for r in getattr(record, name)] for name in ("rungs", "finals")}
        path = self._trial(record.spec.signature) / "record.json"
        write_json(path, {"spec": record.spec.canonical(), **lists})

    def traceback(self, signature: str) -> Path:
        return self._trial(signature) / "error.txt"

    def save_traceback(self, signature: str, text: str) -> None:
        """Write a failed job's traceback beside the trial's record."""
        with replacing(self.traceback(signature)) as temporary:
            temporary.write_text(text)

    def modified(self, signature: str) -> int:
        """Return when a trial's record was last written, in nanoseconds. Equal times mean equal records.

        0 if there is none.
        """
        path = self._trial(signature) / "record.json"
        return path.stat().st_mtime_ns if path.exists() else 0

    def taught_by(self, teacher: Teacher) -> TrialSpec | AddedTeacher:
        """Return what a pinned teacher is: the spec of its trial, or the added teacher. Raises UserError."""
        if teacher.sweep is not None:
            return self.require(teacher.signature).spec
        added = self.teachers.find(teacher.by)
        if added is None or added.pinned != teacher:
            raise UserError(f"{self.root} holds no teacher {teacher.by} with the id {teacher.signature}; restore it")
        return added

    # Exports. One file each, so that several commands can write while another trains.

    def exports(self, signature: str) -> list[ExportRecord]:
        """Return the records of a trial's exported generators, at most one per format."""
        paths = [self._export(signature, name) for name in ONNX_FORMATS]
        return [record for path in paths if (record := read_record(path, ExportRecord))]

    def save_export(self, signature: str, record: ExportRecord) -> None:
        write_json(self._export(signature, record.format), dataclasses.asdict(record))

    def _export(self, signature: str, name: str) -> Path:
        return self._trial(signature) / f"export-{name}.json"

    def measurements(self) -> list[Measurement]:
        """Return what was measured on any machine, the newest first."""
        paths = sorted((self.root / "measured").glob("*.json"), key=lambda path: -path.lstat().st_mtime_ns)
        return [found for path in paths if (found := read_record(path, Measurement))]

    def save_measurement(self, measured: Measurement) -> None:
        """Replace an earlier measurement of the same on the same machine."""
        what = measured.subject, measured.format, measured.conditions, measured.host, measured.machine
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
        write_json(self.root / "measured" / f"{name}.json", dataclasses.asdict(measured))

    # Sweeps.

    def sweep(self, name: str) -> Manifest | None:
        path = self.root / "sweeps" / f"{name}.json"
        manifest = read_record(path, Manifest) if is_name(name) else None
        if manifest is not None and manifest.name != name:
            raise UserError(f"{path} holds the sweep {manifest.name}; restore it from a backup, or delete it")
        return manifest

    def require_sweep(self, name: str) -> Manifest:
        """Return a sweep's manifest. Raises UserError if the store has none."""
        manifest = self.sweep(name)
        if manifest is None:
            raise UserError(f"{self.root} holds no sweep {name} on this node; mount the store on all nodes")
        return manifest

    def sweeps(self) -> list[Manifest]:
        names = sorted(path.stem for path in (self.root / "sweeps").glob("*.json"))
        return [manifest for name in names if (manifest := self.sweep(name))]

    def save_sweep(self, manifest: Manifest) -> None:
        self.check_claim()
        write_json(self.root / "sweeps" / f"{manifest.name}.json", dataclasses.asdict(manifest))

    def latest(self) -> Manifest | None:
        """Return the sweep whose manifest was written last. None if there is none."""
        paths = sorted((self.root / "sweeps").glob("*.json"), key=lambda path: path.lstat().st_mtime_ns)
        return self.sweep(paths[-1].stem) if paths else None

    def live(self, name: str) -> Path:
        """Return the file of what the command that trains a sweep saved last."""
        return self.root / "live" / f"{name}.json"

    def save_live(self, name: str, moment: dict[str, object]) -> None:
        """Write the live state of a sweep, unless another command has the store."""
        if not self._loss():
            write_json(self.live(name), moment, durable=False)  # useless after a crash

    def _trial(self, signature: str) -> Path:
        return self.root / "trials" / signature


def _is_empty(root: Path) -> bool:
    """Return whether a folder is empty, apart from files that a killed command left before it created the store."""
    return root.is_dir() and all(p.name.startswith(("driver.", ".")) for p in root.iterdir())


def _identity(record: RungRecord | FinalRecord) -> tuple[int, str, str]:
    """Return (updates, protocol, protocol). Of two records with equal identities the newer replaces the older."""
    scores = [record.scores] if isinstance(record, RungRecord) else [record.selection, record.report]
    protocols = [score["fid"]["protocol"] if score else "diverged" for score in scores]
    return record.updates, protocols[0], protocols[-1]


def dump(value: Any) -> str:
    """Return a value as indented JSON. Raises ValueError for NaN and infinities."""
    return json.dumps(value, indent=1, allow_nan=False)

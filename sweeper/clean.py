"""`sweeper clean`: what can go from a store, what is lost with it, and how many bytes it takes."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from sweeper.scheduling.sweep import State, Sweep
from sweeper.store import TUNE_FOLDER, Store
from trainables.errors import MissingPluginError, UserError
from trainables.files import is_abandoned

OLD = 86_400.0  # seconds after which a temporary file of a process that cannot be seen from here is taken for abandoned
# Names that sweeper gives. What has another name is never deleted.
_TEMPORARY = re.compile(r"\..+-[0-9]+-[0-9a-f]{6}\.tmp")
_SPOILED = re.compile(r".+\.(safetensors|npy|json)\.spoiled")  # of trainables.tensors.set_aside
_UNFINISHED = re.compile(r".+\.partial\.(safetensors|npy|json)")  # data sets and statistics
_CHECKPOINT = re.compile(r"checkpoint(-[a-z0-9-]+)?\.safetensors")
_SHARD = re.compile(r"[0-9]{6}\.(npy|lock|lock\.lease)")
_BANK = re.compile(r"(?P<signature>[0-9a-f]{12})@[0-9]+-[0-9a-f]+(\.[0-9]+)?")
_TRIAL_FILE = re.compile(
    r"record\.json|error\.txt|export-onnx(-fp16|-int8)?\.json|samples-[0-9]+\.png|(generator|discriminator)-[0-9]+\.safetensors"
)
_SIGNATURE = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Group:
    """Files of one kind that can go, and Tune's temporary folders. lost: what is lost with them."""

    kind: str
    lost: str
    files: list[Path]

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(_size(file) for file in self.files)

    def delete(self) -> None:
        """Delete the files, and then the folders of trials and banks that are left empty."""
        for file in self.files:
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)
        for folder in {file.parent for file in self.files if file.parent.parent.name in ("trials", "bank")}:
            with suppress(OSError):  # it has other files
                folder.rmdir()


def run(store: Store, yes: bool, command: str) -> None:
    """Print what can go. yes: delete it. command: the command that deletes it.

    Raises UserError if a sweep trains in the store, or if it cannot be written.
    """
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    if not yes:
        groups = find(store)
        _show(groups, say)
        if groups:
            say(f"nothing is deleted yet; `{command} --yes` deletes it")
        return
    with store.lock():
        groups = find(store)
        _show(groups, say)
        for group in groups:
            group.delete()
    if groups:
        say("deleted")


def remove_temporary(store: Store) -> None:
    """Delete the temporary files of processes that ended on this host. Another process may delete them, too."""
    with suppress(OSError):  # of another user, for example; the command can do without
        Group("temporary files", "nothing", list(_temporary_files(store, old=float("inf")))).delete()


def find(store: Store) -> list[Group]:
    """Return what can go. Groups without files are left out."""
    manifests = store.sweeps()
    if len(manifests) != len([path for path in _entries(store.root / "sweeps") if path.suffix == ".json"]):
        raise UserError(
            f"{store.root}/sweeps has a file that is not a sweep's; what its trials need is unknown: repair it"
        )
    members = {signature for manifest in manifests for signature in manifest.members}
    teachers = {manifest.teacher.signature: manifest.teacher.name for manifest in manifests if manifest.teacher}
    banks_in_use = {manifest.teacher.name for manifest in manifests if manifest.teacher}
    states: dict[str, set[State]] = {}
    for manifest in manifests:
        of_sweep = dict.fromkeys(manifest.members, State.WAITING)  # where a plug-in is missing, nothing goes
        with suppress(MissingPluginError):
            of_sweep |= Sweep.read(manifest, store).states()
        for signature, state in of_sweep.items():
            states.setdefault(signature, set()).add(state)
    ended, stopped = {State.DONE, State.DIVERGED}, {State.PRUNED, State.SPECULATIVE}
    finished = [trial for trial, found in states.items() if found <= ended]
    pruned = [trial for trial, found in states.items() if found <= ended | stopped and found & stopped]
    unnamed = [s for s in _trials(store) if s not in members and s not in teachers]
    groups = [
        Group("temporary files of processes that ended", "nothing", list(_temporary_files(store, OLD))),
        Group(
            "damaged files that were set aside",
            "nothing that sweeper can read",
            [file for folder in _folders(store) for file in _named(folder, _SPOILED)],
        ),
        Group(
            "unfinished data sets and statistics, a day old",
            "a command that needs them begins them again",
            [
                file
                for folder in (store.datasets, store.scores)
                for file in _named(folder, _UNFINISHED)
                if time.time() - _modified(file) > OLD
            ],
        ),
        Group(
            "checkpoints of finished trials",
            "a longer budget, or other scores, train them from the start",
            [file for trial in finished for file in _named(store.root / "trials" / trial, _CHECKPOINT)],
        ),
        Group(
            "checkpoints of pruned trials",
            "if they return, because the sweep grows, they train from the start",
            [file for trial in pruned for file in _named(store.root / "trials" / trial, _CHECKPOINT)],
        ),
        Group(
            "teachers' images that no sweep uses",
            "a sweep with such a teacher renders them again",
            [
                file
                for bank in _banks(store)
                if bank.name.partition(".")[0] not in banks_in_use
                for file in _named(bank, _SHARD)
            ],
        ),
        Group(
            "trials that no sweep names",
            "their weights and scores: a sweep that names them trains them again",
            [
                file
                for trial in unnamed
                for pattern in (_CHECKPOINT, _TRIAL_FILE)
                for file in _named(store.root / "trials" / trial, pattern)
            ],
        ),
    ]
    return [group for group in groups if group.files]


def _trials(store: Store) -> list[str]:
    """Return the signatures of all trials with a folder."""
    return sorted(path.name for path in _entries(store.root / "trials") if _SIGNATURE.fullmatch(path.name))


def _banks(store: Store) -> list[Path]:
    """Return the folders of teachers' images. Under SWEEPER_CACHE, which stores may share, those of this store."""
    folder = store.bank("any").parent
    own = None if folder.is_relative_to(store.root) else {*_trials(store), *(t.id for t in store.teachers.all())}
    matches = [(_BANK.fullmatch(path.name), path) for path in _entries(folder)]
    return [path for match, path in matches if match and (own is None or match["signature"] in own)]


def _temporary_files(store: Store, old: float) -> Iterator[Path]:
    """Yield temporary files that nobody will finish: their process ended on this host, or they are that old.

    old: seconds since the last write to a file of another host. Tune's temporary folders are among them.
    """
    for folder in _folders(store):
        for file in _named(folder, _TEMPORARY):
            if is_abandoned(file.name) or time.time() - _modified(file) > old:
                yield file
    for folder in _entries(Path(tempfile.gettempdir())):
        if folder.name.startswith(TUNE_FOLDER) and is_abandoned(folder.name) and not folder.is_symlink():
            yield folder


def _folders(store: Store) -> list[Path]:
    """Return the folders in which sweeper writes."""
    trials = _entries(store.root / "trials")
    folders = [store.root, *_entries(store.root), *trials, *_banks(store), store.root / "datasets" / "known"]
    return list(dict.fromkeys(folders))


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted. Empty if it is no folder, or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries)
    except OSError:
        return []


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the regular files of a folder whose names match. A folder that is a link has none."""
    if folder.is_symlink():
        return []
    return [p for p in _entries(folder) if pattern.fullmatch(p.name) and p.is_file() and not p.is_symlink()]


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [Path(place) / name for place, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    size = 0
    for file in files:
        with suppress(OSError):
            size += file.lstat().st_size
    return size


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return time.time()


def _show(groups: list[Group], say: Callable[..., None]) -> None:
    for group in groups:
        say(f"{decimal(group.size):>10} {len(group.files):>7,}  {group.kind}; lost: {group.lost}")
    total = sum(group.size for group in groups)
    say(f"{decimal(total):>10}          in all" if groups else "nothing can go")

"""The facts about one machine. They are gathered by the same code on a laptop and on each node of a cluster."""

import fcntl
import netrc
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from sweeper import __version__
from sweeper.execution import mps
from sweeper.store import Store
from trainables.cpus import usable_cpus
from trainables.datasets import DATASETS
from trainables.errors import UserError
from trainables.extras import missing_extras

PROBE_BYTES = 8 << 20
# A launcher sets these for one process of a distributed training. Accelerate then waits for the other processes.
_RANKS = ("LOCAL_RANK",)
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What must be equal on all nodes."""

    sweeper: str
    torch: str
    ray: str
    python: str

    @staticmethod
    def here() -> "Versions":
        packages = {name: _version(name) for name in ("torch", "ray")}
        return Versions(sweeper=__version__, python=platform.python_version(), **packages)

    def differences(self, other: "Versions") -> list[str]:
        """Return the names of what differs."""
        return [entry.name for entry in fields(self) if getattr(self, entry.name) != getattr(other, entry.name)]


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """What a machine can do with a store."""

    path: str
    id: str | None = None  # None: there is no store yet
    problem: str | None = None  # why it cannot be used
    driver: str | None = None  # the process that trains
    free_bytes: int = 0
    lockable: bool = True
    sees_probe: bool | None = None  # whether the file is there that the driver has written; None if it wrote none
    sees_lock: bool | None = None  # whether the driver's lock on that file is seen
    write_bytes_per_second: float | None = None
    read_bytes_per_second: float | None = None


class Mps(StrEnum):
    """NVIDIA's MPS, by which trials share a GPU (sweeper.execution.mps)."""

    MISSING = "is missing"
    INSTALLED = "does not run"
    RUNS = "runs"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is on one machine. The last seven are None or empty after a quick look."""

    host: str
    cpus: int
    versions: Versions
    store: StoreFacts
    launcher: dict[str, str]  # variables by which Accelerate would wait for other processes
    card: tuple[str, int] | None = None  # name and bytes of the smallest GPU, if Ray counts one and torch sees one
    threads: int | None = None  # of torch
    gpus: list[str] = field(default_factory=list)
    no_cuda: str | None = None  # why torch has no GPU
    mps: Mps = Mps.MISSING
    wandb: bool | None = None  # whether there is an API key
    inception: str | None = None  # path of the weights file, if it exists
    datasets: list[str] = field(default_factory=list)  # data sets whose files are here
    missing_extras: list[str] = field(default_factory=list)  # of the distribution


def examine(
    store: Path, data_root: Path, probe: Path | None = None, quick: bool = False, has_gpus: bool = False
) -> Facts:
    """Gather the facts about this machine. Write nothing that stays.

    probe: a file in the store's folder that the driver has written and locked. quick: skip what needs torch or takes
    more than a second. has_gpus: whether Ray counts a GPU here, which torch is then asked for.
    """
    launcher = {name: os.environ[name] for name in _RANKS if os.environ.get(name, "-1") != "-1"}
    launcher |= {name: os.environ[name] for name in _SIZES if os.environ.get(name, "1") not in ("", "0", "1")}
    facts = Facts(
        host=socket.gethostname(),
        cpus=usable_cpus(),
        versions=Versions.here(),
        store=_examine_store(store, probe, quick),
        launcher=launcher,
        card=_card() if has_gpus else None,
    )
    if quick:
        return facts
    gpus, no_cuda, threads = _examine_torch()
    return Facts(
        **vars(facts)
        | {
            "threads": threads,
            "gpus": gpus,
            "no_cuda": no_cuda,
            "mps": _mps(),
            "wandb": _has_wandb_key(),
            "inception": _inception(),
            "datasets": _datasets(store, data_root),
            "missing_extras": missing_extras(),
        }
    )


def _version(package: str) -> str:
    """Return a version without the part after +, such as cpu or cu128: it may differ between nodes."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "missing"


def _examine_store(root: Path, probe: Path | None, quick: bool) -> StoreFacts:
    facts: dict[str, object] = {"path": str(root)}
    try:
        store = Store(root)
        if (root / "store.json").exists():
            facts |= {"id": store.id, "driver": store.driver()}
    except (UserError, OSError) as error:
        return StoreFacts(path=str(root), problem=str(error))
    if probe is not None:
        facts |= _look_at_probe(probe)
        if not facts["sees_probe"]:
            return StoreFacts(**facts)  # type: ignore[arg-type]
    try:
        with scratch_file(root) as scratch:
            facts["free_bytes"] = shutil.disk_usage(scratch.parent).free
            start = time.monotonic()
            with open(scratch, "wb") as file:
                file.write(os.urandom(1 if quick else PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
                seconds = time.monotonic() - start
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    facts["lockable"] = False
            if not quick:
                facts["write_bytes_per_second"] = PROBE_BYTES / seconds
        if not quick and probe is not None:
            start = time.monotonic()
            size = len(probe.read_bytes())
            facts["read_bytes_per_second"] = size / (time.monotonic() - start)
    except OSError as error:
        facts["problem"] = f"{root} cannot be written ({error.strerror})"
    return StoreFacts(**facts)  # type: ignore[arg-type]


def _look_at_probe(probe: Path) -> dict[str, bool]:
    """Return whether the driver's file is seen, and whether its lock is."""
    try:
        with open(probe, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return {"sees_probe": True, "sees_lock": True}
            except OSError:
                pass
            return {"sees_probe": True, "sees_lock": False}
    except OSError:
        return {"sees_probe": False}


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a file in a folder. Afterwards remove it, and what was made of the folder."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".doctor-{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}.tmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another machine is looking at it
            for one in missing:
                one.rmdir()


def _examine_torch() -> tuple[list[str], str | None, int]:
    """Return the GPUs, why there is none, and torch's threads."""
    import torch

    threads = torch.get_num_threads()
    if not torch.version.cuda and not getattr(torch.version, "hip", None):
        return [], "this torch was built without CUDA", threads
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:
        return [], (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0], threads
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards], None, threads


def _mps() -> Mps:
    if mps.runs():
        return Mps.RUNS
    return Mps.INSTALLED if mps.is_installed() else Mps.MISSING


def _card() -> tuple[str, int] | None:
    """Return name and bytes of the smallest GPU. None if torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    smallest = min(cards, key=lambda card: card.total_memory)
    return smallest.name, smallest.total_memory


def _has_wandb_key() -> bool:
    """Return whether W&B's API key is in the environment or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _inception() -> str | None:
    from trainables.scores.inception import inception_weights

    path = inception_weights()
    return str(path) if path.exists() else None


def _datasets(store: Path, data_root: Path) -> list[str]:
    """Return the registered data sets whose files are here, and those that the store has decoded."""
    named = [name for name, one in DATASETS.items() if one.folder is None or (data_root / one.folder).is_dir()]
    decoded = sorted(path.stem for path in (store / "datasets").glob("*.json") if ".partial" not in path.name)
    return [*named, *(f"{name} (decoded)" for name in decoded)]

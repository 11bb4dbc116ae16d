"""One case of the fuzz: files, a command, and the law that its outcome keeps."""

import contextlib
import importlib
import io
import os
import random
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from unittest import mock

from sweeper.__main__ import main
from trainables import notes, plugins

SECONDS = 10  # of processor time that a case may take
WAITING = 60  # seconds that it may take on a busy machine
STORE = Path(__file__).parents[1] / "sweeper" / "store_before" / "store"  # finished; without images and weights


@dataclass(frozen=True)
class Case:
    """What a family makes from a seed."""

    words: list[str]  # the command line after `sweeper`
    prepare: Callable[[Path], None] = lambda folder: None  # changes the folder, whose store is `runs`
    garbage: bool = True  # whether the command must fail
    environment: dict[str, str] = field(default_factory=dict)
    output: str = "runs"  # the folder, beside the store, that the command may write


Family = Callable[[random.Random], Case]
FAMILIES: dict[str, tuple[Family, int]] = {}  # name → family, cases in the whole fuzz


def family(cases: int) -> Callable[[Family], Family]:
    """Register a function from a random generator to a case. cases: their number in `make test-long`."""

    def register(make: Family) -> Family:
        FAMILIES[make.__name__] = make, cases
        return make

    return register


def import_all() -> None:
    """Import what commands import late. A case that runs out of time in an import would spoil the next ones."""
    for module in (
        "ray.tune.schedulers",
        "scipy.stats",
        *(f"sweeper.{name}" for name in ("forecast.plan", "results.export", "results.page", "score")),
    ):
        importlib.import_module(module)


def check(make: Family, name: str, seed: int) -> str:
    """Run the case of a seed. Return its command and which laws it breaks; an empty text if none."""
    case = make(random.Random(f"{name} {seed}"))
    with tempfile.TemporaryDirectory(prefix="sweeper-fuzz-", ignore_cleanup_errors=True) as folder:
        broken = violations(case, Path(folder).resolve())
    command = shlex.join(["sweeper", *case.words])[:500]
    return "\n  ".join([f"{name} {seed}: {command!r}", *broken]) if broken else ""


def violations(case: Case, folder: Path) -> list[str]:
    """Run a case in an empty folder, and return which laws it breaks."""
    work = folder / "home" / "work"  # `../../x` from the store stays inside `folder`
    shutil.copytree(STORE, work / "runs")
    case.prepare(work)
    before = _snapshot(folder)
    code, out, err, trace = run(case.words, work, case.environment)
    broken = [f"a traceback:\n{trace}"] if trace else []
    if "Traceback (most recent call last)" in out + err:
        broken.append("a traceback in the output")
    if case.garbage and code == 0:
        broken.append("exit 0 for garbage")
    if code not in (0, 2, 4, 5):
        broken.append(f"exit {code}")
    if code and len(err.strip().splitlines()) > 3:
        broken.append("a message of more than three lines")
    if code and not err.strip():
        broken.append("no message")
    after = _snapshot(folder)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    may = work / "runs", work / case.output
    if outside := sorted(path for path in changed if not any(Path(path).is_relative_to(place) for place in may)):
        broken.append(f"written outside the store: {', '.join(outside)}")
    return [*broken, f"exit {code}, stderr: {err[-1000:]!r}, stdout: {out[-300:]!r}"] if broken else []


class _TooLongError(BaseException):
    """Not an Exception, so that no handler of the command catches it."""


def run(
    words: list[str], work: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int | str, str, str, str]:
    """Return exit code, stdout, stderr, and the traceback of what `main` raised."""
    out, err = _stream(), _stream()
    code: int | str = 0
    trace = ""
    environment = {"HOME": str(work.parent), "XDG_CACHE_HOME": str(work / "runs" / ".cache"), "COLUMNS": "100"}
    environment |= dict(variables)
    here = Path.cwd()
    os.chdir(work)
    try:
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["sweeper", *words]),
            mock.patch.object(notes, "notes", []),  # other tests share this process
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            limited(),
        ):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else str(ended.code)
    except BaseException:
        code, trace = "none", traceback.format_exc()[-3000:]
    finally:
        os.chdir(here)
        for name in list(plugins.LOADED):
            plugins.unload(name)
    return code, _text(out), _text(err), trace


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(errors="replace")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise _TooLongError after SECONDS of work or WAITING seconds, also out of a system call that waits."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAITING)}
    previous = {number: signal.signal(number, stop) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return path → type, size and time of everything below a folder. A folder's own size and time do not count."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            status = os.lstat(path := os.path.join(root, name))
            is_file = stat.S_ISREG(status.st_mode)
            found[path] = stat.S_IFMT(status.st_mode), is_file * status.st_size, is_file * status.st_mtime_ns
    return found

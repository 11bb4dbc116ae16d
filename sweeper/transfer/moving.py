"""`sweeper store push` and `sweeper store pull`: move what one place has and the other lacks."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from sweeper.store import Store, dump
from sweeper.transfer.place import INDEX, Place, errors_of
from sweeper.transfer.plan import Plan, Text
from trainables.errors import EnvironmentUserError, UserError

THREADS = 8  # an object store answers after tens of milliseconds
SECONDS_BETWEEN_INDICES = 20.0


def push(folder: Path, url: str, as_json: bool) -> None:
    """Copy a store's new files to a URL, also while a sweep runs.

    Raises UserError if another store is there or the two have diverged, EnvironmentUserError for an error of the
    storage.
    """
    store = Store(folder)
    if not (store.root / "store.json").exists():
        raise UserError(f"{store.root} holds no store; name one with --store")
    local, remote = Place.local(store.root), Place.at(url)
    with errors_of(remote):
        there = _store_there(local, remote)
        if there is None:
            if remote.has_other_files():
                raise UserError(f"{remote.label} holds other files; name a new folder below it")
            remote.write("store.json", local.read("store.json"), time.time_ns())
        Transfer(local, remote, local).run("pushed", as_json)


def pull(folder: Path, url: str, as_json: bool) -> None:
    """Copy a URL's new files into a store, which may be a new folder. Raises like `push`."""
    store = Store(folder)
    local, remote = Place.local(store.root), Place.at(url)
    with errors_of(remote):
        if _store_there(local, remote) is None:
            raise EnvironmentUserError(f"{remote.label} holds no store; correct the URL, or `sweeper store push` first")
        if local.store_id() is None:  # first, so that an interrupted pull leaves a store
            local.write("store.json", remote.read("store.json"), time.time_ns())
        with store.lock():
            Transfer(remote, local, local).run("pulled", as_json)


def _store_there(local: Place, remote: Place) -> str | None:
    """Return the id of the store at a URL. Raises UserError if it is this very folder, or another store."""
    if remote.folder is not None and remote.folder == local.folder:
        raise UserError(f"{remote.label} is the store itself; name another place")
    here, there = local.store_id(), remote.store_id()
    if None not in (here, there) and here != there:
        raise UserError(
            f"{remote.label} holds store {there}, and {local.label} is store {here}; name another place or --store"
        )
    return there


class Transfer:
    """Moves files, then the records that name them, then the manifests that name the records."""

    def __init__(self, source: Place, target: Place, local: Place) -> None:
        """local: source or target. Its index keeps what both have."""
        self.source, self.target, self.local = source, target, local
        self.agreed = local.agreed.setdefault((target if local is source else source).label, {})
        self.moved = self.bytes = 0
        self._stop = threading.Event()
        self._saved = time.monotonic()

    def run(self, word: str, as_json: bool) -> None:
        """Move what is new, and print it. Raises UserError if the places have diverged."""
        plan = Plan(self.source, self.target, self.agreed)
        if plan.diverged:
            more = f" and {len(plan.diverged) - 1} more" if len(plan.diverged) > 1 else ""
            raise UserError(
                f"{self.source.label} and {self.target.label} have diverged: each has results of {plan.diverged[0]}"
                f"{more} that the other lacks; pull into a new --store, or push to a new place"
            )
        self.agreed |= plan.same
        console = Console(stderr=True)
        try:
            with Bar(console=console, disable=not console.is_terminal, transient=True) as bar:
                task = bar.add_task(word, total=plan.bytes)
                self._move(plan, lambda size: bar.advance(task, size))
        finally:
            self._save_indices()
        self._report(word, plan, as_json)

    def _move(self, plan: Plan, tell: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:

            def all_of(work: Callable[[Any], tuple[str, int, str | None]], items: Iterable[Any]) -> None:
                for done in as_completed([pool.submit(work, item) for item in items]):
                    self._count(*done.result())
                    tell(done.result()[1])

            try:
                all_of(self._copy, plan.files.items())
                all_of(self._write, plan.records.items())
                # One by one: the sweep whose manifest was written last is the default of other commands.
                for manifest in sorted(plan.manifests.items(), key=lambda item: item[1].modified):
                    all_of(self._write, [manifest])
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _copy(self, item: tuple[str, Any]) -> tuple[str, int, str | None]:
        path, info = item
        try:
            return path, *self.target.copy_from(self.source, path, info, self._stop)
        except FileNotFoundError:
            if self.source.exists(path):
                raise
            return path, 0, None  # deleted since it was listed

    def _write(self, item: tuple[str, Text]) -> tuple[str, int, str | None]:
        path, text = item
        return path, len(text.content), self.target.write(path, text.content, text.modified)

    def _count(self, path: str, size: int, sha256: str | None) -> None:
        if sha256 is not None:
            self.agreed[path] = sha256
            self.moved, self.bytes = self.moved + 1, self.bytes + size
        if time.monotonic() - self._saved > SECONDS_BETWEEN_INDICES:
            self._save_indices()

    def _save_indices(self) -> None:
        self._saved = time.monotonic()
        self.target.save_index()
        if self.local is self.source:  # which may be read-only
            try:
                self.source.save_index()
            except OSError as error:
                print(
                    f"note: {self.source.label}/{INDEX}: {error.strerror}; the next push reads all files",
                    file=sys.stderr,
                )

    def _report(self, word: str, plan: Plan, as_json: bool) -> None:
        if as_json:
            counts = {"files": self.moved, "bytes": self.bytes, "unchanged": len(plan.same), "kept": len(plan.kept)}
            places = {"store": self.target.store_id(), "from": self.source.label, "to": self.target.label}
            print(dump({"schema": 1, **places, **counts}))
            return
        size = f"{self.bytes / 1e6:,.1f} MB" if self.bytes >= 1e5 else f"{self.bytes / 1e3:.1f} kB"
        kept = f"; kept {len(plan.kept)} that are newer there" if plan.kept else ""
        print(
            f"{word} {self.moved} files, {size}, from {self.source.label} to {self.target.label}; "
            f"{len(plan.same)} are unchanged{kept}"
        )

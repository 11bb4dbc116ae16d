"""`python -m sweeper.tracking.uploader`: the process that talks to W&B, so that nothing else waits for it.

On stdin it reads which trials have something new, one `SIGNATURE` or `SIGNATURE<tab>why it failed` per line; at the end
of stdin it goes once over everything. On stdout it writes what the command is to tell the user, as JSON lines:
{"trouble": why}, {"better": true}, {"arrived": n, "of": n}, {"busy": true}, {"url": …, "report": …, "deleted": n}.

Its stderr is a file in the store, which it holds locked. wandb-core inherits that: so the next uploader does not begin
before the last one's wandb-core has ended, which may outlive a killed uploader by seconds.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from sweeper.scheduling.sweep import State
from sweeper.store import Manifest, Store
from sweeper.tracking import payload
from sweeper.tracking.payload import Upload
from sweeper.tracking.project import Project, RunDeletedError, UploadError, wandb_environment
from trainables import plugins
from trainables.files import read_json, write_json

LINGER = 60.0  # seconds after the end of stdin, when it ends by itself
_SYNC_PAUSES = (3.0,)  # seconds between attempts of `sweeper wandb sync` that get nothing through
_PAUSES = (2.0, 5.0, 10.0, 30.0)  # the same while a sweep runs, the last again and again
_DELETED = "deleted"
_BUSY_SECONDS = 10.0


def tell(**message: Any) -> None:
    """A line for the command; what is behind a trouble is in the log. Raises BrokenPipeError when it is gone."""
    if "trouble" in message:
        traceback.print_exc()
    print(json.dumps(message), flush=True)


class Inbox:
    """What came over stdin and is not done yet; the same trial twice is one."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self._waiting: dict[str, str] = {}  # signature → why it failed, or nothing
        self._changed = threading.Condition()
        self.closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            signature, _, failure = line.rstrip("\n").partition("\t")
            self.put(signature, failure)
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def put(self, signature: str, failure: str) -> None:
        with self._changed:
            self._waiting[signature] = failure
            self._changed.notify_all()

    def take(self) -> tuple[str, str] | None:
        """Wait for the next one; None at the end of stdin, whatever is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            if self.closed:
                return None
            signature = next(iter(self._waiting))
            return signature, self._waiting.pop(signature)

    def rest(self, seconds: float) -> None:
        """Wait so long, or until the end of stdin."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, timeout=seconds)

    def orphaned(self) -> bool:
        """Whether the command that started this one is dead: then its next run goes on, and this one ends."""
        return os.getppid() != self.parent


class Ledger:
    """What is known to be on the server, so that it need not be asked: project → run → digest."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "uploaded.json"
        try:
            self._runs: dict[str, dict[str, str]] = read_json(self.path)
        except (FileNotFoundError, ValueError):
            self._runs = {}  # everything is asked for again
        self._saved = time.monotonic()

    def get(self, project: str, run: str) -> str | None:
        return self._runs.get(project, {}).get(run)

    def note(self, project: str, run: str, digest: str) -> None:
        self._runs.setdefault(project, {})[run] = digest
        if time.monotonic() - self._saved > 1:  # it is one file for all runs
            self.save()

    def save(self) -> None:
        write_json(self.path, self._runs)
        self._saved = time.monotonic()


class Uploader:
    """Sends the runs of some sweeps of a store."""

    def __init__(self, store: Store, sweeps: list[Manifest], inbox: Inbox) -> None:
        self.store, self.sweeps, self.inbox = store, sweeps, inbox
        self.ledger = Ledger(store.root / "wandb")
        self.owners = payload.owners(store)
        self.failures: dict[str, str] = {}
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        """Connected when it is first needed. Raises UploadError."""
        if self._project is None:
            self._project = Project()
        return self._project

    def follow(self) -> None:
        """Send trials as they are reported, until the end of stdin."""
        pauses: Iterator[float] | None = None
        while (next_ := self.inbox.take()) is not None:
            signature, failure = next_
            self.failures.pop(signature, None)
            if failure:
                self.failures[signature] = failure
            try:
                self._send_reported(signature)
                if pauses is not None:
                    tell(better=True)
                    pauses = None
            except UploadError as trouble:
                self.inbox.put(signature, failure)
                tell(trouble=str(trouble))
                pauses = pauses or _pauses(True)
                self.inbox.rest(next(pauses))

    def _send_reported(self, signature: str) -> None:
        record = self.store.require(signature)
        sweep = self.owners[signature]
        state = State.PAUSED  # or waiting to go on: who is pruned depends on all the others, and is told at the end
        if any(rung.diverged for rung in record.rungs):
            state = State.DIVERGED
        elif record.final(sweep.updates, sweep.protocols):
            state = State.DONE
        upload = payload.trial(self.store, sweep, record, state, self.failures.get(signature))
        if self.ledger.get(self.project.key, upload.id) != upload.digest:
            self._send(upload)

    def _send(self, upload: Upload) -> None:
        try:
            self.project.send(upload)
            self.ledger.note(self.project.key, upload.id, upload.digest)
        except RunDeletedError:
            self.ledger.note(self.project.key, upload.id, _DELETED)

    def everything(self, persistent: bool) -> bool:
        """Go over all runs until they are there, or (unless it is persistent) nothing gets through any more."""
        found = payload.everything(self.store, self.sweeps, self.failures)
        left = {upload.id: upload for upload in found}
        pauses = _pauses(persistent)
        while True:
            before = len(left)
            try:
                self._round(left, len(found))
            except UploadError as trouble:
                tell(trouble=str(trouble), arrived=len(found) - len(left), of=len(found))
            finally:
                self.ledger.save()
            if not left or self.inbox.orphaned():
                return not left
            if len(left) < before:
                pauses = _pauses(persistent)
            seconds = next(pauses, None)
            if seconds is None:
                return False
            time.sleep(seconds)

    def _round(self, left: dict[str, Upload], of: int) -> None:
        """Try each once; what is there leaves `left`. Raises UploadError when two in a row fail, or one of the rest."""
        groups = {upload.group for upload in left.values()}
        listed = self.project.listed(groups) if groups else {}
        for upload in list(left.values()):
            if self._is_there(upload, listed):
                del left[upload.id]
        trouble, in_a_row = None, 0
        for upload in list(left.values()):
            tell(arrived=of - len(left), of=of)
            if self.inbox.orphaned():
                return
            try:
                self._send(upload)
                del left[upload.id]
                in_a_row = 0
            except UploadError as error:
                left[upload.id] = left.pop(upload.id)  # last in the next round
                trouble, in_a_row = error, in_a_row + 1
                if in_a_row == 2:
                    break
        if trouble:
            raise trouble
        tell(arrived=of - len(left), of=of)

    def _is_there(self, upload: Upload, listed: dict[str, int]) -> bool:
        """By the ledger, and by what the server lists: it may have been deleted there, or brought back."""
        known = self.ledger.get(self.project.key, upload.id)
        if known == _DELETED:
            return upload.id not in listed
        return known == upload.digest and listed.get(upload.id, -1) >= max(len(upload.steps), 1 if upload.table else 0)

    def deleted(self) -> int:
        ids = [f"{self.store.id}-{signature}" for sweep in self.sweeps for signature in sweep.signatures]
        return sum(self.ledger.get(self.project.key, run) == _DELETED for run in ids)


def _pauses(persistent: bool) -> Iterator[float]:
    return chain(_PAUSES, repeat(_PAUSES[-1])) if persistent else iter(_SYNC_PAUSES)


def hold(folder: Path, seconds: float) -> bool:
    """Make the log this process's stderr, and lock it; False if another uploader still has it after so many seconds."""
    log = os.open(folder / "uploading.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
    os.ftruncate(log, 0)
    os.dup2(log, sys.stderr.fileno())
    return True


def clear(folder: Path) -> None:
    """Delete what wandb has left behind: all of it is made from the store."""
    for path in (*folder.glob("run-*"), folder / "cache", folder / "data", folder / "artifact"):
        shutil.rmtree(path, ignore_errors=True)


def reports(uploader: Uploader) -> list[str]:
    """URLs of the reports of the finished student sweeps, made or brought up to date."""
    from sweeper.tracking import report

    found = []
    for sweep in uploader.sweeps:
        run = f"{uploader.store.id}-table-{sweep.name}"
        if sweep.teacher is not None and uploader.ledger.get(uploader.project.key, run) not in (None, _DELETED):
            found.append(report.save(uploader.store, sweep, uploader.project))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("sweeps", nargs="+")
    parser.add_argument("--parent", type=int, required=True, help="the command that this one works for")
    parser.add_argument("--follow", action="store_true", help="a sweep is running")
    parser.add_argument("--plugin", action="append", default=[], help="what defines the sweeps' losses and families")
    asked = parser.parse_args()
    for reference in asked.plugin:
        plugins.load(reference)
    os.nice(5)  # training comes first
    store, inbox = Store(asked.store), Inbox(asked.parent)
    os.environ.update(wandb_environment(store.root))
    os.environ.pop(
        "WANDB_SERVICE", None
    )  # a wandb-core of its own: in another's a killed uploader's runs stay "in use"
    if asked.follow:
        threading.Thread(target=_watch, args=[inbox], daemon=True).start()
    if not hold(store.root / "wandb", float("inf") if asked.follow else _BUSY_SECONDS):
        tell(busy=True)
        return
    clear(store.root / "wandb")
    uploader = Uploader(store, [m for m in payload.sent_sweeps(store) if m.name in asked.sweeps], inbox)
    if asked.follow:
        uploader.follow()
        uploader.ledger.save()
        if inbox.orphaned():
            return
    if uploader.everything(persistent=asked.follow):
        try:
            made = reports(uploader)
        except UploadError as trouble:
            tell(trouble=f"no report: {trouble}")
            return
        clear(store.root / "wandb")
        tell(url=uploader.project.url, report=made[-1] if made else None, deleted=uploader.deleted())


def _watch(inbox: Inbox) -> None:
    """End this process some time after the end of stdin, whatever it waits for."""
    while not inbox.closed:
        inbox.rest(3600)
    time.sleep(LINGER)
    os._exit(1)


if __name__ == "__main__":
    main()

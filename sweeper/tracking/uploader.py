"""The uploader, a process of its own, so that nothing else waits for W&B: `python -m sweeper.tracking.uploader`.

It reads trials with new records from stdin, one `SIGNATURE` or `SIGNATURE<tab>FAILURE` per line, and uploads their
runs. At the end of stdin it uploads every run that is missing. It writes messages for the command to stdout, as JSON
lines: {"trouble": reason}, {"better": true}, {"arrived": n, "of": n}, {"busy": true} and
{"url": …, "report": …, "deleted": n}.

Its stderr is a file in the store, which it locks. wandb-core inherits the lock and may outlive a killed uploader by
seconds. The next uploader waits for it.
"""

import argparse
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

from sweeper.records import Manifest
from sweeper.scheduling.sweep import State
from sweeper.store import Store
from sweeper.tracking import payload
from sweeper.tracking.payload import Upload
from sweeper.tracking.project import Project, RunDeletedError, UploadError, wandb_environment
from trainables import plugins
from trainables.errors import UserError
from trainables.files import write_json
from trainables.locks import locked
from trainables.reading import read_record

EXIT_SECONDS = 60.0  # after the end of stdin
_SYNC_PAUSES = (3.0,)  # seconds between attempts of `sweeper wandb sync` that upload nothing
_PAUSES = (2.0, 5.0, 10.0, 30.0)  # the same while a sweep runs; the last repeats
_DELETED = "deleted"
_BUSY_SECONDS = 10.0  # that `sweeper wandb sync` waits for another uploader


def emit(**message: Any) -> None:
    """Write a message for the command. Log an error's traceback. Raises BrokenPipeError if the command has ended."""
    if "trouble" in message:
        traceback.print_exc()
    print(json.dumps(message), flush=True)


class Inbox:
    """The trials from stdin that are not uploaded yet, each once."""

    def __init__(self, parent: int) -> None:
        """parent: process id of the command that started the uploader."""
        self.parent = parent
        self._waiting: dict[str, str] = {}  # signature → why the trial failed, or an empty string
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
        """Add a trial. failure: why it failed, or an empty string."""
        with self._changed:
            self._waiting[signature] = failure
            self._changed.notify_all()

    def take(self) -> tuple[str, str] | None:
        """Wait for a trial, remove and return it. Return None at the end of stdin, even if trials remain."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            if self.closed:
                return None
            signature = next(iter(self._waiting))
            return signature, self._waiting.pop(signature)

    def sleep(self, seconds: float) -> None:
        """Wait until the end of stdin, at most this long."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, timeout=seconds)

    def orphaned(self) -> bool:
        """Return whether the command that started this process has ended. Its next run continues the upload."""
        return os.getppid() != self.parent


class Ledger:
    """A cache of what the server has, which saves queries: project → run → digest."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "uploaded.json"
        self._runs = self._read()
        self._own: dict[str, dict[str, str]] = {}  # what this process has added
        self._saved = time.monotonic()

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            return read_record(self.path, dict[str, dict[str, str]]) or {}
        except UserError:
            return {}  # the server is queried for every run

    def get(self, project: str, run: str) -> str | None:
        return self._runs.get(project, {}).get(run)

    def record(self, project: str, run: str, digest: str) -> None:
        """Add a run. Save at most once a second: the file holds all runs."""
        for runs in (self._runs, self._own):
            runs.setdefault(project, {})[run] = digest
        if time.monotonic() - self._saved > 1:
            self.save()

    def save(self) -> None:
        """Add to the file what this process has uploaded: another one may have written to it, from another host."""
        found = self._read()
        self._runs = {name: found.get(name, {}) | self._own.get(name, {}) for name in {**found, **self._own}}
        write_json(self.path, self._runs)
        self._saved = time.monotonic()


class Uploader:
    """Uploads the runs of some sweeps of a store."""

    def __init__(self, store: Store, sweeps: list[Manifest], inbox: Inbox) -> None:
        self.store, self.sweeps, self.inbox = store, sweeps, inbox
        self.ledger = Ledger(store.root / "wandb")
        self.owners = payload.owners(store)
        self.failures: dict[str, str] = {}
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        """Return the project, connected on first use. Raises UploadError."""
        if self._project is None:
            self._project = Project()
        return self._project

    def follow(self) -> None:
        """Upload trials as they are reported, until the end of stdin."""
        pauses: Iterator[float] | None = None
        while (item := self.inbox.take()) is not None:
            signature, failure = item
            self.failures.pop(signature, None)
            if failure:
                self.failures[signature] = failure
            try:
                self._upload_trial(signature)
                if pauses is not None:
                    emit(better=True)
                    pauses = None
            except UploadError as error:
                self.inbox.put(signature, failure)
                emit(trouble=str(error))
                pauses = pauses or _pauses(True)
                self.inbox.sleep(next(pauses))

    def _upload_trial(self, signature: str) -> None:
        record = self.store.require(signature)
        if signature not in self.owners:  # a fresh seed, which was not known when the upload began
            self.owners = payload.owners(self.store)
        sweep = self.owners[signature]
        state = State.PAUSED  # or waiting; pruning depends on all trials and is uploaded at the end
        if any(rung.diverged for rung in record.rungs):
            state = State.DIVERGED
        elif record.final(sweep.updates, sweep.protocols):
            state = State.DONE
        upload = payload.trial(self.store, sweep, record, state, self.failures.get(signature))
        if self.ledger.get(self.project.key, upload.id) != upload.digest:
            self._upload(upload)

    def _upload(self, upload: Upload) -> None:
        try:
            self.project.send(upload)
            self.ledger.record(self.project.key, upload.id, upload.digest)
        except RunDeletedError:
            self.ledger.record(self.project.key, upload.id, _DELETED)

    def upload_all(self, persistent: bool) -> bool:
        """Upload the missing runs. Return whether the server has all of them.

        persistent: retry without limit, until the command has ended.
        """
        self.sweeps = [self.store.sweep(sweep.name) or sweep for sweep in self.sweeps]  # with their fresh seeds
        uploads = payload.all_uploads(self.store, self.sweeps, self.failures)
        left = {upload.id: upload for upload in uploads}
        pauses = _pauses(persistent)
        while True:
            before = len(left)
            try:
                self._upload_round(left, len(uploads))
            except UploadError as error:
                emit(trouble=str(error), arrived=len(uploads) - len(left), of=len(uploads))
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

    def _upload_round(self, left: dict[str, Upload], total: int) -> None:
        """Try each upload once, and remove the complete ones from `left`.

        Stop after two failures in a row. Raises UploadError if an upload failed.
        """
        groups = {upload.group for upload in left.values()}
        listed = self.project.listed(groups) if groups else {}
        for upload in list(left.values()):
            if self._is_uploaded(upload, listed):
                del left[upload.id]
        last_error, failures_in_a_row = None, 0
        for upload in list(left.values()):
            emit(arrived=total - len(left), of=total)
            if self.inbox.orphaned():
                return
            try:
                self._upload(upload)
                del left[upload.id]
                failures_in_a_row = 0
            except UploadError as error:
                left[upload.id] = left.pop(upload.id)  # to the end of the next round
                last_error, failures_in_a_row = error, failures_in_a_row + 1
                if failures_in_a_row == 2:
                    break
        if last_error:
            raise last_error
        emit(arrived=total - len(left), of=total)

    def _is_uploaded(self, upload: Upload, listed: dict[str, int]) -> bool:
        """Return whether the server has the run, by the ledger and by `listed`: id → rows of the runs on the server.

        Users may delete and restore runs on the server.
        """
        digest = self.ledger.get(self.project.key, upload.id)
        if digest == _DELETED:
            return upload.id not in listed
        return digest == upload.digest and listed.get(upload.id, -1) >= max(len(upload.steps), 1 if upload.table else 0)

    def count_deleted(self) -> int:
        """Return the number of trials whose runs were deleted on the server."""
        ids = [f"{self.store.id}-{signature}" for sweep in self.sweeps for signature in sweep.members]
        return sum(self.ledger.get(self.project.key, run) == _DELETED for run in ids)


def _pauses(persistent: bool) -> Iterator[float]:
    """Return the seconds to wait between attempts: an endless sequence if persistent."""
    return chain(_PAUSES, repeat(_PAUSES[-1])) if persistent else iter(_SYNC_PAUSES)


def redirect_stderr(log: Path) -> None:
    """Write stderr to a log from now on, also that of child processes. Empty the log first."""
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0o666), sys.stderr.fileno())


def delete_wandb_files(folder: Path) -> None:
    """Delete wandb's files. They hold nothing that the store does not have."""
    for path in (*folder.glob("run-*"), folder / "cache", folder / "data", folder / "artifact"):
        shutil.rmtree(path, ignore_errors=True)


def save_reports(uploader: Uploader) -> list[str]:
    """Create or update the reports of the finished student sweeps. Return their URLs."""
    from sweeper.tracking import report

    urls = []
    for sweep in uploader.sweeps:
        run = f"{uploader.store.id}-table-{sweep.name}"
        if sweep.teacher is not None and uploader.ledger.get(uploader.project.key, run) not in (None, _DELETED):
            urls.append(report.save(uploader.store, sweep, uploader.project))
    return urls


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("sweeps", nargs="+")
    parser.add_argument("--parent", type=int, required=True, help="process id of the command")
    parser.add_argument("--follow", action="store_true", help="read trials from stdin while a sweep runs")
    parser.add_argument("--plugin", action="append", default=[], help="plug-in that the sweeps need")
    options = parser.parse_args()
    for reference in options.plugin:
        plugins.load(reference)
    os.nice(5)  # training has priority
    store, inbox = Store(options.store), Inbox(options.parent)
    os.environ.update(wandb_environment(store.root))
    # Use a separate wandb-core: in a shared one the runs of a killed uploader stay "in use".
    os.environ.pop("WANDB_SERVICE", None)
    if options.follow:
        threading.Thread(target=_exit_after_stdin, args=[inbox], daemon=True).start()
    folder = store.root / "wandb"
    with locked(folder / "uploading.lock", seconds=-1 if options.follow else _BUSY_SECONDS) as acquired:
        if not acquired:
            emit(busy=True)
            return
        redirect_stderr(folder / "uploading.log")
        _upload(store, options, inbox)


def _upload(store: Store, options: argparse.Namespace, inbox: Inbox) -> None:
    delete_wandb_files(store.root / "wandb")
    uploader = Uploader(store, [m for m in payload.sent_sweeps(store) if m.name in options.sweeps], inbox)
    if options.follow:
        uploader.follow()
        uploader.ledger.save()
        if inbox.orphaned():
            return
    if uploader.upload_all(persistent=options.follow):
        try:
            urls = save_reports(uploader)
        except UploadError as error:
            emit(trouble=f"no report: {error}")
            return
        delete_wandb_files(store.root / "wandb")
        emit(url=uploader.project.url, report=urls[-1] if urls else None, deleted=uploader.count_deleted())


def _exit_after_stdin(inbox: Inbox) -> None:
    """End this process EXIT_SECONDS after the end of stdin, even during a request."""
    while not inbox.closed:
        inbox.sleep(3600)
    time.sleep(EXIT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()

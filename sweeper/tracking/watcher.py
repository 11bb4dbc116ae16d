"""The command's side of W&B. Another process makes the requests, so nothing here waits for a server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from sweeper.records import Manifest, RungRecord
from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Store
from sweeper.tracking.payload import sent_sweeps
from sweeper.tracking.project import wandb_environment
from trainables import plugins
from trainables.errors import EnvironmentUserError, UserError
from trainables.extras import require

SECONDS_AT_THE_END = 60.0  # for the runs that are left when a sweep ends
SECONDS_IF_FAILING = 10.0  # the same, if the last upload failed
_HOW_TO_SYNC = "upload what is missing with `sweeper wandb sync{}`"


class UploaderProcess:
    """The uploader (sweeper.tracking.uploader) as a child process. `status` merges its messages."""

    def __init__(
        self, store: Store, sweeps: list[str], follow: bool, on_message: Callable[[dict[str, Any]], None]
    ) -> None:
        """follow: upload trials that are written to stdin. on_message: called with each message, in another thread."""
        self.status: dict[str, Any] = {}
        self._on_message = on_message
        module = "sweeper.tracking.uploader"
        command = [sys.executable, "-P", "-m", module, str(store.root), *sweeps, "--parent", str(os.getpid())]
        for plugin in plugins.LOADED.values():
            command += ["--plugin", plugin.reference]
        environment = {**os.environ, **wandb_environment(store.root)}
        with open(store.root / "wandb" / "uploading.log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--follow"] if follow else command,
                stdin=subprocess.PIPE if follow else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal does not reach it
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            self.status |= message
            self._on_message(message)

    def wait(self, seconds: float | None) -> bool:
        """Wait at most this long, None for no limit. Return whether the process ended and its messages are read."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(5)  # wandb-core may hold the pipe for a moment longer
        return True

    def kill(self) -> None:
        """Kill the process if it is running. Its wandb-core then ends by itself."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def complete(self) -> bool:
        """Return whether the server has all runs and the report."""
        return "url" in self.status

    def describe_missing(self) -> str:
        """Return how many runs are missing, and why."""
        reason = self.status.get("trouble", "the uploader stopped, see wandb/uploading.log in the store")
        if "of" not in self.status:
            return f"not all runs are uploaded ({reason})"
        left = self.status["of"] - self.status["arrived"]
        if not left:
            return str(reason)  # only the report is missing
        return f"{left} of {self.status['of']} runs are not uploaded ({reason})"


class UploadWatcher:
    """A tune.Watcher that passes trials with new records to the uploader. It uploads table and report at the end."""

    def __init__(self, sweep: str, store: Store, sync_options: str) -> None:
        """sync_options: options for `sweeper wandb sync`, if any. Raises EnvironmentUserError without an API key."""
        self.sweep, self.store, self.sync_options = sweep, store, sync_options
        self.warned = self.failing = False
        _require_key()

    def __enter__(self) -> "UploadWatcher":
        self.uploader = UploaderProcess(self.store, [self.sweep], True, self._on_message)
        assert self.uploader.process.stdin is not None
        self.pipe = self.uploader.process.stdin.fileno()
        os.set_blocking(self.pipe, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.uploader.process.stdin is not None
        self.uploader.process.stdin.close()
        try:
            if kind is not KeyboardInterrupt:
                self._wait()
        except KeyboardInterrupt:
            self._warn_once("interrupted before all runs were uploaded")
        finally:
            self.uploader.kill()
        if self.uploader.complete():
            status = self.uploader.status
            report = f"; report: {status['report']}" if status["report"] else ""
            print(f"W&B: {status.get('of', 0)} runs are at {status['url']}{report}", file=sys.stderr)
        else:
            self._warn_once(self.uploader.describe_missing())

    def started(self, sweep: Sweep, job: Job) -> None:
        pass

    def trained(self, sweep: Sweep, updates: Mapping[str, int]) -> None:
        pass

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        self._notify(job.signature)

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self._notify(f"{job.signature}\t{' '.join(reason.split())[:200]}")

    def _notify(self, line: str) -> None:
        """Write a line to the uploader without waiting. Lines that a full pipe rejects are uploaded at the end."""
        with contextlib.suppress(OSError):  # the pipe is full, or the uploader has ended
            os.write(self.pipe, f"{line}\n".encode())

    def _wait(self) -> None:
        if self.uploader.wait(1):
            return
        seconds = SECONDS_IF_FAILING if self.failing else SECONDS_AT_THE_END
        print(f"W&B: uploading the remaining runs, at most {seconds:.0f} s; Ctrl-C skips this", file=sys.stderr)
        self.uploader.wait(seconds)

    def _on_message(self, message: dict[str, Any]) -> None:
        self.failing = "trouble" in message
        if self.failing:
            self._warn_once(f"{message['trouble']}; training continues")

    def _warn_once(self, warning: str) -> None:
        """Print the first warning and the command that uploads the rest. Ignore later ones."""
        if not self.warned:
            self.warned = True
            print(f"W&B: {warning}; {_HOW_TO_SYNC.format(self.sync_options)}", file=sys.stderr)


@contextlib.contextmanager
def watching(manifest: Manifest, store: Store, sync_options: str) -> Iterator[list[UploadWatcher]]:
    """Yield the watchers that upload to W&B while a sweep runs: one for `--wandb online`, else none."""
    if manifest.wandb != "online":
        yield []
        return
    with UploadWatcher(manifest.name, store, sync_options) as tracked:
        yield [tracked]


def _require_key() -> None:
    """Raise EnvironmentUserError if wandb finds no API key. The key is not verified."""
    import wandb

    wandb.setup(wandb.Settings(silent=True, mode="online"))
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except wandb.errors.Error as error:
        raise EnvironmentUserError(f"--wandb online: {str(error).splitlines()[0]}; run `wandb login`") from None
    finally:
        wandb.teardown()  # the uploader has its own wandb-core
    if not has_key:
        raise EnvironmentUserError("--wandb online needs an API key; run `wandb login`, or use --wandb offline")


def sync(store: Store, name: str | None, command: str) -> None:
    """Upload the runs that are missing on W&B, and verify them. Print the result.

    command: the command that the user ran. Raises UserError if there is nothing to upload or another command uploads,
    EnvironmentUserError without wandb, and unless W&B has every run afterwards.
    """
    require("wandb", "sweeper wandb sync")
    sweeps = [manifest.name for manifest in sent_sweeps(store, name)]
    if not sweeps:
        raise UserError(f"{store.root} holds nothing to upload: no sweep, or all were run with --wandb disabled")
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("uploading to W&B", total=None)
        uploader = UploaderProcess(
            store, sweeps, False, lambda m: bar.update(task, completed=m.get("arrived"), total=m.get("of"))
        )
        try:
            uploader.wait(None)
        finally:
            uploader.kill()
    if "busy" in uploader.status:
        raise UserError(f"another command is uploading the runs of {store.root}; wait until it has finished")
    if not uploader.complete():
        raise EnvironmentUserError(f"W&B: {uploader.describe_missing()}; try again with `{command}`")
    status = uploader.status
    print(f"{status['of'] - status['deleted']} runs are at {status['url']}; all verified")
    if status["deleted"]:
        print(f"deleted on W&B: {status['deleted']}; ids are not reused; restore a run with Undelete on its page")
    if status["report"]:
        print(f"report: {status['report']}")

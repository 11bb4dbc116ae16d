"""W&B, from the side of the command: nothing here waits for a server, because another process does the talking."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from sweeper.scheduling.sweep import Job, Sweep
from sweeper.store import Manifest, RungRecord, Store
from sweeper.tracking.payload import sent_sweeps
from sweeper.tracking.project import wandb_environment
from trainables import plugins
from trainables.errors import EnvironmentUserError, UserError

SECONDS_AT_THE_END = 60.0  # for what is left to send when a sweep ends
SECONDS_IN_TROUBLE = 10.0  # the same, when the server does not take it anyway
_AGAIN = "`sweeper wandb sync{}` sends what is missing"


class UploaderProcess:
    """The process that talks to W&B, see sweeper.tracking.uploader: what it says is in `said`."""

    def __init__(self, store: Store, sweeps: list[str], follow: bool, heard: Callable[[dict[str, Any]], None]) -> None:
        self.said: dict[str, Any] = {}
        self._heard = heard
        module = "sweeper.tracking.uploader"
        command = [sys.executable, "-m", module, str(store.root), *sweeps, "--parent", str(os.getpid())]
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
                start_new_session=True,  # Ctrl-C in the terminal is for this process
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            self.said |= message
            self._heard(message)

    def wait(self, seconds: float | None) -> bool:
        """Whether it ended by itself, and what it said has been heard."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(5)  # wandb-core may hold the pipe for a moment longer
        return True

    def kill(self) -> None:
        """wandb-core ends by itself when the process that it works for is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def all_there(self) -> bool:
        return "url" in self.said

    def missing(self) -> str:
        """How much, and why."""
        why = self.said.get("trouble", "the uploader ended, see wandb/uploading.log in the store")
        if "of" not in self.said:
            return f"not all runs are there yet ({why})"
        left = self.said["of"] - self.said["arrived"]
        if not left:
            return str(why)  # the report is missing
        return f"{left} of {self.said['of']} runs are not there yet ({why})"


class UploadWatcher:
    """A tune.Watcher that passes on which trials have something new; the table and the report follow at the end."""

    def __init__(self, sweep: str, store: Store, again: str) -> None:
        """again: the options that `sweeper wandb sync` needs, if any. Raises EnvironmentUserError without a key."""
        self.sweep, self.store, self.again = sweep, store, again
        self.told = self.in_trouble = False
        _need_key()

    def __enter__(self) -> "UploadWatcher":
        self.uploader = UploaderProcess(self.store, [self.sweep], True, self._hear)
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
            self._wait()
        except KeyboardInterrupt:
            self._say("not waited for")
        finally:
            self.uploader.kill()
        if self.uploader.all_there():
            said = self.uploader.said
            report = f"; report: {said['report']}" if said["report"] else ""
            print(f"W&B: {said.get('of', 0)} runs are at {said['url']}{report}", file=sys.stderr)
        else:
            self._say(self.uploader.missing())

    def started(self, sweep: Sweep, job: Job) -> None:
        pass

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        self._pass_on(job.signature)

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        self._pass_on(f"{job.signature}\t{' '.join(reason.split())[:200]}")

    def _pass_on(self, line: str) -> None:
        """Never waits: the pipe is the queue. What a full one does not take is found at the end."""
        with contextlib.suppress(OSError):  # full, or the uploader is gone
            os.write(self.pipe, f"{line}\n".encode())

    def _wait(self) -> None:
        if self.uploader.wait(1):
            return
        seconds = SECONDS_IN_TROUBLE if self.in_trouble else SECONDS_AT_THE_END
        print(f"W&B: sending what is left, at most {seconds:.0f} s; Ctrl-C skips it", file=sys.stderr)
        self.uploader.wait(seconds)

    def _hear(self, message: dict[str, Any]) -> None:
        self.in_trouble = "trouble" in message
        if self.in_trouble:
            self._say(f"{message['trouble']}; training goes on")

    def _say(self, what: str) -> None:
        """Once: one line is enough to know what to type."""
        if not self.told:
            self.told = True
            print(f"W&B: {what}; {_AGAIN.format(self.again)}", file=sys.stderr)


@contextlib.contextmanager
def watching(manifest: Manifest, store: Store, again: str) -> Iterator[list[UploadWatcher]]:
    """Who reports to W&B while a sweep runs: nobody but for `--wandb online`."""
    if manifest.wandb != "online":
        yield []
        return
    with UploadWatcher(manifest.name, store, again) as tracked:
        yield [tracked]


def _need_key() -> None:
    """Raise EnvironmentUserError when wandb finds none; no server is asked whether it is a good one."""
    import wandb

    wandb.setup(wandb.Settings(silent=True, mode="online"))
    try:
        found = wandb.login(prompt=False, verify=False)
    except wandb.errors.Error as error:
        raise EnvironmentUserError(f"--wandb online: {str(error).splitlines()[0]}; type `wandb login`") from None
    finally:
        wandb.teardown()  # the uploader has its own wandb-core
    if not found:
        raise EnvironmentUserError("--wandb online needs an API key: type `wandb login`, or use offline")


def sync(store: Store, name: str | None, again: str) -> None:
    """Send everything that W&B has not, and check that it is there. Raises EnvironmentUserError unless all of it is."""
    sweeps = [manifest.name for manifest in sent_sweeps(store, name)]
    if not sweeps:
        raise UserError(f"{store.root} holds nothing to send: no sweep, or all were run with --wandb disabled")
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("sending to W&B", total=None)
        uploader = UploaderProcess(
            store, sweeps, False, lambda m: bar.update(task, completed=m.get("arrived"), total=m.get("of"))
        )
        try:
            uploader.wait(None)
        finally:
            uploader.kill()
    if "busy" in uploader.said:
        raise UserError(f"the runs of {store.root} are being sent by another command; wait for it")
    if not uploader.all_there():
        raise EnvironmentUserError(f"W&B: {uploader.missing()}; `{again}` tries again")
    said = uploader.said
    print(f"{said['of'] - said['deleted']} runs are at {said['url']}; all checked")
    if said["deleted"]:
        print(f"deleted there: {said['deleted']}; W&B gives no id twice, but their pages have Undelete")
    if said["report"]:
        print(f"report: {said['report']}")

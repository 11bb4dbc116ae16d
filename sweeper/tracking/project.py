"""A project on a W&B server: sends runs, and checks that they are there. All that is said to W&B about runs is here.

Two traps of wandb 0.31 shape it. `finish()` does not fail when rows, files or artifacts did not get through: so the
server is asked afterwards. And a run that could not begin stays "in use" in wandb-core: so that is started anew.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sweeper.tracking.payload import Table, Upload

_T = TypeVar("_T")

# Seconds. A server that does not answer is to be noticed soon; the command, not wandb, tries again.
_REQUEST = {"timeout_seconds": 7, "retry_max": 1, "retry_wait_min_seconds": 0.5, "retry_wait_max_seconds": 2}
_SETTINGS: dict[str, Any] = {
    "mode": "online",
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "init_timeout": 30,
    "finish_timeout": 60,
    "finish_timeout_raises": True,
    **{
        f"x_{part}_{key}": value
        for part in ("graphql", "file_stream", "file_transfer")
        for key, value in _REQUEST.items()
    },
}
_API_SECONDS = 18  # for an answer through wandb-core, its retries included
_PATIENCE = (0.0, 0.0, 0.5, 1.0, 3.0, 8.0)  # a server may know a little later what it was sent
_TABLE, _SUMMARY, _ALL = "compression", "summary", "everything"


class UploadError(Exception):
    """Why something is not there, in a few words."""


class RunDeletedError(Exception):
    """Someone deleted the run on the server, which gives no id twice."""


def wandb_environment(store: Path) -> dict[str, str]:
    """What the environment lacks so that wandb's own files go into the store. Its settings, where `wandb login` leaves
    a server's address, stay where they are."""
    folder = store / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "ARTIFACT")}
    wanted |= {"WANDB_DIR": str(store), "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def reason(error: BaseException) -> str:
    """What went wrong, for a user, from what wandb raises."""
    text = str(error)
    if found := re.search(r"\b(?:HTTP|status:?|error) (\d{3})\b", text):
        if found[1] in ("401", "403"):
            return "the server refuses the API key; type `wandb login --relogin`"
        return f"the server answers HTTP {found[1]}"
    if re.search(r"refused|no such host|unreachable|reset by peer|EOF", text):
        return "the server cannot be reached"
    if re.search(r"in time|time.?out|timed out|deadline", text, re.IGNORECASE):
        return "the server does not answer"
    if re.search(r"not logged in|credentials|API key|relogin", text):
        return "the server refuses the API key; type `wandb login --relogin`"
    return (text.strip() or type(error).__name__).splitlines()[0][:200]


class Project:
    """The project that WANDB_ENTITY and WANDB_PROJECT name, at WANDB_BASE_URL. Every method may raise UploadError."""

    def __init__(self) -> None:
        import wandb

        wandb.setup(wandb.Settings(**_SETTINGS))
        self._connected: Any = None
        self.name = os.environ.get("WANDB_PROJECT") or "sweeper"
        self.entity: str = os.environ.get("WANDB_ENTITY") or self._ask(lambda: self._api.default_entity)
        # What tells this project from every other one.
        self.key = f"{self._ask(lambda: self._api.settings['base_url'])}/{self.entity}/{self.name}"

    @property
    def _api(self) -> Any:
        """wandb.Api, which asks the server who we are when it is made."""
        if self._connected is None:
            import wandb

            self._connected = wandb.Api(timeout=_API_SECONDS)
        return self._connected

    def _ask(self, what: Callable[[], _T]) -> _T:
        try:
            return what()
        except Exception as error:  # wandb raises a dozen kinds, and none of them may stop a training
            raise UploadError(reason(error)) from error

    @property
    def url(self) -> str:
        import wandb

        return f"{wandb.setup().settings.app_url}/{self.entity}/{self.name}"

    def listed(self, groups: Iterable[str]) -> dict[str, int]:
        """id → rows, of the runs of these groups."""
        return {run.id: run.historyLineCount or 0 for run in self._runs({"group": {"$in": sorted(groups)}}, lazy=True)}

    def _runs(self, filters: dict[str, Any], lazy: bool) -> list[Any]:
        def ask() -> list[Any]:
            self._api.flush()
            try:
                return list(self._api.runs(f"{self.entity}/{self.name}", filters=filters, per_page=500, lazy=lazy))
            except ValueError as error:
                if "Could not find project" in str(error):
                    return []
                raise

        return self._ask(ask)

    def reports(self) -> set[str]:
        """The ids of the project's reports."""
        return self._ask(lambda: {report.id for report in self._api.reports(f"{self.entity}/{self.name}")})

    def send(self, upload: Upload) -> None:
        """Bring a run to what it is to be: only what is not there is sent. Raises UploadError, RunDeletedError."""
        lacks = self._lacks(upload)
        if set(lacks) - {_SUMMARY}:
            try:
                self._log(upload, lacks)
            except Exception as error:
                self._restart()
                if "previously created and deleted" in str(error):
                    raise RunDeletedError from error
                raise error if isinstance(error, UploadError) else UploadError(reason(error)) from error
        self._check(upload)

    def _restart(self) -> None:
        """Another wandb-core: the one there is holds a run that it could not begin or finish."""
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown()
        wandb.setup(wandb.Settings(**_SETTINGS))
        self._connected = None

    def _log(self, upload: Upload, lacks: list[str]) -> None:
        import wandb

        run = wandb.init(
            project=self.name,
            entity=self.entity,
            id=upload.id,
            name=upload.name,
            group=upload.group,
            job_type=upload.job_type,
            config=upload.config,
            mode="online",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**_SETTINGS),
        )
        folder = Path(run.dir).parent
        try:
            for step in upload.steps:
                if step.updates >= run.starting_step:  # what is below it is there
                    picture = {"samples": wandb.Image(str(step.picture))} if step.picture else {}
                    run.log({**step.values, **picture}, step=step.updates)
            if upload.table and not {_ALL, _TABLE}.isdisjoint(lacks):
                content = {_TABLE: _as_table(upload.table), "content": upload.summary["content"]}
                run.log(content, step=run.starting_step)
            run.summary.update(upload.summary)
        finally:
            run.finish()
        shutil.rmtree(folder, ignore_errors=True)  # the store has it all

    # What has arrived.

    def _check(self, upload: Upload) -> None:
        """Raise UploadError unless the server has all of it. Send again pictures whose row alone is there, and
        the summary: wandb drops parts of it when it resumes a run."""
        lacks: list[str] = []
        for seconds in _PATIENCE:
            time.sleep(seconds)
            lacks = self._lacks(upload)
            if lacks == [_SUMMARY]:
                self._ask(lambda: self._run(upload).summary.update(upload.summary))
            elif not lacks and not (lacks := self._mend_pictures(upload)):
                return
        raise UploadError(f"the server lacks {' and '.join(lacks)} of {upload.name}")

    def _lacks(self, upload: Upload) -> list[str]:
        """What of a run is not there as it is to be, but for its pictures."""
        run = self._run(upload)
        if run is None:
            return [_ALL]
        rows = self._rows(run)
        steps = [row["_step"] for row in rows]
        wanted: dict[str, Any] = {**upload.config, "name": upload.name, "group": upload.group}
        there: dict[str, Any] = {**run.config, "name": run.name, "group": run.group}
        found = {
            # W&B takes no row below the last: of a sweep whose rungs were moved down it keeps what it has.
            "steps": all(step.updates in steps or step.updates < max(steps, default=0) for step in upload.steps),
            "configuration": all(there.get(key) == value for key, value in wanted.items()),
            "an end": run.state == "finished",
            _TABLE: upload.table is None or self._has_table(run, rows, upload),
            _SUMMARY: all(run.summary.get(key) == value for key, value in upload.summary.items()),
        }
        return [what for what, is_there in found.items() if not is_there]

    def _run(self, upload: Upload) -> Any:
        found = self._runs({"name": upload.id}, lazy=False)
        return found[0] if found else None

    def _mend_pictures(self, upload: Upload) -> list[str]:
        """Send those that are not there, or not whole; what was sent."""
        pictures = {step.updates: step.picture for step in upload.steps if step.picture}
        if not pictures:
            return []
        run = self._run(upload)
        rows = [row for row in self._rows(run) if row.get("samples") and row["_step"] in pictures]
        files = self._ask(lambda: list(run.files(names=[row["samples"]["path"] for row in rows], per_page=500)))
        there = {(file.name, file.size) for file in files}
        absent = [row for row in rows if (row["samples"]["path"], row["samples"]["size"]) not in there]
        for row in absent:
            self._send_file(run, row["samples"]["path"], pictures[row["_step"]])
        return [f"{len(absent)} pictures"] if absent else []

    def _rows(self, run: Any) -> list[dict[str, Any]]:
        return self._ask(lambda: list(run.history(samples=100_000, pandas=False)))

    def _send_file(self, run: Any, path: str, picture: Path | None) -> None:
        assert picture is not None
        with tempfile.TemporaryDirectory(prefix="sweeper-wandb-") as folder:
            copy = Path(folder) / path
            copy.parent.mkdir(parents=True)
            shutil.copyfile(picture, copy)
            self._ask(lambda: run.upload_file(str(copy), root=folder))

    def _has_table(self, run: Any, rows: list[dict[str, Any]], upload: Upload) -> bool:
        """Whether the newest table there is this one, and whole: else it is logged (again) as a further step, because
        a row cannot be mended."""
        if not rows or rows[-1].get("content") != upload.summary["content"] or upload.table is None:
            return False
        file = rows[-1][_TABLE]
        files = self._ask(lambda: list(run.files(names=[file["path"]])))
        is_whole = any(found.size == file["size"] for found in files)
        return is_whole and self._artifact_digest(upload.id) == _digest_of(upload.table)

    def _artifact_digest(self, run: str) -> str | None:
        import wandb

        name = f"{self.entity}/{self.name}/run-{run}-{_TABLE}:latest"
        try:
            artifact = self._api.artifact(name)
        except wandb.errors.CommError as error:
            if "not found" in str(error):
                return None
            raise UploadError(reason(error)) from error
        return str(artifact.digest) if artifact.state == "COMMITTED" else None


def _as_table(table: Table) -> Any:
    import wandb

    def cell(value: Any) -> Any:
        return wandb.Image(str(value)) if isinstance(value, Path) else value

    return wandb.Table(columns=[*table.columns], data=[[cell(value) for value in row] for row in table.rows])


def _digest_of(table: Table) -> str:
    """Of the artifact that wandb makes of a logged table: a function of its content."""
    import wandb

    artifact = wandb.Artifact("table", type="table")
    artifact.add(_as_table(table), _TABLE)
    return str(artifact.digest)

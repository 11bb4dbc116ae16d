"""A project on a W&B server: uploads runs and verifies them. All requests to W&B about runs are made here.

Two defects of wandb 0.31 require workarounds. `finish()` does not fail if rows, files or artifacts were not uploaded,
so the server is queried afterwards. A run that could not start stays "in use" in wandb-core, so it is restarted.
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

# Detect within seconds a server that does not answer. The uploader retries, not wandb.
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
_API_SECONDS = 18  # timeout of a request through wandb-core, including its retries
_CHECK_PAUSES = (0.0, 0.0, 0.5, 1.0, 3.0, 8.0)  # seconds between checks; a server may list an upload with a delay
_TABLE, _SUMMARY, _ALL = "compression", "summary", "everything"


class UploadError(Exception):
    """Why an upload failed, in a few words."""


class RunDeletedError(Exception):
    """The run was deleted on the server, which does not reuse its id."""


def wandb_environment(store: Path) -> dict[str, str]:
    """Environment variables that keep wandb's files inside the store.

    Variables that are already set are omitted. wandb's settings directory, where `wandb login` saves the server's
    address, is unchanged.
    """
    folder = store / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    variables = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "ARTIFACT")}
    variables |= {"WANDB_DIR": str(store), "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    return {name: value for name, value in variables.items() if name not in os.environ}


def _settings() -> Any:
    """Return the settings of wandb. Leave out those that this version of it does not know."""
    import wandb

    known = wandb.Settings.model_fields
    return wandb.Settings(**{name: value for name, value in _SETTINGS.items() if name in known})


def reason(error: BaseException) -> str:
    """Return the cause of an error that wandb raised, for the user."""
    text = str(error)
    if status := re.search(r"\b(?:HTTP|status:?|error) (\d{3})\b", text):
        if status[1] in ("401", "403"):
            return "the server refuses the API key; run `wandb login --relogin`"
        return f"the server answers HTTP {status[1]}"
    if re.search(r"refused|no such host|unreachable|reset by peer|EOF", text):
        return "the server cannot be reached"
    if re.search(r"in time|time.?out|timed out|deadline", text, re.IGNORECASE):
        return "the server does not answer"
    if re.search(r"not logged in|credentials|API key|relogin", text):
        return "the server refuses the API key; run `wandb login --relogin`"
    return (text.strip() or type(error).__name__).splitlines()[0][:200]


class Project:
    """The project of WANDB_ENTITY and WANDB_PROJECT at WANDB_BASE_URL. Every method may raise UploadError."""

    def __init__(self) -> None:
        import wandb

        wandb.setup(_settings())
        self._connected: Any = None
        self.name = os.environ.get("WANDB_PROJECT") or "sweeper"
        self.entity: str = os.environ.get("WANDB_ENTITY") or self._request(lambda: self._api.default_entity)
        # Identifies the project among all servers.
        self.key = f"{self._request(lambda: self._api.settings['base_url'])}/{self.entity}/{self.name}"

    @property
    def _api(self) -> Any:
        """Return wandb.Api, which queries the server for the user when it is created."""
        if self._connected is None:
            import wandb

            self._connected = wandb.Api(timeout=_API_SECONDS)
        return self._connected

    def _request(self, call: Callable[[], _T]) -> _T:
        """Return the result of a call to wandb. Raises UploadError."""
        try:
            return call()
        except Exception as error:  # wandb raises many types; none may stop training
            raise UploadError(reason(error)) from error

    @property
    def url(self) -> str:
        import wandb

        return f"{wandb.setup().settings.app_url}/{self.entity}/{self.name}"

    def listed(self, groups: Iterable[str]) -> dict[str, int]:
        """Return run id → number of rows, for the runs of these groups."""
        return {run.id: run.historyLineCount or 0 for run in self._runs({"group": {"$in": sorted(groups)}}, lazy=True)}

    def _runs(self, filters: dict[str, Any], lazy: bool) -> list[Any]:
        def query() -> list[Any]:
            self._api.flush()
            try:
                return list(self._api.runs(f"{self.entity}/{self.name}", filters=filters, per_page=500, lazy=lazy))
            except ValueError as error:
                if "Could not find project" in str(error):
                    return []
                raise

        return self._request(query)

    def reports(self) -> set[str]:
        """Return the ids of the project's reports."""
        return self._request(lambda: {report.id for report in self._api.reports(f"{self.entity}/{self.name}")})

    def send(self, upload: Upload) -> None:
        """Upload what the server is missing of a run, and verify it. Raises UploadError, RunDeletedError."""
        missing = self._missing(upload)
        if set(missing) - {_SUMMARY}:
            try:
                self._log(upload, missing)
            except Exception as error:
                self._restart()
                if "previously created and deleted" in str(error):
                    raise RunDeletedError from error
                raise error if isinstance(error, UploadError) else UploadError(reason(error)) from error
        self._check(upload)

    def _restart(self) -> None:
        """Restart wandb-core, which holds a run that it could not start or finish."""
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown()
        wandb.setup(_settings())
        self._connected = None

    def _log(self, upload: Upload, missing: list[str]) -> None:
        """Create or resume the run, and log what is missing."""
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
            settings=_settings(),
        )
        folder = Path(run.dir).parent
        try:
            for step in upload.steps:
                if step.updates >= run.starting_step:  # earlier steps are on the server
                    picture = {"samples": wandb.Image(str(step.picture))} if step.picture else {}
                    run.log({**step.values, **picture}, step=step.updates)
            if upload.table and not {_ALL, _TABLE}.isdisjoint(missing):
                content = {_TABLE: _as_table(upload.table), "content": upload.summary["content"]}
                run.log(content, step=run.starting_step)
            run.summary.update(upload.summary)
        finally:
            run.finish()
        shutil.rmtree(folder, ignore_errors=True)  # a copy of what the store has

    def _check(self, upload: Upload) -> None:
        """Raise UploadError unless the server has the whole run.

        Upload again missing pictures, and the summary: wandb drops parts of it when it resumes a run.
        """
        missing: list[str] = []
        for seconds in _CHECK_PAUSES:
            time.sleep(seconds)
            missing = self._missing(upload)
            if missing == [_SUMMARY]:
                self._request(lambda: self._run(upload).summary.update(upload.summary))
            elif not missing and not (missing := self._upload_pictures(upload)):
                return
        raise UploadError(f"the server is missing {' and '.join(missing)} of {upload.name}")

    def _missing(self, upload: Upload) -> list[str]:
        """Return the parts of a run, except pictures, that the server does not have."""
        run = self._run(upload)
        if run is None:
            return [_ALL]
        rows = self._rows(run)
        steps = [row["_step"] for row in rows]
        expected: dict[str, Any] = {**upload.config, "name": upload.name, "group": upload.group}
        actual: dict[str, Any] = {**run.config, "name": run.name, "group": run.group}
        complete = {
            # W&B accepts no row before the last one, so rungs that were added before it are never uploaded.
            "steps": all(step.updates in steps or step.updates < max(steps, default=0) for step in upload.steps),
            "configuration": all(actual.get(key) == value for key, value in expected.items()),
            "the finished state": run.state == "finished",
            _TABLE: upload.table is None or self._has_table(run, rows, upload),
            _SUMMARY: all(run.summary.get(key) == value for key, value in upload.summary.items()),
        }
        return [part for part, is_complete in complete.items() if not is_complete]

    def _run(self, upload: Upload) -> Any:
        runs = self._runs({"name": upload.id}, lazy=False)
        return runs[0] if runs else None

    def _upload_pictures(self, upload: Upload) -> list[str]:
        """Upload the pictures that are missing or incomplete. Return their number in words, or an empty list."""
        pictures = {step.updates: step.picture for step in upload.steps if step.picture}
        if not pictures:
            return []
        run = self._run(upload)
        rows = [row for row in self._rows(run) if row.get("samples") and row["_step"] in pictures]
        files = self._request(lambda: list(run.files(names=[row["samples"]["path"] for row in rows], per_page=500)))
        complete = {(file.name, file.size) for file in files}
        absent = [row for row in rows if (row["samples"]["path"], row["samples"]["size"]) not in complete]
        for row in absent:
            self._upload_file(run, row["samples"]["path"], pictures[row["_step"]])
        return [f"{len(absent)} pictures"] if absent else []

    def _rows(self, run: Any) -> list[dict[str, Any]]:
        return self._request(lambda: list(run.history(samples=100_000, pandas=False)))

    def _upload_file(self, run: Any, path: str, picture: Path | None) -> None:
        assert picture is not None
        with tempfile.TemporaryDirectory(prefix="sweeper-wandb-") as folder:
            copy = Path(folder) / path
            copy.parent.mkdir(parents=True)
            shutil.copyfile(picture, copy)
            self._request(lambda: run.upload_file(str(copy), root=folder))

    def _has_table(self, run: Any, rows: list[dict[str, Any]], upload: Upload) -> bool:
        """Return whether the server's latest table is this one, and complete.

        If not, the table is logged as a further step, because a row cannot be changed.
        """
        if not rows or rows[-1].get("content") != upload.summary["content"] or upload.table is None:
            return False
        file = rows[-1][_TABLE]
        files = self._request(lambda: list(run.files(names=[file["path"]])))
        is_complete = any(stored.size == file["size"] for stored in files)
        return is_complete and self._artifact_digest(upload.id) == _digest_of(upload.table)

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
    """Return the digest of the artifact that wandb makes of a logged table. It depends on the content only."""
    import wandb

    artifact = wandb.Artifact("table", type="table")
    artifact.add(_as_table(table), _TABLE)
    return str(artifact.digest)

"""W&B, from the driver alone: one run per trial, and the compression table. What is logged comes from the store."""

import os
from typing import Any

from sweeper import table as tables
from sweeper.store import RungRecord, Store
from sweeper.sweep import Job, Sweep
from trainables.errors import EnvironmentUserError
from trainables.spec import TrialSpec

_LEAN: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 0.1,  # what is logged survives a kill
}


class Tracking:
    """A launch.Watcher that logs. A trial's run has id STORE-SIGNATURE, so that nothing doubles; steps are updates."""

    def __init__(self, sweep: Sweep, store: Store, mode: str) -> None:
        self.sweep, self.store, self.mode = sweep, store, mode
        self.runs: dict[str, Any] = {}
        folder = store.root / "wandb"
        folder.mkdir(exist_ok=True)
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ.setdefault(name, str(folder.parent if name == "WANDB_DIR" else folder / name[6:-4].lower()))

    def __enter__(self) -> "Tracking":
        if self.mode == "online":
            import wandb

            if wandb.api.api_key is None:
                raise EnvironmentUserError("--wandb online needs an API key: type `wandb login`, or use offline")
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs.values():
            run.finish()

    def started(self, sweep: Sweep, job: Job) -> None:
        pass

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None:
        run = self._run(job.signature)
        run.summary["failure"] = reason

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None:
        run = self._run(job.signature)
        scores = {f"rung/{name}": score["mean"] for name, score in record.scores.items()}
        losses = {f"loss/{name}": value for name, value in record.losses.items()}
        run.log(
            {**scores, **losses, "seconds": record.seconds, "updates": record.updates}, step=record.updates, commit=True
        )
        run.summary["diverged"] = record.diverged
        final = sweep.final(job.signature)
        if final is not None:
            for name, score in final.report.items():
                run.summary.update({f"report/{name}": score["mean"], f"report/{name}/std": score["std"]})
            run.summary["protocol"] = final.report["fid"]["protocol"]
            run.finish()
            del self.runs[job.signature]

    def log_table(self, table: dict[str, Any]) -> None:
        """The compression table as a wandb.Table, in a run of its own."""
        import wandb

        run = self._init("table-" + self.sweep.manifest.name, "table", {})
        heads = tables.columns(table["metric"])
        run.log({"compression": wandb.Table(columns=list(heads), data=tables.cells(table))})
        run.finish()

    def _run(self, signature: str) -> Any:
        if signature not in self.runs:
            spec: TrialSpec = self.sweep.records[signature].spec
            self.runs[signature] = self._init(signature, spec.role, spec.canonical(), spec.label())
        return self.runs[signature]

    def _init(self, key: str, job_type: str, config: dict[str, Any], name: str | None = None) -> Any:
        import wandb

        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sweeper"),
            id=f"{self.store.id}-{key}".replace("@", "-"),
            name=name or key,
            group=self.sweep.manifest.name,
            job_type=job_type,
            config=config,
            mode=self.mode,  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**_LEAN),
        )

"""The process of the jobs: Tune's trainable, which runs one job after another.

The command imports sweeper.execution.tune before this module: it sets what Ray reads when it is imported.
"""

import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from sweeper.execution import job as jobs
from sweeper.execution import memory
from sweeper.execution.failures import UnexpectedError
from sweeper.execution.pulse import Pulse
from sweeper.records import Manifest
from sweeper.scheduling.sweep import Job
from sweeper.store import Store
from trainables import plugins
from trainables.errors import EnvironmentUserError, Interrupted, UserError
from trainables.notes import notes

NODE_LABEL = "ray.io/node-id"  # Ray gives it to every node


class TrialActor(tune.Trainable):
    """Runs one job after another in one process, so that data, classifier and bank load once.

    Raises UnexpectedError instead of a result for an error that may be the machine's, but for a lack of memory. Tune
    then ends the process, and the job is tried in another one.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config
        self.job = Job(config["signature"], config["updates"])
        self.share: dict[str, float] = config["share"]
        self.pulse = getattr(self, "pulse", None) or Pulse()

    def step(self) -> dict[str, Any]:
        memory.reset_peak()
        result = self._run_job()
        # Released out here, because a caught exception keeps the tensors of its frames alive.
        result |= {**memory.release(), "notes": list(notes)}
        if "unexpected" in result:
            raise result["unexpected"]
        return {"done": True, **result}

    def _run_job(self) -> dict[str, Any]:
        """Run the job. Return what went wrong, if anything."""
        try:
            self._open_store()
            self.pulse.begin(self.job.signature)
            for reference, identity in self.config["plugins"]:
                plugins.load(reference, expected=identity)
            self.work()
        except Interrupted:
            return {"interrupted": True}
        except torch.OutOfMemoryError:
            reason = "out of memory on a whole GPU; try a smaller batch_size, or --precision bf16"
            return {"failure": reason, "out_of_memory": True}
        except EnvironmentUserError as error:
            return {"unexpected": UnexpectedError.of(error)}
        except UserError as error:
            return {"failure": str(error), "exit_code": error.exit_code}
        except Exception as error:
            self._save_traceback()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return {"unexpected": UnexpectedError(reason, _place(error))}
        return {}

    def _open_store(self) -> None:
        self.store = Store(Path(self.config["store"]), self.config["token"])
        self.sweep: Manifest = self.store.require_sweep(self.config["sweep"])

    def _save_traceback(self) -> None:
        """Keep the traceback in the store, if the store is what still works."""
        try:
            self.store.save_traceback(self.job.signature, traceback.format_exc())
        except (OSError, AttributeError):
            return

    def work(self) -> None:
        jobs.run(self.job, self.sweep, self.store, self.pulse, self.config["checkpoint_seconds"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: trainables.training reads and writes the checkpoint."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: trainables.training reads and writes the checkpoint."""


def _place(error: Exception) -> str:
    """Return where an error was raised, and its type. Messages differ between jobs: they name files and numbers."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {frame.filename}:{frame.lineno}"


def resources_of(config: dict[str, Any]) -> tune.PlacementGroupFactory | dict[str, float]:
    """Return what Tune is to reserve for a job. On a cluster that is on the node for which its share was computed."""
    if not config["node"]:
        return dict(config["share"])
    bundle = {name.upper(): amount for name, amount in config["share"].items()}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[{NODE_LABEL: config["node"]}])

"""sweeper: the sweep of teachers, students and controls that compresses a GAN by knowledge distillation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.results.notebook import Runs

__version__ = "0.1.0"


def open(store: str | Path = "runs", plugins: Sequence[str] = ()) -> "Runs":
    """The sweeps of a store as DataFrames and figures. Raises UserError if the folder is no store.

    plugins: Python files or modules, as after --plugin.
    """
    from sweeper.results.notebook import Runs
    from sweeper.store import Store
    from trainables.errors import UserError
    from trainables.plugins import load, load_installed

    if not Path(store).exists():
        raise UserError(f"{store} is not there; name the folder that `sweeper run` was given with --store")
    load_installed()
    for reference in plugins:
        load(reference)
    return Runs(Store(Path(store)))

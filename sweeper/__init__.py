"""sweeper: compress GANs by knowledge distillation, with sweeps of teachers, students and controls."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.results.notebook import Runs

__version__ = "0.1.0"


def open(store: str | Path = "runs", plugins: Sequence[str] = ()) -> "Runs":
    """Open a store to read its sweeps as DataFrames and figures. Raises UserError if the folder is not a store.

    plugins: Python files or modules, as for --plugin.
    """
    from sweeper.results.notebook import Runs
    from sweeper.store import Store
    from trainables.errors import UserError
    from trainables.plugins import load, load_installed

    if not Path(store).exists():
        raise UserError(f"{store} does not exist; name the --store folder of `sweeper run`")
    load_installed()
    for reference in plugins:
        load(reference)
    return Runs(Store(Path(store)))

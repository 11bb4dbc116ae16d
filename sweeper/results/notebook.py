"""A store's sweeps as DataFrames and figures, for notebooks: `import sweeper; runs = sweeper.open("runs")`."""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sweeper.results.comparison import Comparison
from sweeper.results.lines import flat
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from trainables.dataset_identity import identify, registered_name
from trainables.errors import UserError
from trainables.extras import require

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Runs:
    """The sweeps of a store.

    name: a data set or a sweep. It may be omitted if the store has one comparison. Methods raise NotYetError if the
    store has no sweep, UserError if the name matches several comparisons or none.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def __repr__(self) -> str:
        return f"Runs({str(self.store.root)!r}: {', '.join(self.sweeps()) or 'no sweeps'})"

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps."""
        return [manifest.name for manifest in self.store.sweeps()]

    def table(self, name: str | None = None) -> "pd.DataFrame":
        """Return the compression table like `sweeper table --format csv`: a row per shape, the teacher's last."""
        import pandas as pd

        return pd.DataFrame(flat(self._comparison(name).table))

    def trials(self, name: str | None = None) -> "pd.DataFrame":
        """Return spec, state, scores and losses, a row per trial and rung, of a sweep or of a data set's comparison."""
        import pandas as pd

        manifest = self.store.sweep(name) if name else None
        sweeps = [Sweep.read(manifest, self.store)] if manifest else self._comparison(name).sweeps
        return pd.DataFrame([line for sweep in sweeps for line in _lines(sweep)])

    def pareto(
        self, name: str | None = None, score: str = "fid", latency: Mapping[str, float] | None = None
    ) -> "go.Figure":
        """Plot a score (fid or is) over size. latency: label of a shape, such as d=8, → seconds per image."""
        return _figures().pareto(self._comparison(name), _check_score(score), latency)

    def alpha(self, name: str | None = None, score: str = "fid") -> "go.Figure":
        """Plot a score (fid or is) over alpha, a line per shape."""
        return _figures().alpha(self._comparison(name), _check_score(score))

    def rungs(self, name: str | None = None, role: str = "student") -> "go.Figure":
        """Plot FID over updates for every configuration. role: student or teacher."""
        return _figures().rungs(self._comparison(name), role)

    def curves(self, name: str | None = None) -> "go.Figure":
        """Plot scores and loss over updates for the trials in the table."""
        return _figures().curves(self._comparison(name))

    def blur(self, name: str | None = None) -> "go.Figure":
        """Plot the sharpness per shape."""
        return _figures().blur(self._comparison(name))

    def _comparison(self, name: str | None) -> Comparison:
        names = self.sweeps()
        if name is None or name in names:
            return Comparison.read(self.store, None, name)
        datasets = sorted({manifest.dataset for manifest in self.store.sweeps()})
        if name in datasets or name in {registered_name(dataset) for dataset in datasets}:
            return Comparison.read(self.store, identify(name, self.store.datasets), None)
        raise UserError(
            f"{name!r} is not a data set or sweep of {self.store.root}; it has {', '.join(datasets + names)}"
        )


def _figures() -> ModuleType:
    """Return the module of the figures. Raises EnvironmentUserError without Plotly."""
    require("report", "a figure")
    from sweeper.results import figures

    return figures


def _check_score(score: str) -> str:
    if score not in ("fid", "is"):
        raise UserError(f"score={score} is not plotted; use fid or is")
    return score


def _lines(sweep: Sweep) -> list[dict[str, Any]]:
    states, protocol, lines = sweep.states(), sweep.manifest.protocols["rung"], []
    confirming = set(sweep.confirming)
    for signature, record in sweep.records.items():
        trial: dict[str, Any] = {"sweep": sweep.manifest.name, "signature": signature, "state": states[signature]}
        trial["fresh"] = signature in confirming
        trial |= dataclasses.asdict(record.spec)
        for rung in record.rungs:
            if rung.diverged or rung.scores["fid"]["protocol"] == protocol:
                scores = {name: score["mean"] for name, score in rung.scores.items()}
                losses = {f"loss_{name}": value for name, value in rung.losses.items()}
                lines.append({**trial, "updates": rung.updates, "diverged": rung.diverged, **scores, **losses})
    return lines

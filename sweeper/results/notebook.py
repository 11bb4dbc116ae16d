"""For notebooks: a store's sweeps as DataFrames and figures. `import sweeper; runs = sweeper.open("runs")`."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.results.comparison import Comparison
from sweeper.results.table import flat
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from trainables.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Runs:
    """A store. A comparison is named by its data set, or by its student sweep; by neither, if there is but one.

    Methods raise NotYetError where nothing has been run, UserError where a name fits several sweeps or none.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def __repr__(self) -> str:
        return f"Runs({str(self.store.root)!r}: {', '.join(self.sweeps()) or 'no sweeps'})"

    def sweeps(self) -> list[str]:
        return [manifest.name for manifest in self.store.sweeps()]

    def table(self, name: str | None = None) -> "pd.DataFrame":
        """The compression table, a row per d and the teacher's last: what `sweeper table --format csv` prints."""
        import pandas as pd

        return pd.DataFrame(flat(self._comparison(name).table))

    def trials(self, name: str | None = None) -> "pd.DataFrame":
        """A row per trial and rung of a sweep, or of both sweeps of a comparison: spec, state, scores, losses."""
        import pandas as pd

        manifest = self.store.sweep(name) if name else None
        sweeps = [Sweep.read(manifest, self.store)] if manifest else self._comparison(name).sweeps
        return pd.DataFrame([line for sweep in sweeps for line in _lines(sweep)])

    def pareto(
        self, name: str | None = None, score: str = "fid", latency: Mapping[str, float] | None = None
    ) -> "go.Figure":
        """A score (fid or is) over size. latency: label, such as d=8, → seconds per image: one more size."""
        from sweeper.results import figures

        return figures.pareto(self._comparison(name), _known(score), latency)

    def alpha(self, name: str | None = None, score: str = "fid") -> "go.Figure":
        """A score (fid or is) over alpha, a line per d."""
        from sweeper.results import figures

        return figures.alpha(self._comparison(name), _known(score))

    def rungs(self, name: str | None = None, role: str = "student") -> "go.Figure":
        """FID over updates of every configuration. role: student or teacher."""
        from sweeper.results import figures

        return figures.rungs(self._comparison(name), role)

    def curves(self, name: str | None = None) -> "go.Figure":
        """Scores and loss over updates of the chosen trials."""
        from sweeper.results import figures

        return figures.curves(self._comparison(name))

    def blur(self, name: str | None = None) -> "go.Figure":
        """Sharpness per d."""
        from sweeper.results import figures

        return figures.blur(self._comparison(name))

    def _comparison(self, name: str | None) -> Comparison:
        names = self.sweeps()
        if name is None or name in names:
            return Comparison.read(self.store, None, name)
        datasets = sorted({manifest.dataset for manifest in self.store.sweeps()})
        if name in datasets:
            return Comparison.read(self.store, name, None)
        raise UserError(f"{name!r} is no data set or sweep of {self.store.root}; it has {', '.join(datasets + names)}")


def _known(score: str) -> str:
    if score not in ("fid", "is"):
        raise UserError(f"score={score}: there are figures of fid and is")
    return score


def _lines(sweep: Sweep) -> list[dict[str, Any]]:
    states, protocol, found = sweep.states(), sweep.manifest.protocols["rung"], []
    for signature, record in sweep.records.items():
        trial = {"sweep": sweep.manifest.name, "signature": signature, "state": states[signature]}
        trial |= dataclasses.asdict(record.spec)
        for rung in record.rungs:
            if rung.diverged or rung.scores["fid"]["protocol"] == protocol:
                scores = {name: score["mean"] for name, score in rung.scores.items()}
                losses = {f"loss_{name}": value for name, value in rung.losses.items()}
                found.append({**trial, "updates": rung.updates, "diverged": rung.diverged, **scores, **losses})
    return found

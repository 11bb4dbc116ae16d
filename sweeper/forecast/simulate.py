"""`sweeper simulate`: read the curves and the rungs, and print the comparison."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper.forecast.curves import Curve, curves_of, read_curves
from sweeper.forecast.simulator import Scenario, compare
from sweeper.records import Manifest
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store, dump
from trainables.errors import NotYetError, UserError

NAMES = {"sweeper": "sweeper's", "no_pruning": "no pruning", "stop_only": "stop-only ASHA (Ray Tune's)"}


@dataclass(frozen=True, kw_only=True)
class SimulateRequest:
    """The options of `sweeper simulate`."""

    curves: Path | None
    name: str | None  # a sweep of the store
    store: Path
    slots: float
    eta: int | None
    first_rung: int | None
    rungs: int | None  # maximum number of rungs before the budget
    updates: int | None
    orders: int
    as_json: bool


def run(request: SimulateRequest) -> None:
    """Print the simulated sweeps. Raises UserError for a wrong option, NotYetError without a rung record."""
    if not math.isfinite(request.slots):
        raise UserError(f"--slots {request.slots}: give a number of slots, for example --slots 8")
    result = compare(_scenario(request))
    if request.as_json:
        print(dump(result))
    else:
        _show(result)


def _scenario(request: SimulateRequest) -> Scenario:
    manifest: Manifest | None = None
    if request.curves is not None:
        if not request.curves.is_file():
            raise UserError(
                f"--curves {request.curves}: there is no such file; name a file of JSON lines, or leave out --curves"
            )
        curves = read_curves(request.curves)
    else:
        manifest = _manifest(Store(request.store), request.name)
        curves = curves_of(Sweep.read(manifest, Store(request.store)))
    if not curves:
        raise NotYetError("no trial of that sweep has a score at a rung yet; run its command first")
    eta = request.eta or (manifest.eta if manifest and manifest.eta > 1 else 3)
    return Scenario(curves, _ladder(request, curves, manifest, eta), eta, request.slots, request.orders)


def _manifest(store: Store, name: str | None) -> Manifest:
    sweeps = {manifest.name: manifest for manifest in store.sweeps()}
    if not sweeps:
        raise NotYetError(
            f"{store.root} holds no sweep; name a file with --curves, or run `sweeper run teachers` first"
        )
    if name is None and len(sweeps) > 1:
        raise UserError(f"{store.root} holds {', '.join(sweeps)}; add --name {next(iter(sweeps))}")
    if name is not None and name not in sweeps:
        raise UserError(f"--name {name}: {store.root} holds {', '.join(sweeps)}; name one of them")
    return sweeps[name] if name else next(iter(sweeps.values()))


def _ladder(request: SimulateRequest, curves: list[Curve], manifest: Manifest | None, eta: int) -> list[int]:
    """Return the rungs in updates.

    By default the sweep's own; of a file, a geometric ladder from its first points to its last.
    """
    default = (
        manifest.rungs if manifest else [min(c.points[0][0] for c in curves), max(c.points[-1][0] for c in curves)]
    )
    if manifest and not (request.eta or request.first_rung or request.updates) and request.rungs is None:
        return default
    budget, rung = request.updates or default[-1], request.first_rung or default[0]
    ladder: list[int] = []
    while rung < budget and (request.rungs is None or len(ladder) < request.rungs):
        ladder.append(rung)
        rung *= eta
    return [*ladder, budget]


def _show(result: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    rungs = ", ".join(map(str, result["rungs"]))
    console.print(
        f"{result['trials']} trials on {result['slots']:g} slots; rungs at {rungs} updates, eta {result['eta']}"
    )
    unpruned = result["rules"].get("no_pruning")
    strata = list(result["rules"]["sweeper"]["best"])
    shown = strata if len(strata) <= 6 else []
    table = Table(box=None, padding=(0, 2))
    headings = ["rule", "updates", "of unpruned", "makespan, s", "lower bound, s", *(f"best, {s}" for s in shown)]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for key, name in NAMES.items():
        if key not in result["rules"]:
            continue
        rule = result["rules"][key]
        best = [rule["best"][stratum] for stratum in shown]
        table.add_row(
            name,
            f"{rule['updates']:,.0f}",
            f"{rule['updates'] / unpruned['updates']:.1%}" if unpruned else "—",
            f"{rule['makespan_seconds']:,.0f}",
            f"{rule['lower_bound_seconds']:,.0f}" if rule["lower_bound_seconds"] else "—",
            *("diverged" if score is None else f"{score:.2f}" for score in best),
        )
    console.print(table)
    if unpruned is None:
        console.print("no comparison: the curves of pruned trials end early; record complete curves with --no-pruning")
    if result["orders"] > 1:
        console.print(f"means over {result['orders']} orders")

"""`sweeper plan`: what a sweep will cost, before anything is trained: the real rule and order over costs of trials."""

import dataclasses
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper.execution.resources import Machine, share
from sweeper.forecast.cost import TABLE, Cost, TableCosts, TimedCosts
from sweeper.forecast.curves import Curve
from sweeper.forecast.simulator import Outcome, simulate
from sweeper.request import Request, Resolved, resolve, say
from sweeper.scheduling.successive_halving import Step
from sweeper.scheduling.sweep import Sweep
from sweeper.store import dump
from trainables.arithmetic import device_bytes
from trainables.bank import missing
from trainables.errors import UserError
from trainables.images import decoded_bytes, describe
from trainables.scores.protocol import REPORT_SETS
from trainables.shapes import DEFAULT_FAMILY, GeneratorShape
from trainables.spec import TrialSpec


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What the command line asks for beside the sweep."""

    request: Request
    gpus: int | None
    gpu_type: str | None
    throughputs: Path | None
    price: float | None  # of a GPU, or of a machine without one, for an hour
    as_json: bool


def run(request: PlanRequest) -> None:
    """Print the plan. Raises UserError as `sweeper run` would."""
    if request.gpu_type is None and (request.gpus or request.throughputs):
        raise UserError("--gpus and --throughputs plan for cards that are not here: add --gpu-type, for example A100")
    if request.price is not None and not math.isfinite(request.price):
        raise UserError(f"--price {request.price}: not a number of money; try --price 1.5")
    asked = resolve(request.request)
    channels, features = describe(asked.dataset, asked.image_size, asked.store.datasets, asked.folder)
    features = asked.features(features)
    teacher = asked.store.require(asked.teacher.signature).spec if asked.teacher else None
    costs: TimedCosts | TableCosts
    if request.gpu_type:
        costs = TableCosts(request.gpu_type, request.throughputs or TABLE, teacher)
    else:
        costs = TimedCosts(say, teacher)
    plan = _plan(request, asked, asked.specs(channels), features, costs, _machine(request, costs))
    if request.as_json:
        print(dump(plan))
    else:
        _show(plan)


def _machine(request: PlanRequest, costs: TimedCosts | TableCosts) -> Machine:
    """What is named, or what Ray sees."""
    if isinstance(costs, TableCosts):
        gpus = request.gpus or 1
        return Machine(cpus=8 * gpus, gpus=gpus, gpu_bytes=costs.memory)
    from sweeper.execution import tune

    with tune.session(request.request.address, None) as machine:
        return machine


def _plan(
    request: PlanRequest,
    asked: Resolved,
    specs: list[TrialSpec],
    features: str,
    costs: TimedCosts | TableCosts,
    machine: Machine,
) -> dict[str, Any]:
    space, ladder, limit = asked.space, asked.space.ladder(), request.request.slots
    capacity, least = machine.gpus or machine.cpus, asked.store.min_shares()
    data = decoded_bytes(asked.dataset, asked.image_size, asked.store.datasets)
    allotted = {
        spec.signature: share(spec, costs.teacher, machine, data, least.get(spec.generator.label, 0.0))
        for spec in specs
    }
    needs = {spec.signature: device_bytes(spec, costs.teacher, data, machine.gpu_bytes) for spec in specs}
    shares = {signature: one.gpus or one.cpus for signature, one in allotted.items()}
    cost = {spec.signature: costs.cost(spec, shares[spec.signature]) for spec in specs}

    per_image = {
        spec.signature: cost[spec.signature].seconds_per_image
        + costs.seconds_per_feature(features, spec, shares[spec.signature])
        for spec in specs
    }

    def curve(spec: TrialSpec) -> Curve:
        of, luck, image = cost[spec.signature], random.Random(spec.configuration), per_image[spec.signature]
        # Who wins is not known, and costs the same whoever it is.
        return Curve(
            stratum=spec.generator.label,
            trial=spec.signature,
            configuration=spec.configuration,
            seconds_per_update=of.seconds_per_update,
            points=[(updates, luck.random()) for updates in ladder],
            share=shares[spec.signature],
            seconds_per_rung=space.n_rung * image + of.seconds_to_compile,
            seconds_at_end=(space.n_selection + REPORT_SETS * space.n_report) * image,
        )

    curves, known = [curve(spec) for spec in specs], _known(asked, specs, features)
    pruned = simulate(curves, ladder, asked.eta, capacity, known=known, at_a_time=limit)
    whole = simulate(curves, ladder, 1, capacity, known=known, at_a_time=limit)
    bank = _bank_seconds(asked, specs, costs)
    seconds = pruned.makespan + bank
    bill = request.price * (seconds / 3600) * (machine.gpus or 1) if request.price is not None else None
    return {
        "schema": 1,
        "sweep": asked.name,
        "trials": len(specs),
        "done_rungs": len(known),
        "rungs": ladder,
        "eta": asked.eta,
        "updates": pruned.updates,
        "updates_without_pruning": len(specs) * ladder[-1],
        "gpus": machine.gpus,
        "cpus": machine.cpus,
        "seconds": seconds,
        "seconds_without_pruning": whole.makespan + bank,
        "lower_bound_seconds": (pruned.bound or 0.0) + bank,
        "bank_seconds": bank,
        "money": bill,
        "gpu_bytes": machine.gpu_bytes if machine.gpus else None,
        "basis": costs.basis,
        "timed": isinstance(costs, TimedCosts),
        "uncertainty": max(found.spread for found in cost.values()),
        "features": features,
        "rows": [
            _row(shape, specs, cost, shares, curves, pruned, ladder, needs)
            for shape in sorted({spec.generator for spec in specs})
        ],
    }


def _row(
    shape: GeneratorShape,
    specs: list[TrialSpec],
    cost: dict[str, Cost],
    shares: dict[str, float],
    curves: list[Curve],
    pruned: Outcome,
    ladder: list[int],
    needs: dict[str, float],
) -> dict[str, Any]:
    own = [spec for spec in specs if spec.generator == shape]
    names = {spec.signature for spec in own}
    of = {curve.trial: curve for curve in curves if curve.trial in names}
    steps = [(trial, rung) for trial, rung in pruned.steps if trial in names]
    before = [0, *ladder]
    parts = [(of[trial], rung, before[rung + 1] - before[rung]) for trial, rung in steps]
    training = sum(curve.share * curve.seconds_per_update * updates for curve, _, updates in parts)
    compiling = sum(curve.share * cost[curve.trial].seconds_to_compile for curve, _, _ in parts)
    scoring = sum(curve.share * curve.seconds_per_rung for curve, _, _ in parts) - compiling
    ends = sum(curve.share * curve.seconds_at_end for curve, rung, _ in parts if rung == len(ladder) - 1)
    return {
        "family": shape.family,
        "d": shape.d,
        "trials": len(own),
        "parameters": shape.parameters,
        "macs": shape.macs,
        "updates": sum(before[rung + 1] - before[rung] for _, rung in steps),
        "updates_without_pruning": len(own) * ladder[-1],
        "share": max(shares[name] for name in names),
        "memory_bytes": max(needs[name] for name in names),
        "seconds_per_update": max(cost[name].seconds_per_update for name in names),
        "hours": (training + compiling + scoring + ends) / 3600,
        "rung_scoring": scoring / training if training else 0.0,
    }


def _known(asked: Resolved, specs: list[TrialSpec], features: str) -> dict[Step, float]:
    """Scores that the store holds already, of any sweep that scores as this one will."""
    alike = [
        m
        for m in asked.store.sweeps()
        if (m.dataset, m.image_size, m.features, m.n) == (asked.dataset, asked.image_size, features, asked.n)
    ]
    records = {s.signature: record for s in specs if (record := asked.store.trial(s.signature))}
    if not alike or not records:
        return {}
    signatures, ladder = list(records), asked.space.ladder()
    same = dataclasses.replace(alike[0], rungs=ladder, updates=ladder[-1], eta=asked.eta, signatures=signatures)
    strata = Sweep(same, records).strata.values()
    return {step: score for stratum in strata for step, score in stratum.scores.items()}


def _bank_seconds(asked: Resolved, specs: list[TrialSpec], costs: TimedCosts | TableCosts) -> float:
    """The teacher's images, which the first students make and share; as if by one of them."""
    count = max((spec.latents or 0 for spec in specs), default=0)
    if asked.teacher is None:
        return 0.0
    spec, to_make = (
        asked.store.require(asked.teacher.signature).spec,
        missing(asked.store.bank(asked.teacher.name), count),
    )
    return to_make and to_make * costs.cost(spec, 1.0).seconds_per_image


def _show(plan: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    unit = "GPU" if plan["gpus"] else "slot"
    rungs = ", ".join(map(str, plan["rungs"]))
    console.print(f"[bold]{plan['sweep']}[/bold]: {plan['trials']} trials; rungs at {rungs} updates, eta {plan['eta']}")
    if plan["done_rungs"]:
        console.print(f"{plan['done_rungs']} steps of it are done; updates and hours are of what is left")
    headings = ["d", "trials", "parameters", "M MACs", "updates", "unpruned", unit, "GB", "s/update", f"{unit} hours"]
    table = Table(box=None, padding=(0, 2))
    for heading in [*headings, "rung scoring"]:
        table.add_column(heading, justify="right")
    for row in plan["rows"]:
        table.add_row(
            _name(row),
            str(row["trials"]),
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:,.1f}",
            f"{row['updates']:,}",
            f"{row['updates_without_pruning']:,}",
            f"{row['share']:g}",
            f"{row['memory_bytes'] / 1e9:.1f}",
            f"{row['seconds_per_update']:.3g}",
            f"{row['hours']:.3g}",
            f"{row['rung_scoring']:.0%}",
        )
    console.print(table)
    on = f"{plan['gpus']:g} GPUs" if plan["gpus"] else f"{plan['cpus']:g} CPUs"
    part = plan["updates"] / plan["updates_without_pruning"] if plan["updates_without_pruning"] else 0.0
    console.print(f"{plan['updates']:,} updates, {part:.0%} of {plan['updates_without_pruning']:,} without pruning")
    console.print(
        f"[bold]{_duration(plan['seconds'])}[/bold] on {on} ({_duration(plan['seconds_without_pruning'])} without "
        f"pruning; at best {_duration(plan['lower_bound_seconds'])})"
    )
    if plan["bank_seconds"]:
        console.print(f"of it {_duration(plan['bank_seconds'])} for the teacher's images")
    if plan["money"] is not None:
        console.print(f"[bold]{plan['money']:,.2f}[/bold] at that price")
    sureness = _sureness(plan["uncertainty"], plan["timed"])
    console.print(f"{plan['basis']}; {sureness}")
    if plan["gpu_bytes"] and (wide := [_name(row) for row in plan["rows"] if row["memory_bytes"] > plan["gpu_bytes"]]):
        console.print(f"[yellow]d={', '.join(wide)} may not fit the card's memory[/yellow]")
    if any(row["rung_scoring"] > 0.1 for row in plan["rows"]):
        console.print(
            f"[yellow]scores at rungs by {plan['features']} take more than 10% of the training[/yellow] at some d; "
            "fewer images (--set n_rung=…), fewer rungs (--rungs), or other --features cost less"
        )


def _name(row: dict[str, Any]) -> str:
    """`8`, or `residual 8` for a family that is not the paper's."""
    return str(row["d"]) if row["family"] == DEFAULT_FAMILY else f"{row['family']} {row['d']}"


def _sureness(spread: float, timed: bool) -> str:
    if not timed:
        return "right within a factor of 3 at best: calibrate on the card itself for more"
    return f"repeated timings differ by up to {spread:.0%}, and trials that run side by side slow each other down"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""`sweeper plan`: the cost of a sweep, by a simulation of its schedule over the costs of its trials."""

import dataclasses
import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeper.execution.experience import Experience
from sweeper.execution.resources import Machine, needed_bytes, share
from sweeper.forecast.cards import TABLE, with_throughput
from sweeper.forecast.cost import TableCosts, TimedCosts
from sweeper.forecast.curves import Curve
from sweeper.forecast.simulator import Outcome, simulate
from sweeper.forecast.timing import Cost
from sweeper.records import AddedTeacher
from sweeper.request import Request, ResolvedRequest, choose_cluster, resolve, say
from sweeper.scheduling.successive_halving import Step
from sweeper.scheduling.sweep import Sweep
from sweeper.spaces import Space
from sweeper.store import dump
from trainables.bank import missing
from trainables.errors import EnvironmentUserError, UserError
from trainables.images import decoded_bytes, describe
from trainables.scores.protocol import REPORT_SETS
from trainables.shapes import DEFAULT_FAMILY, GeneratorShape
from trainables.spec import TrialSpec


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The options of `sweeper plan`."""

    sweep: Request
    gpus: int | None
    gpu_type: str | None  # an entry of the table of throughputs; None: time this machine
    throughputs: Path | None  # a table of throughputs, by default sweeper's own
    price: float | None  # per hour of a GPU, or of a machine without GPUs
    as_json: bool


def run(request: PlanRequest) -> None:
    """Print the plan. Raises UserError and NotYetError as `sweeper run` would."""
    if request.gpu_type is None and (request.gpus or request.throughputs):
        raise UserError(
            "--gpus and --throughputs need the type of the GPUs; add --gpu-type, for example --gpu-type A100"
        )
    if request.price is not None and not math.isfinite(request.price):
        raise UserError(f"--price {request.price}: not a finite number; try --price 1.5")
    resolved = resolve(request.sweep)
    store = resolved.store
    known, source = resolved.known, resolved.source
    if known is not None and source is not None:
        channels, features = known.channels, source.features
    else:
        channels, features = describe(resolved.dataset, resolved.image_size, store.datasets, resolved.folder)
    teacher_spec = known if isinstance(known, TrialSpec) else None
    costs: TimedCosts | TableCosts
    if request.gpu_type:
        costs = TableCosts(request.gpu_type, request.throughputs or TABLE, teacher_spec)
    else:
        costs = TimedCosts(say, teacher_spec)
    specs, machine = resolved.specs(channels), _machine(request, costs)
    plan = _plan(request, resolved, specs, resolved.features(features), costs, machine)
    if request.as_json:
        print(dump(plan))
    else:
        _show(plan)


def _machine(request: PlanRequest, costs: TimedCosts | TableCosts) -> Machine:
    """Return the machine that the options describe, else the one that Ray reports."""
    if isinstance(costs, TableCosts):
        gpus, card = request.gpus or 1, costs.card
        return Machine(
            cpus=8 * gpus,
            gpus=gpus,
            gpu_bytes=card.bytes,
            macs_per_second=card.macs_per_second,
            seconds_per_launch=card.seconds_per_launch,
        )
    choose_cluster(request.sweep.address)
    from sweeper.execution import tune

    with tune.session(None, with_throughput) as cluster:
        cluster.look()
        if not cluster.usable:
            raise EnvironmentUserError(
                "no node of the cluster can train now; add --gpu-type and --gpus to plan for GPUs that will come"
            )
        return cluster.machine


def _plan(
    request: PlanRequest,
    resolved: ResolvedRequest,
    specs: list[TrialSpec],
    features: str,
    costs: TimedCosts | TableCosts,
    machine: Machine,
) -> dict[str, Any]:
    """Return what `sweeper plan --json` prints."""
    space, ladder, limit = resolved.space, resolved.space.ladder(), request.sweep.slots
    capacity, experience = machine.gpus or machine.cpus, Experience.read(resolved.store)
    data = decoded_bytes(resolved.dataset, resolved.image_size, resolved.store.datasets)
    reserved = {spec.signature: share(spec, costs.teacher, machine, data, experience) for spec in specs}
    memory = {spec.signature: needed_bytes(spec, costs.teacher, machine, data, experience) for spec in specs}
    shares = {signature: one.gpus or one.cpus for signature, one in reserved.items()}
    features_seconds = {
        spec.signature: costs.seconds_per_feature(features, spec, shares[spec.signature]) for spec in specs
    }
    costs.calibrate(specs)
    cost = {spec.signature: costs.cost(spec, shares[spec.signature]) for spec in specs}
    per_image = {name: each.seconds_per_image + features_seconds[name] for name, each in cost.items()}

    def curve(spec: TrialSpec) -> Curve:
        own, image = cost[spec.signature], per_image[spec.signature]
        rng = random.Random(spec.configuration)
        # The scores are random: which trials are promoted is unknown, and does not change the cost.
        return Curve(
            stratum=spec.generator.label,
            trial=spec.signature,
            configuration=spec.configuration,
            seconds_per_update=own.seconds_per_update,
            points=[(updates, rng.random()) for updates in ladder],
            share=shares[spec.signature],
            seconds_per_rung=space.n_rung * image + own.seconds_to_compile,
            seconds_at_end=(space.n_selection + REPORT_SETS * space.n_report) * image,
        )

    curves, (recorded, confirmed) = [curve(spec) for spec in specs], _recorded(resolved, specs, features)
    # As in Sweep.compared: nothing is compared with the widest teacher.
    shapes = sorted({spec.generator for spec in specs})
    ordered = sorted(shapes, key=lambda shape: (shape.parameters, shape))
    compared = ordered if resolved.request.role == "student" else ordered[:-1]
    confirm = {shape.label: space.confirm - confirmed[shape.label] for shape in compared}
    pruned, unpruned = (
        simulate(curves, ladder, eta, capacity, recorded=recorded, max_concurrent=limit, confirm=confirm)
        for eta in (resolved.eta, 1)
    )
    bank, bank_known = _bank_seconds(resolved, specs, costs)
    seconds = pruned.makespan + bank
    money = request.price * (seconds / 3600) * (machine.gpus or 1) if request.price is not None else None
    return {
        "schema": 1,
        "sweep": resolved.name,
        "trials": len(specs),
        "done_rungs": len(recorded),
        "rungs": ladder,
        "eta": resolved.eta,
        "confirm": space.confirm,
        "updates": pruned.updates,
        "updates_without_pruning": (len(specs) + space.confirm * len(confirm)) * ladder[-1],
        "gpus": machine.gpus,
        "cpus": machine.cpus,
        "seconds": seconds,
        "seconds_without_pruning": unpruned.makespan + bank,
        "lower_bound_seconds": (pruned.bound or 0.0) + bank,
        "bank_seconds": bank if bank_known else None,
        "money": money,
        "gpu_bytes": machine.gpu_bytes if machine.gpus else None,
        "basis": costs.basis,
        "timed": isinstance(costs, TimedCosts),
        "extrapolated": costs.extrapolated,
        "uncertainty": max(each.spread for each in cost.values()),
        "features": features,
        "rows": [_row(shape, specs, cost, shares, curves, pruned, space, memory) for shape in shapes],
    }


def _row(
    shape: GeneratorShape,
    specs: list[TrialSpec],
    cost: dict[str, Cost],
    shares: dict[str, float],
    curves: list[Curve],
    pruned: Outcome,
    space: Space,
    memory: dict[str, float],
) -> dict[str, Any]:
    """Return the plan's row of one generator shape."""
    ladder = space.ladder()
    own = [spec for spec in specs if spec.generator == shape]
    names = {spec.signature for spec in own}
    by_trial = {curve.trial: curve for curve in curves if curve.trial in names}
    steps = [(trial, rung) for trial, rung in pruned.steps if trial in names]
    starts, last = [0, *ladder], len(ladder) - 1
    parts = [(by_trial[trial], rung, starts[rung + 1] - starts[rung]) for trial, rung in steps]
    again = [by_trial[best] for best in pruned.confirming.values() if best in names]
    parts += [(curve, last, ladder[-1]) for curve in again]
    training = sum(curve.share * curve.seconds_per_update * updates for curve, _, updates in parts)
    compiling = sum(curve.share * cost[curve.trial].seconds_to_compile for curve, _, _ in parts)
    scoring = sum(curve.share * curve.seconds_per_rung for curve, _, _ in parts) - compiling
    ends = sum(curve.share * curve.seconds_at_end for curve, rung, _ in parts if rung == last)
    return {
        "family": shape.family,
        "d": shape.d,
        "trials": len(own),
        "parameters": shape.parameters,
        "macs": shape.macs,
        "updates": sum(updates for _, _, updates in parts),
        "updates_without_pruning": (len(own) + len(again)) * ladder[-1],
        "share": max(shares[name] for name in names),
        "memory_bytes": max(memory[name] for name in names),
        "seconds_per_update": max(cost[name].seconds_per_update for name in names),
        "hours": (training + compiling + scoring + ends) / 3600,
        "rung_scoring": scoring / training if training else 0.0,
    }


def _recorded(
    resolved: ResolvedRequest, specs: list[TrialSpec], features: str
) -> tuple[dict[Step, float], Counter[str]]:
    """Return the scores that the store holds for the trials, and stratum → fresh seeds that have finished.

    They are read from any sweep that scores as this one would.
    """
    store, ladder = resolved.store, resolved.space.ladder()
    protocol = (resolved.dataset, resolved.image_size, features, resolved.n)
    alike = [m for m in store.sweeps() if (m.dataset, m.image_size, m.features, m.n) == protocol]
    records = {spec.signature: record for spec in specs if (record := store.trial(spec.signature))}
    if not alike or not records:
        return {}, Counter()
    confirm = resolved.space.confirm if len(records) == len(specs) else 0
    manifest = dataclasses.replace(
        alike[0],
        role=resolved.request.role,
        teacher=resolved.teacher,
        rungs=ladder,
        updates=ladder[-1],
        eta=resolved.eta,
        signatures=list(records),
        confirm=confirm,
        confirming=[],
    )
    sweep = Sweep(manifest, records, find=store.trial)
    scores = {step: score for stratum in sweep.strata.values() for step, score in stratum.scores.items()}
    return scores, Counter({shape.label: len(sweep.confirmed(shape)) for shape in sweep.strata})


def _bank_seconds(
    resolved: ResolvedRequest, specs: list[TrialSpec], costs: TimedCosts | TableCosts
) -> tuple[float, bool]:
    """Return the seconds that one trial takes to render the missing images of the bank, and whether they are known."""
    teacher, known, side = resolved.teacher, resolved.known, resolved.image_size
    if teacher is None or known is None:
        return 0.0, True
    count = max((spec.latents or 0 for spec in specs), default=0)
    images = missing(resolved.store.bank(teacher.name, side if side != known.image_size else None), count)
    if not images or (isinstance(known, AddedTeacher) and known.pairs):
        return 0.0, True
    if isinstance(known, TrialSpec):
        return images * costs.seconds_per_image(known, 1.0), True
    if isinstance(costs, TableCosts):
        return images * (known.macs or 0) / costs.card.macs_per_second, known.macs is not None
    from sweeper.execution.generators import teacher_images

    own = teacher_images(resolved.store, teacher, known.image_size)
    return images * costs.seconds_per_teacher_image(teacher.name, own), True


def _show(plan: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    unit = "GPU" if plan["gpus"] else "slot"
    rungs = ", ".join(map(str, plan["rungs"]))
    fresh = f"; the best of each d again with {plan['confirm']} fresh seeds" if plan["confirm"] else ""
    console.print(
        f"[bold]{plan['sweep']}[/bold]: {plan['trials']} trials; rungs at {rungs} updates, eta {plan['eta']}{fresh}"
    )
    if plan["done_rungs"]:
        console.print(f"{plan['done_rungs']} rungs are done already; updates and hours are of the others")
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
    machine = f"{plan['gpus']:g} GPUs" if plan["gpus"] else f"{plan['cpus']:g} CPUs"
    fraction = plan["updates"] / plan["updates_without_pruning"] if plan["updates_without_pruning"] else 0.0
    console.print(f"{plan['updates']:,} updates, {fraction:.0%} of {plan['updates_without_pruning']:,} without pruning")
    console.print(
        f"[bold]{_duration(plan['seconds'])}[/bold] on {machine} ({_duration(plan['seconds_without_pruning'])} without "
        f"pruning; at best {_duration(plan['lower_bound_seconds'])})"
    )
    if plan["bank_seconds"]:
        console.print(f"{_duration(plan['bank_seconds'])} of this is for rendering the teacher's images")
    if plan["bank_seconds"] is None:
        console.print("[yellow]the teacher's multiply-accumulates are unknown[/yellow]: its images are not counted")
    if plan["money"] is not None:
        console.print(f"[bold]{plan['money']:,.2f}[/bold] at that price")
    console.print(f"{plan['basis']}; {_accuracy(plan['uncertainty'], plan['timed'])}")
    if plan["gpu_bytes"] and (wide := [_name(row) for row in plan["rows"] if row["memory_bytes"] > plan["gpu_bytes"]]):
        console.print(f"[yellow]d={', '.join(wide)} may not fit the memory of a GPU[/yellow]")
    if any(row["rung_scoring"] > 0.1 for row in plan["rows"]):
        console.print(
            f"[yellow]rung scores by {plan['features']} take more than 10% of the training time[/yellow] at some d; "
            "to reduce it, use --set n_rung=…, --rungs or --features"
        )


def _name(row: dict[str, Any]) -> str:
    """Return `8`, or `residual 8` for a family other than the paper's."""
    return str(row["d"]) if row["family"] == DEFAULT_FAMILY else f"{row['family']} {row['d']}"


def _accuracy(spread: float, timed: bool) -> str:
    if not timed:
        return "expect errors of a factor of 3 or more; for timings, run `sweeper plan` on that GPU without --gpu-type"
    repeated = f"repeated timings differ by up to {spread:.0%}" if spread else "each kind of trial is timed once"
    return f"{repeated}, and trials that run concurrently slow each other down"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

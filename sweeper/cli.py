"""Typer commands, and nothing else. Nothing imports torch or ray before a command needs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sweeper import budget_options, options
from sweeper.choices import Device, Runtime, TableFormat, Wandb
from sweeper.options import LOOK, TRAIN, USE
from sweeper.panels import PanelCommand, PanelGroup
from sweeper.store_cli import store_app
from sweeper.teacher_cli import teacher_app
from sweeper.typed_command import command
from sweeper.wandb_cli import wandb_app
from trainables.errors import DiskError, UserError
from trainables.extras import require

if TYPE_CHECKING:
    from sweeper.request import Request
    from sweeper.results.budget import Budget
    from sweeper.results.comparison import Comparison

app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    help="Compress GANs by knowledge distillation. Sweep teachers, students and controls. Compare them in one table.",
)


@app.callback()
def root(version: options.VersionOption = False) -> None:
    """Take the options that need no command."""


@app.command("run", cls=PanelCommand, rich_help_panel=TRAIN)
def run_command(
    role: options.RoleArgument,
    dataset: options.DatasetOption = None,
    space: options.SpaceOption = None,
    assignments: options.SetOption = None,
    teacher: options.TeacherOption = "best",
    precision: options.PrecisionOption = None,
    eta: options.EtaOption = None,
    rungs: options.RungsOption = None,
    no_pruning: options.NoPruningOption = False,
    features: options.FeaturesOption = None,
    name: options.NameOption = None,
    replace: options.ReplaceOption = False,
    store: options.StoreOption = Path("runs"),
    data_root: options.DataRootOption = Path("data"),
    download: options.DownloadOption = False,
    slots: options.SlotsOption = None,
    address: options.AddressOption = None,
    checkpoint_seconds: options.CheckpointOption = 60.0,
    wandb: options.WandbOption = Wandb.offline,
    plugin: options.PluginOption = None,
) -> None:
    """Train teachers or students. Run the same command again to continue the sweep."""
    given = locals()
    from sweeper.run import run

    raise typer.Exit(run(_request(given)))


@app.command("plan", cls=PanelCommand, rich_help_panel=TRAIN)
def plan_command(
    role: options.RoleArgument,
    dataset: options.DatasetOption = None,
    space: options.SpaceOption = None,
    assignments: options.SetOption = None,
    teacher: options.TeacherOption = "best",
    precision: options.PrecisionOption = None,
    eta: options.EtaOption = None,
    rungs: options.RungsOption = None,
    no_pruning: options.NoPruningOption = False,
    features: options.FeaturesOption = None,
    name: options.NameOption = None,
    replace: options.ReplaceOption = False,
    store: options.StoreOption = Path("runs"),
    data_root: options.DataRootOption = Path("data"),
    download: options.DownloadOption = False,
    slots: options.SlotsOption = None,
    address: options.AddressOption = None,
    checkpoint_seconds: options.CheckpointOption = 60.0,
    wandb: options.WandbOption = Wandb.offline,
    gpus: options.GpusOption = None,
    gpu_type: options.GpuTypeOption = None,
    throughputs: options.ThroughputsOption = None,
    price: options.PriceOption = None,
    plugin: options.PluginOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Estimate what `run` with the same options costs, without training: trials, updates, memory, hours and money."""
    given = locals()
    from sweeper.forecast.plan import PlanRequest, run

    planned = {key: given.pop(key) for key in ("gpus", "gpu_type", "throughputs", "price", "as_json")}
    run(PlanRequest(sweep=_request(given), **planned))


@app.command("simulate", cls=PanelCommand, rich_help_panel=TRAIN)
def simulate_command(
    curves: options.CurvesOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    eta: options.EtaOption = None,
    first_rung: options.FirstRungOption = None,
    rungs: options.RungsOption = None,
    updates: options.UpdatesOption = None,
    slots: options.SimulatedSlotsOption = 1,
    orders: options.OrdersOption = 1,
    plugin: options.PluginOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Replay the pruning rule over recorded learning curves. Compare it with no pruning and with stop-only ASHA."""
    given = locals()
    from sweeper.forecast.simulate import SimulateRequest, run

    del given["plugin"]  # its option has loaded it
    run(SimulateRequest(**given))


@app.command("status", cls=PanelCommand, rich_help_panel=LOOK)
def status_command(
    store: options.OfStoreOption = Path("runs"),
    trial: options.ShownTrialOption = None,
    watched: options.WatchOption = False,
    plugin: options.PluginOption = None,
) -> None:
    """List the sweeps of a store and their progress."""
    from sweeper.store import Store
    from sweeper.terminal.status import show, show_trial, watch

    if watched:
        watch(Store(store))
    elif trial is not None:
        show_trial(Store(store), trial)
    else:
        show(Store(store))


@app.command("table", cls=PanelCommand, rich_help_panel=LOOK)
def table_command(
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    max_params: budget_options.MaxParamsOption = None,
    max_macs: budget_options.MaxMacsOption = None,
    max_ms: budget_options.MaxMsOption = None,
    max_bytes: budget_options.MaxBytesOption = None,
    runtime: budget_options.RuntimeOption = Runtime.onnx,
    device: budget_options.DeviceOption = Device.cpu,
    threads: budget_options.ThreadsOption = 1,
    batch: budget_options.BatchOption = 1,
    within: budget_options.WithinOption = None,
    style: options.TableFormatOption = TableFormat.rich,
) -> None:
    """Print the compression table, or the rows that fit a budget."""
    given = locals()
    from sweeper.results import budget, table_text

    table = budget.narrowed(_comparison(store, dataset, name), _budget(given)).table
    if style is TableFormat.rich:
        table_text.show(table)
    else:
        print(table_text.as_text(table, style.value))


@app.command("report", cls=PanelCommand, rich_help_panel=LOOK)
def report_command(
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    output: options.PageOption = None,
) -> None:
    """Write an HTML page with table, images, charts and protocols, and the table as CSV, Markdown and LaTeX."""
    require("report", "sweeper report")
    from sweeper.results.page import TABLE_SUFFIXES, write

    comparison = _comparison(store, dataset, name)
    path = output or comparison.store.root / "reports" / f"{comparison.name}.html"
    comparison.store.check_output(path)
    with _written_to(path):
        files = write(comparison, path, command())
    print(*files, sep="\n")
    tables = [path.with_suffix(f".{suffix}") for suffix in TABLE_SUFFIXES.values()] if path.is_file() else []
    if left := ", ".join(table.name for table in tables if table not in files):
        print(f"note: {left}: not written by `sweeper report`, or changed since; left as is", file=sys.stderr)


app.add_typer(teacher_app, name="teacher", rich_help_panel=TRAIN)
app.add_typer(wandb_app, name="wandb", rich_help_panel=LOOK)
app.add_typer(store_app, name="store", rich_help_panel=USE)


@app.command("export", cls=PanelCommand, rich_help_panel=USE)
def export_command(
    d: options.WidthOption = None,
    trial: options.ExportedTrialOption = None,
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    max_params: budget_options.MaxParamsOption = None,
    max_macs: budget_options.MaxMacsOption = None,
    max_ms: budget_options.MaxMsOption = None,
    max_bytes: budget_options.MaxBytesOption = None,
    device: budget_options.DeviceOption = Device.cpu,
    threads: budget_options.ThreadsOption = 1,
    within: budget_options.WithinOption = None,
    formats: options.ExportFormatsOption = "safetensors,onnx",
    batch: options.OnlyBatchOption = None,
    images: options.SampleImagesOption = 0,
    license_id: options.LicenseOption = "unknown",
    push_to_hub: options.PushOption = None,
    output: options.ExportFolderOption = None,
) -> None:
    """Write a student for use without sweeper: safetensors, ONNX, a model card and a script that loads it.

    With a --max option: the best student that fits. Else the limit of compression.
    """
    given = locals() | {"runtime": Runtime.onnx, "batch": batch or 1}
    from sweeper.results import budget, choice, export, hub
    from sweeper.store import Store

    wanted = replace(_budget(given), formats=options.export_formats(formats), exports=False)
    if push_to_hub:
        hub.check(push_to_hub)
    if trial:
        chosen = choice.find(Store(store), trial)
    else:
        comparison = budget.narrowed(_comparison(store, dataset, name), wanted)
        chosen = choice.choose(comparison, d, best=bool(wanted.bounds))
    folder = output or Path("exported") / chosen.name
    chosen.comparison.store.check_output(folder)
    with _written_to(folder):
        for written in export.write(
            chosen,
            folder,
            wanted.formats,
            images,
            batch=batch or 0,
            conditions=wanted.conditions,
            license_id=license_id,
        ):
            print(written)
    if push_to_hub:
        print(hub.push(folder, push_to_hub))


@app.command("clean", cls=PanelCommand, rich_help_panel=USE)
def clean_command(
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    yes: options.YesOption = False,
) -> None:
    """Say what can go from a store, what is lost with it and how many bytes it takes; with --yes delete it."""
    from sweeper.clean import run
    from sweeper.store import Store

    run(Store(store), yes, command())


@app.command("score", cls=PanelCommand, rich_help_panel=USE)
def score_command(
    samples: options.SamplesArgument,
    against: options.AgainstOption,
    features: options.FeaturesOption = None,
    dims: options.DimsOption = None,
    n: options.FirstImagesOption = None,
    store: options.StoreOption = Path("runs"),
    data_root: options.DataRootOption = Path("data"),
    download: options.DownloadOption = False,
    plugin: options.PluginOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Score folders of images by FID, KID, sharpness and, if the features have classes, IS. Print n and protocol."""
    given = locals()
    from sweeper.score import ScoreRequest, run

    del given["plugin"]  # its option has loaded it
    run(ScoreRequest(**given))


@app.command("doctor", cls=PanelCommand, rich_help_panel=LOOK)
def doctor_command(
    store: options.StoreOption = Path("runs"),
    data_root: options.DataRootOption = Path("data"),
    address: options.AddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check this machine and, with --address, every node of a cluster. Say what would stop a run, and what to do."""
    from sweeper.doctor.command import doctor

    raise typer.Exit(doctor(store, data_root, address, as_json))


def _request(given: dict[str, Any]) -> "Request":
    """The request that the options of `run` make, by their names."""
    from sweeper.request import Request

    role, no_pruning = given.pop("role"), given.pop("no_pruning")
    words: dict[str, Any] = {}
    words |= {name: value.value if isinstance(value, StrEnum) else value for name, value in given.items()}
    words["assignments"] = words["assignments"] or []
    words["plugins"] = words.pop("plugin") or []
    return Request(role=role.name, pruning=not no_pruning, command=command(), **words)


def _comparison(store: Path, dataset: str | None, name: str | None) -> "Comparison":
    """The comparison that the options of table, report and export select."""
    from sweeper.results.comparison import Comparison
    from sweeper.store import Store
    from trainables.dataset_identity import identify

    opened = Store(store)
    return Comparison.read(opened, identify(dataset, opened.datasets) if dataset else None, name)


def _budget(given: dict[str, Any]) -> "Budget":
    """The budget that the options of table and export make, by their names."""
    from sweeper.results.budget import Budget
    from sweeper.results.latency import Conditions

    bounds = {name: given[f"max_{name}"] for name in ("params", "macs", "ms", "bytes")}
    conditions = Conditions(**{name: given[name] for name in ("runtime", "device", "threads", "batch")})
    return Budget(**bounds, conditions=conditions, **({} if given["within"] is None else {"within": given["within"]}))


@contextmanager
def _written_to(output: Path) -> Iterator[None]:
    """Report an output that cannot be written in one line. Raises UserError. Let errors of other files pass."""
    try:
        yield
    except OSError as error:
        place, failed = output.absolute(), Path(error.filename or "")
        if isinstance(error, DiskError) or (place not in (failed, *failed.parents) and failed.parent != place.parent):
            raise
        raise UserError(f"{output} cannot be written ({error.strerror}); name another place with -o") from None

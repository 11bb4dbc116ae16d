"""Typer commands, and nothing else. Nothing imports torch or ray before a command needs it."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sweeper import options
from sweeper.options import LOOK, TRAIN, USE, ExportFormat, PanelCommand, PanelGroup, TableFormat, Wandb
from trainables.errors import DISK_ERRORS, DiskError, UserError, error_number

if TYPE_CHECKING:
    from sweeper.request import Request
    from sweeper.results.comparison import Comparison

app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    help="Compress GANs by knowledge distillation. Sweep teachers, students and controls. Compare them in one table.",
)
wandb_app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Upload runs to Weights & Biases, and create reports there.",
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
    style: options.TableFormatOption = TableFormat.rich,
) -> None:
    """Print the compression table."""
    from sweeper.results import table_text

    table = _comparison(store, dataset, name).table
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
    from sweeper.results.page import TABLE_SUFFIXES, write

    comparison = _comparison(store, dataset, name)
    path = output or comparison.store.root / "reports" / f"{comparison.name}.html"
    with _written_to(path):
        files = write(comparison, path, _command())
    print(*files, sep="\n")
    tables = [path.with_suffix(f".{suffix}") for suffix in TABLE_SUFFIXES.values()] if path.is_file() else []
    if left := ", ".join(table.name for table in tables if table not in files):
        print(f"note: {left}: not written by `sweeper report`, or changed since; left as is", file=sys.stderr)


app.add_typer(wandb_app, name="wandb", rich_help_panel=LOOK)


@wandb_app.command("sync", cls=PanelCommand)
def wandb_sync_command(
    store: options.OfStoreOption = Path("runs"),
    name: options.OnlySweepOption = None,
    plugin: options.PluginOption = None,
) -> None:
    """Upload runs that are missing on W&B, and verify them."""
    from sweeper.store import Store
    from sweeper.tracking.watcher import sync

    sync(Store(store), name, _command())


@wandb_app.command("report", cls=PanelCommand)
def wandb_report_command(
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
) -> None:
    """Create or update the report of a sweep on W&B."""
    from sweeper.tracking.report import run

    print(run(store, dataset, name))


@app.command("export", cls=PanelCommand, rich_help_panel=USE)
def export_command(
    d: options.WidthOption = None,
    trial: options.ExportedTrialOption = None,
    dataset: options.OfDatasetOption = None,
    name: options.OfSweepOption = None,
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    style: options.ExportFormatOption = ExportFormat.all,
    images: options.SampleImagesOption = 0,
    output: options.ExportFolderOption = None,
) -> None:
    """Write a student for use without sweeper: safetensors, ONNX, a model card and a script that loads it."""
    from sweeper.results import export
    from sweeper.store import Store

    chosen = export.find(Store(store), trial) if trial else export.choose(_comparison(store, dataset, name), d)
    formats = export.FORMATS if style is ExportFormat.all else (style.value,)
    folder = output or Path("exported") / chosen.name
    with _written_to(folder):
        for written in export.write(chosen, folder, formats, images):
            print(written)


@app.command("clean", cls=PanelCommand, rich_help_panel=USE)
def clean_command(
    store: options.OfStoreOption = Path("runs"),
    plugin: options.PluginOption = None,
    yes: options.YesOption = False,
) -> None:
    """Say what can go from a store, what is lost with it and how many bytes it takes; with --yes delete it."""
    from sweeper.clean import run
    from sweeper.store import Store

    run(Store(store), yes, _command())


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


def _request(given: dict[str, Any]) -> "Request":
    """The request that the options of `run` make, by their names."""
    from sweeper.request import Request

    role, no_pruning = given.pop("role"), given.pop("no_pruning")
    words: dict[str, Any] = {}
    words |= {name: value.value if isinstance(value, StrEnum) else value for name, value in given.items()}
    words["assignments"] = words["assignments"] or []
    words["plugins"] = words.pop("plugin") or []
    return Request(role=role.name, pruning=not no_pruning, command=_command(), **words)


def _command() -> str:
    """The command as typed, for records and pages. --replace is meant once."""
    return shlex.join(["sweeper", *(word for word in sys.argv[1:] if word != "--replace")])


def _comparison(store: Path, dataset: str | None, name: str | None) -> "Comparison":
    """The comparison that the options of table, report and export select."""
    from sweeper.results.comparison import Comparison
    from sweeper.store import Store
    from trainables.dataset_identity import identify

    opened = Store(store)
    return Comparison.read(opened, identify(dataset, opened.datasets) if dataset else None, name)


@contextmanager
def _written_to(output: Path) -> Iterator[None]:
    """Report an output that cannot be written in one line. Raises UserError. Let errors of other files pass."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        place, failed = output.absolute(), Path(error.filename or "")
        if place not in (failed, *failed.parents) and failed.parent != place.parent:
            raise
        raise UserError(f"{output} cannot be written ({error.strerror}); name another place with -o") from None


def main() -> None:
    """Run the command line. Report a mistake of the user in one line, and exit with its code."""
    try:
        # Without standalone_mode Typer returns exit codes, and raises errors of usage instead of printing them.
        code = app(prog_name="sweeper", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        print(_usage_error(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it exits
        sys.exit(1)
    except Exception as error:
        # The one place where an error of the disk becomes a line. Any other error is a defect and shows its traceback.
        if (number := error_number(error)) not in DISK_ERRORS:
            raise
        failed = DiskError(number, os.strerror(number), getattr(error, "filename", None))
        print(f"error: {failed}", file=sys.stderr)
        sys.exit(failed.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _usage_error(error: typer.TyperException) -> str:
    """The error in one line that names the help. For a group without a command, its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer does not export the class
        return error.format_message()
    said = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return f"error: {said}; see `{context.command_path if context else 'sweeper'} --help`"

"""Typer commands, and nothing else. No import of torch or ray before a command needs it."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainables.errors import UserError

if TYPE_CHECKING:
    from sweeper.request import Request
    from sweeper.results.comparison import Comparison

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compress GANs by knowledge distillation: sweep teachers, students and controls; compare them in one table.",
)


class Role(StrEnum):
    teachers = "teachers"
    students = "students"


class Precision(StrEnum):
    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Wandb(StrEnum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


class Format(StrEnum):
    rich = "rich"
    md = "md"
    csv = "csv"
    latex = "latex"
    json = "json"


class ExportFormat(StrEnum):
    all = "all"
    safetensors = "safetensors"
    onnx = "onnx"


RoleArgument = Annotated[Role, typer.Argument(help="What to train.")]
DatasetOption = Annotated[
    str | None, typer.Option(help="A name, or a folder of images; students take their teacher's.")
]
SpaceOption = Annotated[
    Path | None, typer.Option(help="A search space: a Python file with TEACHERS and STUDENTS.", show_default=False)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=V1,V2", help="Set a field of the space; lists mean a grid.")
]
TeacherOption = Annotated[str, typer.Option(help="Students' teacher: best, d=N or a signature.")]
NameOption = Annotated[str | None, typer.Option(help="The sweep's name.  [default: DATASET-ROLE]", show_default=False)]
StoreOption = Annotated[Path, typer.Option("--store", help="The folder that keeps everything.")]
DataRootOption = Annotated[Path, typer.Option("--data-root", help="Where torchvision's data sets are.")]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch a data set that is not there.")]
SlotsOption = Annotated[int | None, typer.Option(min=1, help="At most so many trials at a time.")]
AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster to use: auto, or HOST:PORT.")]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="Mixed precision of the training.  [default: the space's]", show_default=False),
]
EtaOption = Annotated[int | None, typer.Option(min=2, help="One of eta configurations goes on at each rung.")]
RungsOption = Annotated[int | None, typer.Option(min=0, help="At most so many rungs before the budget.")]
NoPruningOption = Annotated[bool, typer.Option("--no-pruning", help="Train everything to the full budget.")]
FeaturesOption = Annotated[
    str | None,
    typer.Option(help="What FID is computed on: inception, classifier, imagenet, or package.module:Name."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("run")
def run_command(
    role: RoleArgument,
    dataset: DatasetOption = None,
    space: SpaceOption = None,
    assignments: SetOption = None,
    teacher: TeacherOption = "best",
    name: NameOption = None,
    store: StoreOption = Path("runs"),
    data_root: DataRootOption = Path("data"),
    download: DownloadOption = False,
    slots: SlotsOption = None,
    address: AddressOption = None,
    precision: PrecisionOption = None,
    eta: EtaOption = None,
    rungs: RungsOption = None,
    no_pruning: NoPruningOption = False,
    features: FeaturesOption = None,
    wandb: Annotated[Wandb, typer.Option(help="Weights & Biases.")] = Wandb.offline,
) -> None:
    """Train teachers or students. The same command again continues it."""
    options = locals()
    from sweeper.run import run

    raise typer.Exit(run(_request(options)))


@app.command("plan")
def plan_command(
    role: RoleArgument,
    dataset: DatasetOption = None,
    space: SpaceOption = None,
    assignments: SetOption = None,
    teacher: TeacherOption = "best",
    name: NameOption = None,
    store: StoreOption = Path("runs"),
    slots: SlotsOption = None,
    address: AddressOption = None,
    precision: PrecisionOption = None,
    eta: EtaOption = None,
    rungs: RungsOption = None,
    no_pruning: NoPruningOption = False,
    features: FeaturesOption = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Plan for so many GPUs instead of what Ray sees.")] = None,
    gpu_type: Annotated[
        str | None, typer.Option(help="Plan for this card, by a table of throughputs instead of timing.")
    ] = None,
    throughputs: Annotated[
        Path | None,
        typer.Option(help="Your own table.  [default: sweeper/forecast/throughputs.toml]", show_default=False),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a GPU (without one: of the machine) an hour.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what `run` with the same options would cost: trials, updates, memory, hours, money. Trains nothing."""
    options = locals()
    from sweeper.forecast.plan import PlanRequest, run

    planned = {key: options.pop(key) for key in ("gpus", "gpu_type", "throughputs", "price", "as_json")}
    run(PlanRequest(request=_request(options), **planned))


def _request(options: dict[str, Any]) -> "Request":
    """From the options of `run`, by their names."""
    from sweeper.request import Request

    role, no_pruning = options.pop("role"), options.pop("no_pruning")
    words: dict[str, Any] = {}
    words |= {name: value.value if isinstance(value, StrEnum) else value for name, value in options.items()}
    words["assignments"] = words["assignments"] or []
    command = shlex.join(["sweeper", *sys.argv[1:]])
    return Request(role=role.value.removesuffix("s"), pruning=not no_pruning, command=command, **words)


def _comparison(store: Path, dataset: str | None, name: str | None) -> "Comparison":
    """What the options of table, report and export name."""
    from sweeper.results.comparison import Comparison
    from sweeper.store import Store
    from trainables.images import identify

    opened = Store(store)
    return Comparison.read(opened, identify(dataset, opened.datasets) if dataset else None, name)


@contextmanager
def _written_to(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); name another place with -o") from None


@app.command("table")
def table_command(
    dataset: Annotated[str | None, typer.Option(help="Which data set's, if there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="Which student sweep's, if there are several.")] = None,
    store: StoreOption = Path("runs"),
    style: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.rich,
) -> None:
    """Print the compression table."""
    from sweeper.results import table

    built = _comparison(store, dataset, name).table
    if style is Format.rich:
        table.show(built)
    else:
        print(table.as_text(built, style.value))


@app.command("report")
def report_command(
    dataset: Annotated[str | None, typer.Option(help="Which data set's, if there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="Which student sweep's, if there are several.")] = None,
    store: StoreOption = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page.  [default: STORE/reports/SWEEP.html]", show_default=False),
    ] = None,
) -> None:
    """Write one HTML page: table, pictures, charts, protocols. Beside it the table as CSV, Markdown and LaTeX."""
    from sweeper.results.page import write

    comparison = _comparison(store, dataset, name)
    path = output or comparison.store.root / "reports" / f"{comparison.name}.html"
    with _written_to(path):
        for written in write(comparison, path, shlex.join(["sweeper", *sys.argv[1:]])):
            print(written)


@app.command("export")
def export_command(
    d: Annotated[
        int | None, typer.Option("--d", help="The student's width.  [default: the limit of compression]")
    ] = None,
    trial: Annotated[str | None, typer.Option(metavar="SIGNATURE", help="Any finished trial instead.")] = None,
    style: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.all,
    images: Annotated[
        int,
        typer.Option("--to-folder", metavar="N", min=0, help="Write N sample images, too, into its folder samples/."),
    ] = 0,
    dataset: Annotated[str | None, typer.Option(help="Which data set's, if there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="Which student sweep's, if there are several.")] = None,
    store: StoreOption = Path("runs"),
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The folder.  [default: exported/DATASET-student-dD]", show_default=False),
    ] = None,
) -> None:
    """Write a student for use elsewhere: safetensors, ONNX, model card, and a script that loads it without sweeper."""
    from sweeper.results import export
    from sweeper.store import Store

    chosen = export.find(Store(store), trial) if trial else export.choose(_comparison(store, dataset, name), d)
    formats = export.FORMATS if style is ExportFormat.all else (style.value,)
    folder = output or Path("exported") / chosen.name
    with _written_to(folder):
        for written in export.write(chosen, folder, formats, images):
            print(written)


@app.command("score")
def score_command(
    samples: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Folders of images to score.")],
    against: Annotated[str, typer.Option(help="What to score them against: a folder of images, or a data set.")],
    features: FeaturesOption = None,
    dims: Annotated[str | None, typer.Option(help="The features' dimensions; inception has 64,192,768,2048.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=2, help="Score the first n images of each folder alone.")] = None,
    as_json: JsonOption = False,
    store: StoreOption = Path("runs"),
    data_root: DataRootOption = Path("data"),
    download: DownloadOption = False,
) -> None:
    """Score folders of images: FID, KID, IS where there are classes, sharpness; with n and protocol."""
    from sweeper.score import ScoreRequest, run

    run(ScoreRequest(samples, against, features, dims, n, as_json, store, data_root, download))


@app.command("simulate")
def simulate_command(
    curves: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines: stratum, trial, seconds_per_update, points [[updates, fid], …].  [default: the store's]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Which sweep's curves, if the store holds several.")] = None,
    slots: Annotated[float, typer.Option(min=0.001, help="How many trials of share 1 run at a time.")] = 1,
    eta: EtaOption = None,
    first_rung: Annotated[int | None, typer.Option(min=1, help="Updates at the first rung.")] = None,
    rungs: RungsOption = None,
    updates: Annotated[int | None, typer.Option(min=1, help="The budget.")] = None,
    orders: Annotated[int, typer.Option(min=1, help="Simulate so many orders of the trials.")] = 1,
    as_json: JsonOption = False,
    store: StoreOption = Path("runs"),
) -> None:
    """Play the pruning rule over recorded learning curves, against no pruning and stop-only ASHA. Trains nothing."""
    from sweeper.forecast.simulate import SimulateRequest, run

    run(
        SimulateRequest(
            curves=curves,
            name=name,
            store=store,
            slots=slots,
            eta=eta,
            first_rung=first_rung,
            rungs=rungs,
            updates=updates,
            orders=orders,
            as_json=as_json,
        )
    )


@app.command("status")
def status_command(
    store: StoreOption = Path("runs"),
    trial: Annotated[
        str | None, typer.Option(metavar="SIGNATURE", help="One trial: its rungs, its places, where the cuts were.")
    ] = None,
    watched: Annotated[
        bool, typer.Option("--watch", help="Follow the sweep that is being trained, until it ends.")
    ] = False,
) -> None:
    """List the sweeps of a store and how far they are."""
    from sweeper.store import Store
    from sweeper.terminal.status import show, show_trial, watch

    if watched:
        watch(Store(store))
    elif trial is not None:
        show_trial(Store(store), trial)
    else:
        show(Store(store))


wandb_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Weights & Biases: send runs, make a report.")
app.add_typer(wandb_app, name="wandb")


@wandb_app.command("sync")
def wandb_sync_command(
    store: StoreOption = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Only this sweep.")] = None,
) -> None:
    """Send W&B every run that it has not, and check that all of it is there."""
    from sweeper.store import Store
    from sweeper.tracking.watcher import sync

    sync(Store(store), name, shlex.join(["sweeper", *sys.argv[1:]]))


@wandb_app.command("report")
def wandb_report_command(
    dataset: Annotated[str | None, typer.Option(help="Which data set's, if there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="Which student sweep's, if there are several.")] = None,
    store: StoreOption = Path("runs"),
) -> None:
    """Make the report of a sweep on W&B, or bring it up to date."""
    from sweeper.tracking.report import run

    print(run(store, dataset, name))


def main() -> None:
    """The console script: a user's mistake is one line and an exit code."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)

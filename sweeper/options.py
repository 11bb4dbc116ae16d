"""Options of the command line: their help, and the panels that group them in `--help`."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sweeper import __version__
from sweeper.choices import ExportFormat, Precision, Role, TableFormat, Wandb, either
from trainables.errors import UserError

# Panels of `sweeper --help`.
TRAIN = "Train"
LOOK = "Look"
USE = "Use"

# One kind of option per panel of a command's help.
_training = partial(typer.Option, rich_help_panel="What to train")
_pruning = partial(typer.Option, rich_help_panel="Pruning")
_scoring = partial(typer.Option, rich_help_panel="Scores")
_running = partial(typer.Option, rich_help_panel="Where and how")
_cost = partial(typer.Option, rich_help_panel="Hardware and price")
_wandb = partial(typer.Option, rich_help_panel="Weights & Biases")
_sweep = partial(typer.Option, rich_help_panel="Which sweep")
_student = partial(typer.Option, rich_help_panel="Which student")
_output = partial(typer.Option, rich_help_panel="Output")


# What to train.

RoleArgument = Annotated[
    Role,
    typer.Argument(metavar="ROLE", help=f"Networks to train: {either(Role)}.", rich_help_panel="What to train"),
]
DatasetOption = Annotated[
    str | None,
    _training(
        metavar="NAME|FOLDER",
        help="Name of a data set, or a folder of images.",
        show_default="for students, the teacher's",
    ),
]
SpaceOption = Annotated[
    Path | None,
    _training(
        metavar="FILE",
        help="Search space: a Python file that defines TEACHERS and STUDENTS.",
        show_default="search_spaces/DATASET.py",
    ),
]
SetOption = Annotated[
    list[str] | None,
    _training(
        "--set",
        metavar="KEY=V1,V2",
        help="Set a field of the search space. Several values make a grid. Repeat the option for more fields.",
    ),
]
TeacherOption = Annotated[
    str, _training(metavar="TEACHER", help="Teacher of the students: best, d=N, a signature or an added one's name.")
]
PrecisionOption = Annotated[
    Precision | None,
    _training(
        metavar="PRECISION",
        help=f"Mixed precision of the training: {either(Precision)}.",
        show_default="the search space's",
    ),
]

# Pruning.

EtaOption = Annotated[
    int | None,
    _pruning(
        metavar="N", min=2, max=10**6, help="Promote one in N configurations at each rung.", show_default="the sweep's"
    ),
]
RungsOption = Annotated[
    int | None,
    _pruning(metavar="N", min=0, max=1000, help="Use at most N rungs below the budget.", show_default="the sweep's"),
]
NoPruningOption = Annotated[bool, _pruning("--no-pruning", help="Train every configuration to the full budget.")]
FirstRungOption = Annotated[
    int | None,
    _pruning(metavar="N", min=1, max=10**9, help="Place the first rung at N updates.", show_default="the sweep's"),
]
UpdatesOption = Annotated[
    int | None,
    _pruning(metavar="N", min=1, max=10**9, help="Set the budget to N updates.", show_default="the sweep's"),
]

# Scores.

FeaturesOption = Annotated[
    str | None,
    _scoring(
        metavar="NAME",
        help="Features that FID compares: inception, classifier, imagenet or a plug-in's.",
        show_default="by data set",
    ),
]
SamplesArgument = Annotated[
    list[Path], typer.Argument(metavar="IMAGES", help="Folders of images to score.", rich_help_panel="Scores")
]
AgainstOption = Annotated[str, _scoring(metavar="FOLDER|DATASET", help="Reference images: a folder or a data set.")]
DimsOption = Annotated[
    str | None,
    _scoring(
        metavar="N,N",
        help="Dimensions of the features. Inception has 64, 192, 768 and 2048.",
        show_default="the largest",
    ),
]
FirstImagesOption = Annotated[
    int | None,
    _scoring("--n", metavar="N", min=2, help="Score the first N images of each folder.", show_default="all images"),
]

# Where and how.

NameOption = Annotated[str | None, _running(metavar="SWEEP", help="Name of the sweep.", show_default="DATASET-ROLE")]
ReplaceOption = Annotated[
    bool, _running("--replace", help="Allow that trials leave the sweep of this name, or that its teacher changes.")
]
StoreOption = Annotated[
    Path, _running("--store", metavar="FOLDER", help="Folder of all records, checkpoints and weights.")
]
DataRootOption = Annotated[Path, _running("--data-root", metavar="FOLDER", help="Folder of torchvision's data sets.")]
DownloadOption = Annotated[bool, _running("--download", help="Download a missing data set, and Inception's weights.")]
SlotsOption = Annotated[
    int | None,
    _running(metavar="N", min=1, max=10**4, help="Run at most N trials at a time.", show_default="as many as fit"),
]
AddressOption = Annotated[
    str | None,
    _running(metavar="auto|HOST:PORT", help="Address of a Ray cluster.", show_default="start Ray on this machine"),
]
CheckpointOption = Annotated[
    float,
    _running(metavar="SECONDS", min=1, max=86_400, help="Save a running trial at least this often: the most it loses."),
]
SimulatedSlotsOption = Annotated[
    float, _running(metavar="N", min=0.001, max=10**6, help="Simulate N slots. A trial of share 1 takes one slot.")
]
OrdersOption = Annotated[
    int, _running(metavar="N", min=1, max=1000, help="Simulate N orders of the trials, and print the means.")
]

# Hardware and price.

GpusOption = Annotated[
    int | None,
    _cost(metavar="N", min=1, max=10**6, help="Plan for N GPUs instead of those that Ray reports. Needs --gpu-type."),
]
GpuTypeOption = Annotated[
    str | None,
    _cost(metavar="GPU", help="Read the speed of this GPU from a table instead of measuring it, for example A100."),
]
ThroughputsOption = Annotated[
    Path | None,
    _cost(
        metavar="FILE",
        help="Table of the throughputs of GPUs. Needs --gpu-type.",
        show_default="sweeper/forecast/throughputs.toml",
    ),
]
PriceOption = Annotated[
    float | None,
    _cost(metavar="PRICE", min=0, max=10**6, help="Price of one GPU for one hour; without a GPU, of the machine."),
]

# Weights & Biases.

WandbOption = Annotated[
    Wandb,
    _wandb(
        metavar="MODE",
        help="Upload runs later by `sweeper wandb sync` (offline), during the training (online), or never (disabled).",
    ),
]

# Plug-ins.


def _load_plugins(context: typer.Context, references: list[str] | None) -> list[str] | None:
    """Load the plug-ins of installed packages and those that are named. Raises UserError."""
    if not context.resilient_parsing:
        from trainables import plugins

        plugins.load_installed()
        for reference in references or []:
            plugins.load(reference)
    return references


PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE|MODULE",
        help="Load losses, generator families, data sets or features of your own. Repeat the option for more.",
        callback=_load_plugins,
        rich_help_panel="Plug-ins",
        show_default=False,
    ),
]

# Which sweep, which student.

OfDatasetOption = Annotated[
    str | None,
    _sweep("--dataset", metavar="DATASET", help="Select the sweep by its data set if the store holds several."),
]
OfSweepOption = Annotated[
    str | None, _sweep("--name", metavar="SWEEP", help="Select the sweep by its name if the store holds several.")
]
OnlySweepOption = Annotated[
    str | None, _sweep("--name", metavar="SWEEP", help="Name of the sweep to upload.", show_default="all sweeps")
]
OfStoreOption = Annotated[Path, _sweep("--store", metavar="FOLDER", help="Folder that `sweeper run` wrote.")]
CurvesOption = Annotated[
    Path | None,
    _sweep(
        metavar="FILE",
        help="Learning curves as JSON lines: stratum, trial, seconds_per_update and points (pairs of updates and FID).",
        show_default="those of the sweep",
    ),
]
WidthOption = Annotated[
    int | None, _student("--d", metavar="N", help="Width of the student.", show_default="the limit of compression")
]
ExportedTrialOption = Annotated[
    str | None, _student("--trial", metavar="SIGNATURE", help="Export this finished trial instead.")
]

# Output.


def export_formats(text: str) -> tuple[str, ...]:
    """Parse `onnx-fp16,onnx-int8`. Raises UserError."""
    words = dict.fromkeys(word.strip() for word in text.split(","))
    if unknown := next((word for word in words if word not in list(ExportFormat)), None):
        raise UserError(f"--format {unknown}: not a format; use {either(ExportFormat)}")
    return tuple(ExportFormat(word).value for word in words)


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", text):
        raise UserError(f"--license {text}: not an identifier of a license; try mit or apache-2.0")
    return text


JsonOption = Annotated[bool, _output("--json", help="Print JSON on stdout.")]
TableFormatOption = Annotated[
    TableFormat, _output("--format", metavar="FORMAT", help=f"Format of the table: {either(TableFormat)}.")
]
ExportFormatsOption = Annotated[
    str,
    _output(
        "--format",
        metavar="F1,F2",
        help=f"Formats of the weights: {either(ExportFormat)}. In fewer bits they are scored again.",
    ),
]
OnlyBatchOption = Annotated[
    int | None,
    _output(
        "--batch",
        metavar="N",
        min=1,
        max=10**4,
        help="Write ONNX files for exactly N images at a time, and measure these.",
        show_default="any number",
    ),
]
LicenseOption = Annotated[
    str,
    _output(
        "--license",
        metavar="ID",
        callback=_license,
        help="License on the model card, as Hugging Face names it: mit, apache-2.0, cc-by-4.0, other ...",
    ),
]
PushOption = Annotated[
    str | None,
    _output("--push-to-hub", metavar="USER/NAME", help="Upload the folder to this repository of Hugging Face."),
]
SampleImagesOption = Annotated[
    int,
    _output(
        "--to-folder",
        metavar="N",
        min=0,
        max=10**5,
        help="Write N sample images to samples/ in the folder of the export.",
    ),
]
PageOption = Annotated[
    Path | None,
    _output("-o", "--output", metavar="FILE", help="File of the page.", show_default="STORE/reports/SWEEP.html"),
]
ExportFolderOption = Annotated[
    Path | None,
    _output(
        "-o", "--output", metavar="FOLDER", help="Folder of the export.", show_default="exported/DATASET-student-dD"
    ),
]
ShownTrialOption = Annotated[
    str | None,
    _output("--trial", metavar="SIGNATURE", help="Show one trial: its rungs, and at each its rank and the cut-off."),
]
YesOption = Annotated[bool, _output("--yes", help="Delete it.")]
WatchOption = Annotated[bool, _output("--watch", help="Follow the running sweep until it ends.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sweeper {__version__}")
        raise typer.Exit


# Eager: `sweeper --version` needs no command.
VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]

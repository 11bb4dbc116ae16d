"""Typer commands of `sweeper teacher`."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sweeper import options
from sweeper.choices import either
from sweeper.panels import PanelCommand, PanelGroup
from sweeper.typed_command import command
from trainables.shapes import LATENT_LAWS

teacher_app = typer.Typer(
    cls=PanelGroup, no_args_is_help=True, rich_markup_mode=None, help="Add a teacher that sweeper did not train."
)
_generator = partial(typer.Option, rich_help_panel="The generator")


class Law(StrEnum):
    """Laws of latents."""

    vars().update({law: law for law in LATENT_LAWS})


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FOLDER|MODULE:FUNCTION",
        help="Generator: an .onnx file, a .pt2 file of torch.export, a folder of pairs (z.npy and images.npy, or image "
        "files named by row), or a function of your own that makes a torch module.",
        rich_help_panel="The generator",
    ),
]
TeacherNameOption = Annotated[
    str | None, _generator("--name", metavar="NAME", help="Name of the teacher.", show_default="that of the file")
]
ReferenceOption = Annotated[
    str | None,
    _generator(
        "--dataset",
        metavar="NAME|FOLDER",
        help="Real images that it and its students are scored against.",
        show_default="images of its own",
    ),
]
WeightsOption = Annotated[
    Path | None, _generator(metavar="FILE", help="Weights of MODULE:FUNCTION, a safetensors file.", show_default=False)
]
LatentSizeOption = Annotated[
    int | None,
    _generator(metavar="N", min=1, max=10**6, help="Numbers in a latent of MODULE:FUNCTION.", show_default=False),
]
LatentLawOption = Annotated[
    Law | None,
    _generator(metavar="LAW", help=f"Law of its latents: {either(Law)}.", show_default="that of z.npy, if it is clear"),
]
LatentBoundOption = Annotated[
    float | None, _generator(metavar="BOUND", min=0.1, max=100, help="Bound of truncated latents.", show_default=False)
]
RangeOption = Annotated[
    str | None,
    _generator(
        "--range",
        metavar="LOW,HIGH",
        help="Range of its values: -1,1, 0,1 or 0,255.",
        show_default="that of 64 images, if it is clear",
    ),
]
LabelOption = Annotated[
    int | None,
    _generator(metavar="N", min=0, max=10**6, help="Class of all images, if it takes a class.", show_default=False),
]
CountOption = Annotated[
    int | None,
    typer.Option(
        "--n", metavar="N", min=2, max=10**6, help="Images per score.", show_default="10000", rich_help_panel="Scores"
    ),
]


@teacher_app.command("add", cls=PanelCommand)
def add_command(
    source: SourceArgument,
    name: TeacherNameOption = None,
    dataset: ReferenceOption = None,
    weights: WeightsOption = None,
    latent_size: LatentSizeOption = None,
    latent_law: LatentLawOption = None,
    latent_bound: LatentBoundOption = None,
    value_range: RangeOption = None,
    label: LabelOption = None,
    features: options.FeaturesOption = None,
    n: CountOption = None,
    store: options.StoreOption = Path("runs"),
    data_root: options.DataRootOption = Path("data"),
    download: options.DownloadOption = False,
    plugin: options.PluginOption = None,
) -> None:
    """Copy a generator into the store as a teacher, and score it as teachers are scored."""
    given = locals()
    from sweeper.adding.command import AddRequest, add

    del given["plugin"]  # its option has loaded it
    law = given.pop("latent_law")
    add(AddRequest(**given, latent_law=law.value if law else None, command=command()))

"""Options of the panel Budget: what a generator may take, and how its latency is measured."""

from functools import partial
from typing import Annotated

import typer

from sweeper.choices import Device, Runtime, either
from trainables.errors import UserError

_budget = partial(typer.Option, rich_help_panel="Budget")


def _share(text: str | None) -> float | None:
    """Parse `5%` or `0.05`."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"--within {text}: not a part of a score; try --within 5%")
    return share


MaxParamsOption = Annotated[
    int | None, _budget("--max-params", metavar="N", min=1, help="Leave out generators with more parameters.")
]
MaxMacsOption = Annotated[
    float | None,
    _budget("--max-macs", metavar="N", help="Leave out generators with more multiply-accumulates per image."),
]
MaxMsOption = Annotated[
    float | None,
    _budget(
        "--max-ms",
        metavar="N",
        help="Leave out generators that take more milliseconds per image on this machine.",
    ),
]
MaxBytesOption = Annotated[
    int | None, _budget("--max-bytes", metavar="N", min=1, help="Leave out generators whose weights are a larger file.")
]
RuntimeOption = Annotated[
    Runtime, _budget("--runtime", metavar="RUNTIME", help=f"Measure milliseconds in {either(Runtime)}.")
]
DeviceOption = Annotated[
    Device, _budget("--device", metavar="DEVICE", help=f"Measure milliseconds on {either(Device)}.")
]
ThreadsOption = Annotated[
    int, _budget("--threads", metavar="N", min=1, max=1024, help="Measure milliseconds on N threads of a CPU.")
]
BatchOption = Annotated[
    int, _budget("--batch", metavar="N", min=1, max=10**4, help="Measure milliseconds of N images at a time.")
]
WithinOption = Annotated[
    str | None,
    _budget(
        "--within",
        metavar="SHARE",
        callback=_share,
        help="How near the teacher's score the limit of compression is.",
        show_default="10%",
    ),
]

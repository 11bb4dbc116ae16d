"""Choices of options of the command line."""

from enum import StrEnum

from trainables.spec import PRECISIONS, ROLES


class Role(StrEnum):
    """Name: the role in a TrialSpec. Value: the word on the command line."""

    vars().update({role: f"{role}s" for role in ROLES})


class Precision(StrEnum):
    """Mixed precisions of a TrialSpec."""

    vars().update({precision: precision for precision in PRECISIONS})


# Written out, because sweeper.results imports numpy and torch, which would slow every `--help`.


class Wandb(StrEnum):
    """When runs are uploaded; see Manifest.wandb."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


class TableFormat(StrEnum):
    """Formats of sweeper.results.table_text; rich is for a terminal."""

    rich = "rich"
    md = "md"
    csv = "csv"
    latex = "latex"
    json = "json"


class ExportFormat(StrEnum):
    """Formats of sweeper.results.export."""

    safetensors = "safetensors"
    onnx = "onnx"
    onnx_fp16 = "onnx-fp16"
    onnx_int8 = "onnx-int8"


class Runtime(StrEnum):
    """Runtimes of sweeper.results.latency."""

    onnx = "onnx"
    torch = "torch"


class Device(StrEnum):
    """Devices of sweeper.results.latency."""

    cpu = "cpu"
    cuda = "cuda"


def either(choices: type[StrEnum]) -> str:
    """Return the choices in words: `rich, md or json`."""
    *first, last = choices
    return f"{', '.join(first)} or {last}"

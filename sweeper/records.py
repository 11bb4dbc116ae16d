"""The records of the store: what each JSON file holds, and which values are valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from trainables.datasets import METRICS
from trainables.reading import STRICT, Count, Line, Name, Number, Seconds, Size, one_of
from trainables.scores.protocol import Score
from trainables.spec import ROLES, TrialSpec

T = TypeVar("T")

PURPOSES = ("rung", "selection", "report")
SCORES = ("is", "fid", "kid", "sharpness")
ONNX_FORMATS = ("onnx", "onnx-fp16", "onnx-int8")  # of an exported generator's weights; onnx is float32
CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a running trial


def _check_purposes(values: dict[str, T]) -> dict[str, T]:
    if set(values) != set(PURPOSES):
        raise ValueError(f"not one value for each of {', '.join(PURPOSES)}")
    return values


ByPurpose = AfterValidator(_check_purposes)


@dataclass(frozen=True)
class StoreFacts:
    """The file store.json. A later version may have other fields."""

    version: int
    id: Name | None = None
    __pydantic_config__ = STRICT | {"extra": "ignore"}


@dataclass(frozen=True)
class RungRecord:
    """A trial's result at a rung."""

    updates: Count
    seconds: Seconds  # of training since the previous record
    losses: dict[str, Number]
    scores: dict[str, Score]  # by the rung latents; empty if the trial diverged
    diverged: bool

    def __post_init__(self) -> None:
        if not self.diverged and "fid" not in self.scores:
            raise ValueError("no FID at a rung where the trial has not diverged")


@dataclass(frozen=True)
class FinalRecord:
    """A trial's result at a sweep's budget."""

    updates: Count
    weights: Name  # hash of the generator's weights file
    selection: dict[str, Score]
    report: dict[str, Score]
    discriminator: Name | None = None  # hash of the discriminator's weights file, if it is kept

    def __post_init__(self) -> None:
        if "fid" not in self.selection or "fid" not in self.report:
            raise ValueError("no FID at the budget")


@dataclass(frozen=True)
class ExportRecord:
    """A finished trial's generator as an ONNX file, and its scores. The store does not keep the file."""

    format: Annotated[str, one_of(*ONNX_FORMATS)]
    updates: Count
    weights: Name  # hash of the weights that it was made from
    file: Name  # hash of the ONNX file
    bytes: Size  # of the ONNX file
    report: dict[str, Score]
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if "fid" not in self.report:
            raise ValueError("no FID of the exported generator")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a generator of one shape takes on one machine, in one format."""

    subject: Line  # the shape
    format: Annotated[str, one_of(*ONNX_FORMATS, "torch")]
    conditions: Line  # runtime with its version, device, threads, images at a time
    host: Line
    machine: Line  # processor or GPU, and operating system
    milliseconds: Seconds  # per image
    bytes: Size  # of the file
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TrialFile:
    """The file record.json of a trial."""

    spec: dict[str, str | int | float | None]  # TrialSpec.canonical
    rungs: list[RungRecord]
    finals: list[FinalRecord]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TrialRecord:
    """Everything that the store records about a trial."""

    spec: TrialSpec
    rungs: list[RungRecord] = field(default_factory=list)
    finals: list[FinalRecord] = field(default_factory=list)

    def rung(self, updates: int, protocol: str) -> RungRecord | None:
        """Return the record at a number of updates, if it was scored by this protocol or diverged."""
        for record in self.rungs:
            if record.updates == updates and (record.diverged or record.scores["fid"]["protocol"] == protocol):
                return record
        return None

    def final(self, updates: int, protocols: Mapping[str, str]) -> FinalRecord | None:
        """Return the final record at a budget, if it was scored by these protocols."""
        for record in self.finals:
            pair = record.selection["fid"]["protocol"], record.report["fid"]["protocol"]
            if record.updates == updates and pair == (protocols["selection"], protocols["report"]):
                return record
        return None


@dataclass(frozen=True)
class Teacher:
    """The teacher of a student sweep, pinned by signature, updates and weights."""

    signature: Name
    updates: Count
    weights: Name
    sweep: Name  # the teacher sweep that it was selected from; its trials are the controls
    by: Line  # the value of --teacher: best, d=N or a signature

    @property
    def name(self) -> str:
        return f"{self.signature}@{self.updates}-{self.weights}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The definition of a sweep: its trials, rungs and scores."""

    name: Name
    role: Annotated[str, one_of(*ROLES)]
    dataset: Name
    image_size: Count
    metric: Annotated[str, one_of(*METRICS)]  # selects the best trial
    features: Name  # in trainables.scores.loading.FEATURES: the network that FID is computed on
    real: dict[str, Number | None]  # Inception Score and sharpness of the real images
    real_bytes: Size  # of the real images as one uint8 array
    updates: Count  # the budget
    rungs: Annotated[list[Count], Field(min_length=1)]  # in updates, the budget included
    eta: Count
    n: Annotated[dict[str, Count], ByPurpose]  # purpose → images per score
    protocols: Annotated[dict[str, Line], ByPurpose]  # purpose → protocol
    signatures: Annotated[list[Name], Field(min_length=1)]  # of the search space's trials
    confirm: Annotated[int, Field(ge=0)] = 0  # fresh seeds with which the best of each shape is trained again
    confirming: list[Name] = field(default_factory=list)  # signatures of these trials, once they are known
    teacher: Teacher | None = None
    command: Line = ""  # the command that runs the sweep again
    wandb: Annotated[str, one_of("offline", "online", "disabled")] = (
        "offline"  # whether its runs may be uploaded to W&B
    )
    plugins: list[Name] = field(default_factory=list)  # NAME-HASH of the plug-ins that define its losses, data set …
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if any(before >= after for before, after in pairwise(self.rungs)) or self.rungs[-1:] != [self.updates]:
            raise ValueError("the rungs do not ascend to the budget")
        if len(set(self.members)) < len(self.members):
            raise ValueError("a trial is listed twice")
        if (self.role == "student") != (self.teacher is not None):
            raise ValueError("a sweep has a teacher if and only if it is one of students")

    @property
    def members(self) -> list[str]:
        """Return the signatures of all trials."""
        return [*self.signatures, *self.confirming]

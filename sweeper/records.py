"""The records of the store: what each JSON file holds, and which values are valid."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from trainables.datasets import METRICS
from trainables.reading import MAX_COUNT, STRICT, Count, Line, Name, Number, Seconds, Size, one_of
from trainables.scores.protocol import Score
from trainables.shapes import LATENT_LAWS, LatentLaw
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

    signature: Name  # of its trial; of an added teacher its id
    updates: Annotated[int, Field(ge=0, le=MAX_COUNT)]  # 0: it was added
    weights: Name
    sweep: Name | None  # the teacher sweep that it was selected from; its trials are the controls. None: it was added
    by: Line  # the value of --teacher: best, d=N, a signature, or the name of an added teacher

    @property
    def name(self) -> str:
        return f"{self.signature}@{self.updates}-{self.weights}"


@dataclass(frozen=True)
class TeacherScores:
    """The scores of an added teacher by the protocols of one image size."""

    rung: dict[str, Score]
    selection: dict[str, Score]
    report: dict[str, Score]

    def __post_init__(self) -> None:
        if not all("fid" in scores for scores in (self.rung, self.selection, self.report)):
            raise ValueError("no FID of the teacher")


@dataclass(frozen=True, kw_only=True)
class AddedTeacher:
    """A teacher that sweeper did not train: a generator as ONNX, or pairs of latents and images."""

    name: Name
    source: Name  # hash of what was added
    kind: Annotated[str, one_of("onnx", "torch", "pairs")]  # of what was added; the store keeps ONNX or pairs
    files: dict[Name, Name]  # name → hash, of its files in the store
    latent_size: Count
    latent_law: Annotated[str, one_of(*LATENT_LAWS)]
    latent_bound: Number | None
    low: Number  # of the generator's values
    high: Number
    label: int | None  # the class of its images, if it takes one
    channels: Count
    image_size: Count  # the side of its own images
    parameters: Size | None  # None: not known
    macs: Size | None  # multiply-accumulates per image
    pairs: Size  # 0 for a generator
    dataset: Name  # that it is scored against
    own: Size  # number of its own images that are this data set; 0 for real images
    metric: Annotated[str, one_of(*METRICS)]
    features: Name
    n: Annotated[dict[str, Count], ByPurpose]  # purpose → images per score of its students, by default
    scores: list[TeacherScores]
    command: Line
    __pydantic_config__ = STRICT

    @property
    def id(self) -> str:
        """12 hex digits that name its images: the content that was added, its latents, range and class."""
        facts = [self.source, self.latent_size, self.latent_law, self.latent_bound, self.low, self.high, self.label]
        return _digest(facts)

    @property
    def law(self) -> LatentLaw:
        """How its latents are drawn."""
        return LatentLaw(self.latent_size, self.latent_law, self.latent_bound)

    @property
    def pinned(self) -> Teacher:
        """The teacher of a student sweep."""
        return Teacher(self.id, 0, _digest(self.files), None, self.name)

    def scores_by(self, report: str) -> TeacherScores | None:
        """Return the scores by a protocol of the report."""
        return next((scores for scores in self.scores if scores.report["fid"]["protocol"] == report), None)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


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

"""What is asked for: the command line's request, resolved against the store and the search space."""

import dataclasses
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from sweeper.scheduling.selection import resolve_teacher
from sweeper.spaces import Space, expand, listed, load_space, override
from sweeper.store import Manifest, Store, Teacher
from trainables.errors import UserError
from trainables.identity import identify
from trainables.spec import DEFAULTS, TrialSpec

console = Console(stderr=True, highlight=False, soft_wrap=True)
say = console.print


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    role: str  # teacher or student
    dataset: str | None = None  # a name or a folder; students take their teacher's
    space: Path | None = None
    assignments: list[str] = field(default_factory=list)
    teacher: str = "best"
    name: str | None = None
    store: Path = Path("runs")
    data_root: Path = Path("data")
    download: bool = False
    slots: int | None = None
    address: str | None = None
    precision: str | None = None
    eta: int | None = None
    rungs: int | None = None
    pruning: bool = True
    features: str | None = None  # by default the set's, for students their teacher's
    wandb: str = "offline"
    plugins: list[str] = field(default_factory=list)  # as they were named; they are loaded already
    command: str = "sweeper run"


@dataclass(frozen=True)
class Resolved:
    """A request, as far as it can be understood without writing anything."""

    request: Request
    store: Store
    dataset: str
    folder: Path | None
    space: Space
    image_size: int
    teacher: Teacher | None  # pinned
    source: Manifest | None  # the sweep that the teacher is from

    @property
    def name(self) -> str:
        return self.request.name or f"{self.dataset}-{self.request.role}s"

    @property
    def eta(self) -> int:
        return self.space.eta if self.request.pruning else 1

    @property
    def n(self) -> dict[str, int]:
        """Images per score."""
        return {"rung": self.space.n_rung, "selection": self.space.n_selection, "report": self.space.n_report}

    def features(self, of_set: str) -> str:
        """What FID is computed on: what is asked for, else the teacher's, else the set's own."""
        return self.request.features or (self.source.features if self.source else of_set)

    def specs(self, channels: int) -> list[TrialSpec]:
        precision = {"precision": self.request.precision} if self.request.precision else {}
        return expand(
            self.space,
            role=self.request.role,
            dataset=self.dataset,
            channels=channels,
            teacher=self.teacher.name if self.teacher else None,
            fixed={"image_size": self.image_size, **precision},
        )


def resolve(request: Request) -> Resolved:
    """Raises UserError where the request itself is at fault, NotYetError where there is no teacher yet."""
    store = Store(request.store)
    if request.name is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", request.name):
        raise UserError(f"--name {request.name}: letters, digits, '.', '_' and '-' alone; try --name mine")
    folder = Path(request.dataset).expanduser() if request.dataset else None
    dataset = (
        identify(request.dataset, store.datasets, request.data_root, request.download) if request.dataset else None
    )
    pinned, source = None, None
    if request.role == "student":
        pinned, source = _teacher(request, store, dataset)
        dataset = source.dataset
    if dataset is None:
        raise UserError("run teachers needs a data set; try `sweeper run teachers --dataset mnist5k`")
    space = _space(request, dataset)
    resolved = Resolved(request, store, dataset, folder, space, _image_size(space, source), pinned, source)
    resolved.specs(channels=1)  # a wrong value in the space is an error of the request
    return resolved


def _teacher(request: Request, store: Store, dataset: str | None) -> tuple[Teacher, Manifest]:
    """The pinned teacher of a sweep that exists; else the one that --teacher names."""
    datasets = {m.dataset for m in store.sweeps() if m.role == "teacher"}
    known = dataset or (datasets.pop() if len(datasets) == 1 else None)
    name = request.name or f"{known}-students"
    old = store.sweep(name)
    if old is None or old.teacher is None or old.teacher.by != request.teacher or dataset not in (None, old.dataset):
        return resolve_teacher(store, request.teacher, dataset)
    source = store.sweep(old.teacher.sweep)
    assert source is not None
    # Pinned: what is better by now is only named. A teacher sweep that is being extended changes nothing here.
    with suppress(UserError):
        found, _ = resolve_teacher(store, request.teacher, dataset)
        if found != old.teacher:
            say(
                f"{name} keeps its teacher {old.teacher.signature}; {request.teacher} is now {found.signature}: "
                f"for a sweep with that one, add --name {name}-{found.signature[:4]}"
            )
    return old.teacher, source


def _space(request: Request, dataset: str) -> Space:
    space = override(load_space(dataset, request.role, request.space), request.assignments, request.role)
    return dataclasses.replace(
        space, eta=request.eta or space.eta, rungs=space.rungs if request.rungs is None else request.rungs
    )


def _image_size(space: Space, source: Manifest | None) -> int:
    default = source.image_size if source else DEFAULTS["image_size"]
    sizes = {size for grid in space.grids for size in listed(grid.get("image_size", default))}
    if len(sizes) > 1:
        raise UserError(f"image_size={sizes}: a sweep has one size; run one sweep per size, each with its --name")
    size = int(sizes.pop())
    if source and size != source.image_size:
        raise UserError(f"image_size={size}, but the teacher makes {source.image_size}² ones; leave it out")
    return size

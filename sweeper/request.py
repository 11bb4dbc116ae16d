"""The request of `sweeper run` and `sweeper plan`, resolved against the store and the search space."""

import dataclasses
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeper.records import CHECKPOINT_SECONDS, Manifest, Teacher
from sweeper.scheduling.selection import resolve_teacher
from sweeper.spaces import Space, as_list, expand, load_space, override
from sweeper.store import Store
from trainables.dataset_identity import identify
from trainables.errors import UserError
from trainables.reading import MAX_NAME, is_name
from trainables.spec import DEFAULTS, TrialSpec, check_type

console = Console(stderr=True, highlight=False, soft_wrap=True)
say = console.print


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `sweeper run` and `sweeper plan` that describe a sweep."""

    role: str  # teacher or student
    dataset: str | None = None  # a name or a folder; for students by default their teacher's
    space: Path | None = None
    assignments: list[str] = field(default_factory=list)
    teacher: str = "best"
    name: str | None = None
    replace: bool = False  # whether trials may leave the sweep, and its teacher may change
    store: Path = Path("runs")
    data_root: Path = Path("data")
    download: bool = False
    slots: int | None = None
    address: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    precision: str | None = None
    eta: int | None = None
    rungs: int | None = None
    pruning: bool = True
    features: str | None = None  # by default the data set's; for students their teacher's
    wandb: str = "offline"
    plugins: list[str] = field(default_factory=list)  # as for --plugin; already loaded
    command: str = "sweeper run"


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with its defaults filled in. Resolving it writes nothing to the store."""

    request: Request
    store: Store
    dataset: str
    folder: Path | None  # --dataset as a path; used only for a folder of images
    space: Space
    shared: dict[str, Any]  # fields that have one value in a sweep, which students have from their teacher
    teacher: Teacher | None  # for students: the pinned teacher
    source: Manifest | None  # the teacher's sweep

    @property
    def name(self) -> str:
        return self.request.name or f"{self.dataset}-{self.request.role}s"

    @property
    def image_size(self) -> int:
        return int(self.shared["image_size"])

    @property
    def eta(self) -> int:
        return self.space.eta if self.request.pruning else 1

    @property
    def n(self) -> dict[str, int]:
        """purpose (rung, selection, report) → images per score."""
        return {"rung": self.space.n_rung, "selection": self.space.n_selection, "report": self.space.n_report}

    def features(self, default: str) -> str:
        """Return the feature network for FID: the request's, else the teacher's, else the data set's default."""
        return self.request.features or (self.source.features if self.source else default)

    def specs(self, channels: int) -> list[TrialSpec]:
        """Return the sweep's trials. Raises UserError for a wrong value in the space."""
        precision = {"precision": self.request.precision} if self.request.precision else {}
        return expand(
            self.space,
            role=self.request.role,
            dataset=self.dataset,
            channels=channels,
            teacher=self.teacher.name if self.teacher else None,
            fixed={**self.shared, **precision},
            teacher_discriminator=(
                self.store.require(self.teacher.signature).spec.d_discriminator if self.teacher else None
            ),
        )


def choose_cluster(address: str | None) -> None:
    """Name the cluster to Ray, by the variable that it and sweeper.execution.tune read when they are imported."""
    if address:
        os.environ["RAY_ADDRESS"] = address


def resolve(request: Request) -> ResolvedRequest:
    """Resolve a request. Raises UserError for a wrong value, NotYetError without a finished teacher."""
    store = Store(request.store)
    if request.name is not None and not is_name(request.name):
        raise UserError(
            f"--name {request.name}: use at most {MAX_NAME} letters, digits, '.', '_' and '-'; try --name mine"
        )
    folder = Path(os.path.expanduser(request.dataset)) if request.dataset else None
    dataset = (
        identify(request.dataset, store.datasets, request.data_root, request.download) if request.dataset else None
    )
    teacher, source = None, None
    if request.role == "student":
        teacher, source = _teacher(request, store, dataset)
        dataset = source.dataset
    if dataset is None:
        raise UserError("run teachers needs a data set; try `sweeper run teachers --dataset mnist5k`")
    space = _space(request, dataset)
    shared = _shared(space, store.require(teacher.signature).spec if teacher else None)
    resolved = ResolvedRequest(request, store, dataset, folder, space, shared, teacher, source)
    resolved.specs(channels=1)  # raises for a wrong value in the space
    return resolved


def _teacher(request: Request, store: Store, dataset: str | None) -> tuple[Teacher, Manifest]:
    """Return the teacher that an existing sweep has pinned, else the one that --teacher selects; and its sweep."""
    datasets = {m.dataset for m in store.sweeps() if m.role == "teacher"}
    dataset_of_name = dataset or (datasets.pop() if len(datasets) == 1 else None)
    name = request.name or f"{dataset_of_name}-students"
    old = store.sweep(name)
    if old is None or old.teacher is None or old.teacher.by != request.teacher or dataset not in (None, old.dataset):
        return resolve_teacher(store, request.teacher, dataset)
    source = store.require_sweep(old.teacher.sweep)
    # A better teacher is only reported, so that extending the teacher sweep does not change this one.
    with suppress(UserError):
        current, _ = resolve_teacher(store, request.teacher, dataset)
        if current != old.teacher:
            say(
                f"{name} keeps its teacher {old.teacher.signature}; `{request.teacher}` is now {current.signature}. "
                f"For a sweep with that teacher, add --name {name}-{current.signature[:4]}"
            )
    return old.teacher, source


def _space(request: Request, dataset: str) -> Space:
    """Return the search space with the request's overrides."""
    space = override(load_space(dataset, request.role, request.space), request.assignments, request.role)
    return dataclasses.replace(
        space, eta=request.eta or space.eta, rungs=space.rungs if request.rungs is None else request.rungs
    )


def _shared(space: Space, teacher: TrialSpec | None) -> dict[str, Any]:
    """Return the fields that have one value in a sweep. Raises UserError for several, or another than the teacher's."""
    shared = {}
    for name in ("image_size", "latent_size", "latent_law", "latent_bound"):
        default = getattr(teacher, name) if teacher else DEFAULTS[name]
        values = {value for grid in space.grids for value in as_list(grid.get(name, default))} or {default}
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise UserError(f"{name}={listed}: a sweep has one; run one sweep per {name}, each with its own --name")
        (shared[name],) = values
        check_type(name, shared[name])
        if teacher and shared[name] != default:
            raise UserError(f"{name}={shared[name]}: the teacher has {default}; leave {name} out")
    return shared

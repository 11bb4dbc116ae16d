"""The request of `sweeper run` and `sweeper plan`, resolved against the store and the search space."""

import dataclasses
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sweeper.records import CHECKPOINT_SECONDS, AddedTeacher, Manifest, Teacher
from sweeper.scheduling.selection import resolve_teacher
from sweeper.spaces import Space, as_list, expand, load_space, override, without
from sweeper.store import Store
from trainables.dataset_identity import identify
from trainables.errors import UserError
from trainables.objectives import Part
from trainables.reading import MAX_NAME, is_name
from trainables.spec import DEFAULTS, IMAGE_SIZES, TrialSpec, check_type
from trainables.teacher_images import for_students

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line. parts: texts, and pairs of a text and its style. Nothing in a text is markup."""
    console.print(Text.assemble(*parts))


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
    known: TrialSpec | AddedTeacher | None  # what the teacher is
    source: Manifest | AddedTeacher | None  # what students take their data set and features from: the teacher's sweep

    @property
    def name(self) -> str:
        return self.request.name or _default_name(self.request.role, self.dataset, self.known)

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
            teacher_discriminator=self.known.d_discriminator if isinstance(self.known, TrialSpec) else None,
        )


def choose_cluster(address: str | None) -> None:
    """Name the cluster to Ray, by the variable that it and sweeper.execution.tune read when they are imported.

    Raises UserError for `local`: Ray would start a session that listens to the network and asks for no token.
    """
    if address:
        os.environ["RAY_ADDRESS"] = address
    if os.environ.get("RAY_ADDRESS") == "local":
        option = "--address local" if address else "RAY_ADDRESS=local"
        raise UserError(f"{option} names no cluster; leave it out, and sweeper starts a session of its own")


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
    teacher, known, source = None, None, None
    if request.role == "student":
        teacher, source = _teacher(request, store, dataset)
        known, dataset = store.taught_by(teacher), source.dataset
    if dataset is None:
        raise UserError("run teachers needs a data set; try `sweeper run teachers --dataset mnist5k`")
    space = _space(request, dataset, known)
    shared = _shared(space, known)
    if known is not None:
        space = _served(space, request, known, shared["image_size"])
    resolved = ResolvedRequest(request, store, dataset, folder, space, shared, teacher, known, source)
    specs = resolved.specs(channels=1)  # raises for a wrong value in the space
    if isinstance(known, AddedTeacher) and known.pairs:
        wanted = max(spec.latents or 0 for spec in specs)
        return dataclasses.replace(resolved, space=_of_pairs(space, request, known, wanted))
    return resolved


def default_side(own: int) -> int:
    """Return the image size of students, unless they ask for a smaller one. own: the side of the teacher's images."""
    return max(size for size in IMAGE_SIZES if own % size == 0)


def _default_name(role: str, dataset: str, known: TrialSpec | AddedTeacher | None) -> str:
    return f"{known.name if isinstance(known, AddedTeacher) else dataset}-{role}s"


def _served(space: Space, request: Request, known: TrialSpec | AddedTeacher, side: int) -> Space:
    """Return the space without the losses that this teacher cannot serve. Say which they are.

    Raises UserError if --set names one, or if none is left.
    """
    lacks: dict[Part, str] = {}
    if isinstance(known, AddedTeacher):
        lacks[Part.TEACHER] = f"{known.name} has no discriminator"
        if known.own:
            lacks[Part.REAL] = f"{known.name} was added without a data set of real images"
    elif side != known.image_size:
        lacks[Part.TEACHER] = f"the teacher's discriminator is for images of {known.image_size}×{known.image_size}"
    served, left_out = without(space, lacks)
    typed = [text.partition("=") for text in request.assignments]
    named = {f"{key}={value}" for key, _, values in typed for value in values.split(",")}
    refused = [choice for choice in left_out if choice in named]
    if refused or (left_out and not served.grids):
        choice = (refused or list(left_out))[0]
        raise UserError(f"{choice}: {left_out[choice]}; use --set loss=mse, or another loss without it")
    for reason in dict.fromkeys(left_out.values()):
        choices = ", ".join(choice for choice, why in left_out.items() if why == reason)
        say(f"{reason}: {choices} is left out")
    return served


def _of_pairs(space: Space, request: Request, known: AddedTeacher, wanted: int) -> Space:
    """Return the default space with no more latents than the teacher has pairs for students. Say how many.

    wanted: the most that a trial of the space has. Raises UserError if a space of the user's, or --set, has more.
    """
    most = for_students(known.pairs, known.own)
    if wanted <= most:
        return space
    if request.space is not None or any(text.startswith("latents=") for text in request.assignments):
        raise UserError(f"latents={wanted}: {known.name} has {most} pairs for students; add --set latents={most}")
    say(f"{known.name} has {most} pairs for students: latents={most}")
    return override(space, [f"latents={most}"], request.role)


def _teacher(request: Request, store: Store, dataset: str | None) -> tuple[Teacher, Manifest | AddedTeacher]:
    """Return the teacher that an existing sweep has pinned, else the one that --teacher selects; and its source."""
    if (added := store.teachers.find(request.teacher)) is not None:
        if dataset not in (None, added.dataset):
            raise UserError(f"--dataset {request.dataset}: {added.name} was added with {added.dataset}; leave it out")
        return added.pinned, added
    datasets = {m.dataset for m in store.sweeps() if m.role == "teacher"}
    dataset_of_name = dataset or (datasets.pop() if len(datasets) == 1 else None)
    name = request.name or f"{dataset_of_name}-students"
    old = store.sweep(name)
    pinned = old.teacher if old is not None else None
    if old is None or pinned is None or pinned.by != request.teacher or dataset not in (None, old.dataset):
        return resolve_teacher(store, request.teacher, dataset)
    if pinned.sweep is None:
        raise UserError(f"{name} has the teacher {pinned.by}, which {store.root} does not hold; restore it")
    source = store.require_sweep(pinned.sweep)
    # A better teacher is only reported, so that extending the teacher sweep does not change this one.
    with suppress(UserError):
        current, _ = resolve_teacher(store, request.teacher, dataset)
        if current != pinned:
            say(
                f"{name} keeps its teacher {pinned.signature}; `{request.teacher}` is now {current.signature}. "
                f"For a sweep with that teacher, add --name {name}-{current.signature[:4]}"
            )
    return pinned, source


def _space(request: Request, dataset: str, known: TrialSpec | AddedTeacher | None) -> Space:
    """Return the search space with the request's overrides.

    Students of a teacher without a discriminator for their images have a space of their own. Those of an added teacher
    are scored with as many images as it.
    """
    sizes = {text for text in request.assignments if text.startswith("image_size=")}
    smaller = isinstance(known, TrialSpec) and bool(sizes - {f"image_size={known.image_size}"})
    name = "added" if smaller or isinstance(known, AddedTeacher) else dataset
    space = load_space(name, request.role, request.space)
    if isinstance(known, AddedTeacher) and request.space is None:
        n = known.n
        space = dataclasses.replace(space, n_rung=n["rung"], n_selection=n["selection"], n_report=n["report"])
    space = override(space, request.assignments, request.role)
    return dataclasses.replace(
        space, eta=request.eta or space.eta, rungs=space.rungs if request.rungs is None else request.rungs
    )


def _shared(space: Space, known: TrialSpec | AddedTeacher | None) -> dict[str, Any]:
    """Return the fields that have one value in a sweep. Raises UserError for several, or another than the teacher's.

    Only the image size may be smaller than the teacher's: students then learn from the averaged image.
    """
    shared = {}
    for name in ("image_size", "latent_size", "latent_law", "latent_bound"):
        default = getattr(known, name) if known else DEFAULTS[name]
        if known and name == "image_size":
            default = default_side(known.image_size)
        values = {value for grid in space.grids for value in as_list(grid.get(name, default))} or {default}
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise UserError(f"{name}={listed}: a sweep has one; run one sweep per {name}, each with its own --name")
        (shared[name],) = values
        check_type(name, shared[name])
        if known and name == "image_size" and (shared[name] not in IMAGE_SIZES or known.image_size % shared[name]):
            sizes = ", ".join(str(size) for size in IMAGE_SIZES if known.image_size % size == 0)
            raise UserError(f"image_size={shared[name]}: of the teacher's {known.image_size} students have {sizes}")
        if known and name != "image_size" and shared[name] != default:
            raise UserError(f"{name}={shared[name]}: the teacher has {default}; leave {name} out")
    return shared

"""From a request to a finished sweep: what `sweeper run` does, in order."""

import dataclasses
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar

from sweeper.selection import resolve_teacher
from sweeper.spaces import Space, expand, listed, load_space, override
from sweeper.store import Manifest, Store, Teacher
from sweeper.study import Study
from sweeper.sweep import Sweep
from sweeper.tracking import Tracking, watching
from trainables.errors import EnvironmentUserError, UserError
from trainables.images import Images, identify, prepare
from trainables.spec import DEFAULTS, TrialSpec


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
    command: str = "sweeper run"


SECONDS_BETWEEN_LINES = 10.0
console = Console(stderr=True, highlight=False, soft_wrap=True)
say = console.print


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
    dataset = identify(request.dataset, store.datasets) if request.dataset else None
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


@contextmanager
def decoding(dataset: str) -> Iterator[Callable[[int, int], None]]:
    """What to tell how many images are decoded, of how many: a bar on a terminal, else a line every ten seconds."""
    if console.is_terminal:
        with Bar(transient=True, console=console) as bar:
            task = bar.add_task(f"decoding {dataset}", visible=False)
            yield lambda done, of: bar.update(task, completed=done, total=of, visible=True)
        return
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            say(f"{dataset}: {done:,} of {of:,} images are decoded")

    yield tell


def run(request: Request) -> int:
    """Train what is missing of a sweep; returns the exit code. Raises UserError before anything is written, where
    the request itself is at fault."""
    asked = resolve(request)
    store = asked.store
    with store.driving():
        with decoding(asked.dataset) as tell:
            images = prepare(
                asked.dataset,
                asked.image_size,
                store.datasets,
                folder=asked.folder,
                data_root=request.data_root,
                download=request.download,
                tell=tell,
            )
        specs = asked.specs(images.channels)
        old = store.sweep(asked.name)
        if old and old.role != request.role:
            raise UserError(f"{old.name} is a sweep of {old.role}s; give this one another --name")
        # What is finished needs no network that scores, and so no torch.
        manifest = _manifest(asked, images, specs, old.real, old.protocols) if old else None
        if manifest is None or old is None or not _is_same(manifest, old) or not _as_it_was(old, store).finished():
            manifest = _manifest(asked, images, specs, *_scoring(asked, images))
        if asked.source:
            _check_comparable(manifest, asked.source)
        for spec in specs:
            if store.trial(spec.signature) is None:
                store.add(spec)
        sweep = Sweep.read(manifest, store)
        _announce(_as_it_was(old, store) if old else None, sweep)
        store.save_sweep(manifest)
        trained = not sweep.finished()
        with watching(manifest, store, _store_option(request)) as watchers:
            if trained:
                _train(sweep, store, request, watchers)
            return _conclude(sweep, store, request, trained)


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


def _scoring(asked: Resolved, images: Images) -> tuple[dict[str, float | None], dict[str, str]]:
    """The real images' own scores, and the protocols. Raises EnvironmentUserError without the features' weights."""
    from sweeper.job import scorer_of

    scorer = scorer_of(images.name, images.size, asked.features(images.features), asked.store.root)
    return scorer.real, {purpose: scorer.protocol(purpose, count) for purpose, count in asked.n.items()}


def _manifest(
    asked: Resolved,
    images: Images,
    specs: list[TrialSpec],
    real: dict[str, float | None],
    protocols: dict[str, str],
) -> Manifest:
    space, request = asked.space, asked.request
    return Manifest(
        name=asked.name,
        role=request.role,
        dataset=images.name,
        image_size=images.size,
        metric=images.metric,
        features=asked.features(images.features),
        real=real,
        real_bytes=images.pixels.nbytes,
        updates=space.updates,
        rungs=space.ladder(),
        eta=asked.eta,
        n=asked.n,
        protocols=protocols,
        signatures=[spec.signature for spec in specs],
        teacher=asked.teacher,
        command=request.command,
        wandb=request.wandb,
    )


def _check_comparable(students: Manifest, teachers: Manifest) -> None:
    """The table compares their report scores: better known now than after the training."""
    if students.features != teachers.features:
        raise UserError(f"--features {students.features}: {teachers.name} has {teachers.features}; leave it out")
    if students.updates != teachers.updates:
        say(
            f"[yellow]unequal budgets[/yellow]: students {students.updates} updates, controls {teachers.updates}; "
            f"for a fair table add --set updates={teachers.updates} here, or updates={students.updates} there"
        )
    if students.n["report"] != teachers.n["report"]:
        raise UserError(
            f"n_report={students.n['report']}: {teachers.name} was scored with {teachers.n['report']} images, and FID "
            f"depends on n; add --set n_report={teachers.n['report']}"
        )


def _as_it_was(old: Manifest, store: Store) -> Sweep:
    """The sweep before this command, without trials whose records are gone."""
    return Sweep(old, {signature: record for signature in old.signatures if (record := store.trial(signature))})


def _announce(before: Sweep | None, after: Sweep) -> None:
    """What this command changes, before it starts."""
    was, old, new = before.states() if before else {}, before.manifest if before else None, after.manifest
    wanted = {trial for stratum in after.strata.values() for trial, _ in stratum.wanted}
    counts = {
        "done": sum(after.final(trial) is not None for trial in after.records),
        "return": sum(was.get(trial) in ("pruned", "speculative") for trial in wanted),
        "new": sum(trial not in was and after.final(trial) is None for trial in after.records),
        "leave": sum(trial not in after.records for trial in was),
    }
    shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what in ("done", "new"))
    ladder = ", ".join(str(rung) for rung in new.rungs)
    say(f"[bold]{new.name}[/bold]: {len(after.records)} trials ({shown}); rungs at {ladder} updates, eta {new.eta}")
    if old and (old.rungs, old.eta, old.n) != (new.rungs, new.eta, new.n):
        say(f"  was: rungs at {', '.join(map(str, old.rungs))} updates, eta {old.eta}, n {old.n}; now n {new.n}")


def _is_same(manifest: Manifest, old: Manifest) -> bool:
    """But for how the command was typed and where it reports to, which decide nothing about its numbers."""
    return manifest == dataclasses.replace(old, command=manifest.command, wandb=manifest.wandb)


def _train(sweep: Sweep, store: Store, request: Request, watchers: list[Tracking]) -> None:
    from sweeper import launch
    from sweeper.progress import Progress

    with ExitStack() as stack:
        machine = stack.enter_context(launch.session(request.address, request.slots))
        progress = stack.enter_context(
            Progress(sweep, store, machine, launch.at_a_time(sweep, store, machine, request.slots))
        )
        launch.run(sweep, store, machine, request.slots, [progress, *watchers])


def _conclude(sweep: Sweep, store: Store, request: Request, trained: bool) -> int:
    """Pictures, what to type next; the exit code."""
    name, again = sweep.manifest.name, request.command
    if not sweep.finished():
        say(f"[yellow]interrupted[/yellow]: {name} goes on with `{again}`")
        return 130
    if sweep.failed:
        say(f"[red]{len(sweep.failed)} trials of {name} failed[/red]; try again with `{again}`")
        for signature, failure in sweep.failed.items():
            say(f"  {sweep.records[signature].spec.label()}: {escape(failure.reason)}")
            if (trace := store.traceback(signature)).exists():
                say(f"  what went wrong: {trace}")
        codes = {failure.exit_code for failure in sweep.failed.values()}
        return EnvironmentUserError.exit_code if codes == {EnvironmentUserError.exit_code} else 3
    for d in sweep.strata:
        if d not in sweep.finishers():
            say(f"[yellow]d={d} has no finisher: what was left of it diverged[/yellow]; try a smaller lr")
    if sweep.manifest.role == "student":
        _show_students(sweep, store, request, trained)
        named = f" --name {request.name}" if request.name else ""
        next_step = f"sweeper table{named}{_store_option(request)}"
    else:
        next_step = f"sweeper run students --teacher best{_store_option(request)}"
    say(f"[green]{name} is finished[/green]; next: `{next_step}`")
    return 0


def _show_students(sweep: Sweep, store: Store, request: Request, trained: bool) -> None:
    assert sweep.manifest.teacher is not None
    teachers = store.sweep(sweep.manifest.teacher.sweep)
    assert teachers is not None
    if trained or not store.picture(sweep.manifest.name).exists():
        from sweeper.pictures import draw_sheet

        draw_sheet(Study.of(store, teachers, sweep.manifest))
    say(f"samples: {store.picture(sweep.manifest.name)}")


def _store_option(request: Request) -> str:
    return "" if request.store == Path("runs") else f" --store {shlex.quote(str(request.store))}"

"""From a request to a finished sweep: what `sweeper run` does, in order."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress as Bar

from sweeper.request import Request, Resolved, console, resolve, say
from sweeper.results.comparison import Comparison
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Manifest, Store
from sweeper.tracking.watcher import UploadWatcher, watching
from trainables import plugins
from trainables.datasets import DATASETS
from trainables.errors import EnvironmentUserError, UserError
from trainables.identity import registered_name
from trainables.images import Images, prepare
from trainables.scores.loading import FEATURES
from trainables.spec import TrialSpec

SECONDS_BETWEEN_LINES = 10.0


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
    with store.lock():
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
        manifest = _manifest(asked, images, specs, old)
        if asked.source:
            _check_comparable(manifest, asked.source)
        for spec in specs:
            if store.trial(spec.signature) is None:
                store.add(spec)
        sweep = Sweep.read(manifest, store)
        _announce(_as_it_was(old, store) if old else None, sweep)
        for plugin in plugins.LOADED.values():
            store.save_plugin(plugin)
        store.save_sweep(manifest)
        trained = not sweep.finished()
        with watching(manifest, store, _options(request)) as watchers:
            if trained:
                _train(sweep, store, request, watchers)
            return _conclude(sweep, store, request, trained)


def _scoring(asked: Resolved, images: Images) -> tuple[dict[str, float | None], dict[str, str]]:
    """The real images' own scores, and the protocols. Raises EnvironmentUserError without the features' weights."""
    from sweeper.execution.job import scorer_of

    scorer = scorer_of(images.name, images.size, asked.features(images.features), asked.store.root)
    return scorer.real, {purpose: scorer.protocol(purpose, count) for purpose, count in asked.n.items()}


def _manifest(asked: Resolved, images: Images, specs: list[TrialSpec], old: Manifest | None) -> Manifest:
    """Return the sweep as it is asked for. A sweep that is finished as it is asked for needs no feature network, and so
    no torch: its scores of the real images and its protocols stay."""
    space, request, features = asked.space, asked.request, asked.features(images.features)
    manifest = Manifest(
        name=asked.name,
        role=request.role,
        dataset=images.name,
        image_size=images.size,
        metric=images.metric,
        features=features,
        real=old.real if old else {},
        real_bytes=images.pixels.nbytes,
        updates=space.updates,
        rungs=space.ladder(),
        eta=asked.eta,
        n=asked.n,
        protocols=old.protocols if old else {},
        signatures=[spec.signature for spec in specs],
        teacher=asked.teacher,
        command=request.command,
        wandb=request.wandb,
        plugins=_plugins(specs, images.name, features),
    )
    if old and _is_same(manifest, old) and _as_it_was(old, asked.store).finished():
        return manifest
    real, protocols = _scoring(asked, images)
    return dataclasses.replace(manifest, real=real, protocols=protocols)


def _plugins(specs: list[TrialSpec], dataset: str, features: str) -> list[str]:
    """Return the plug-ins that define what a sweep trains, on what, and how it scores."""
    origins = {origin for spec in specs if spec.plugin for origin in spec.plugin.split("+")}
    origins |= {origin for origin in (DATASETS.origin(registered_name(dataset)), FEATURES.origin(features)) if origin}
    return sorted(origins)


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


def _train(sweep: Sweep, store: Store, request: Request, watchers: list[UploadWatcher]) -> None:
    from sweeper.execution import tune
    from sweeper.terminal.progress import Progress

    with ExitStack() as stack:
        machine = stack.enter_context(tune.session(request.address, request.slots))
        progress = stack.enter_context(
            Progress(sweep, store, machine, tune.max_concurrent(sweep, store, machine, request.slots))
        )
        tune.run(sweep, store, machine, request.slots, [progress, *watchers])


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
        next_step = f"sweeper table{named}{_options(request)}"
    else:
        next_step = f"sweeper run students --teacher best{_options(request)}"
    say(f"[green]{name} is finished[/green]; next: `{next_step}`")
    return 0


def _show_students(sweep: Sweep, store: Store, request: Request, trained: bool) -> None:
    assert sweep.manifest.teacher is not None
    teachers = store.sweep(sweep.manifest.teacher.sweep)
    assert teachers is not None
    if trained or not store.picture(sweep.manifest.name).exists():
        from sweeper.results.sheet import draw_sheet

        draw_sheet(Comparison.of(store, teachers, sweep.manifest))
    say(f"samples: {store.picture(sweep.manifest.name)}")


def _options(request: Request) -> str:
    """The options that every further command on this store needs."""
    store = [] if request.store == Path("runs") else ["--store", str(request.store)]
    plugged = [word for reference in request.plugins for word in ("--plugin", reference)]
    return "".join(f" {shlex.quote(word)}" for word in [*store, *plugged])

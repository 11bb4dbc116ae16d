"""`sweeper run`: from a request to a finished sweep."""

import dataclasses
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from sweeper import weights
from sweeper.clean import remove_temporary
from sweeper.pinned import check_comparable, check_weights
from sweeper.records import AddedTeacher, Manifest
from sweeper.request import Request, ResolvedRequest, resolve, say
from sweeper.results.comparison import Comparison, joined
from sweeper.scheduling.sweep import Sweep
from sweeper.session import Session, is_prepared, prepare_on_worker, progress
from sweeper.store import Store
from sweeper.tracking.watcher import UploadWatcher, watching
from trainables import plugins
from trainables.dataset_identity import registered_name
from trainables.datasets import DATASETS
from trainables.errors import EnvironmentUserError, SpoiledError, UserError
from trainables.extras import require
from trainables.images import Images, prepare
from trainables.own_images import prepare_own
from trainables.scores.loading import FEATURES, download_weights, known_name
from trainables.spec import TrialSpec


def run(request: Request) -> int:
    """Train what a sweep lacks. Return the exit code.

    Raises UserError for a wrong request, before anything is written.
    """
    if request.wandb == "online":
        require("wandb", "--wandb online", "use --wandb offline")
    resolved = resolve(request)
    store = resolved.store
    with store.lock(say), ExitStack() as stack, progress(resolved.dataset) as tell:
        remove_temporary(store)
        session = Session(request, store, stack)
        images = _prepare(resolved, session, tell)
        specs = resolved.specs(images.channels)
        if request.download:
            download_weights({resolved.features(images.features), *(spec.loss_features for spec in specs)})
        old = store.sweep(resolved.name)
        if old and old.role != request.role:
            raise UserError(f"{old.name} is a sweep of {old.role}s; give this one another --name")
        if old and not request.replace:
            _check_grows(old, specs, resolved)
        manifest = _manifest(resolved, images, specs, old, partial(tell, "scored"))
        if resolved.source:
            check_comparable(manifest, resolved.source, store)
        for spec in specs:
            if store.trial(spec.signature) is None:
                store.add(spec)
        _drop_lost_trials(manifest, old, store)
        sweep = Sweep.read(manifest, store)
        if resolved.teacher and not sweep.finished():
            check_weights(resolved.teacher, store)
        _announce(_read_previous(old, store) if old else None, sweep)
        for plugin in plugins.LOADED.values():
            store.save_plugin(plugin)
        sweep.save(store)
        trained = not sweep.finished()
        with watching(manifest, store, _options(request)) as watchers:
            if trained:
                _train(sweep, session, watchers)
            return _conclude(sweep, store, request, trained)


def _prepare(resolved: ResolvedRequest, session: Session, tell: Callable[[str, int, int], None]) -> Images:
    """Return the sweep's data set, decoded, or the images of a teacher that was added without one."""
    store, size, known, request = resolved.store, resolved.image_size, resolved.known, resolved.request
    if isinstance(known, AddedTeacher) and known.own:
        from sweeper.execution.generators import teacher_images

        images = teacher_images(store, known.pinned, size)
        return prepare_own(known.dataset, size, store.datasets, images, known.own, known.channels, known.features)
    if session.is_shared and not is_prepared(resolved):
        prepare_on_worker(resolved, session, tell)
    return prepare(
        resolved.dataset,
        size,
        store.datasets,
        folder=resolved.folder,
        data_root=request.data_root,
        download=request.download,
        tell=partial(tell, "decoded"),
    )


def _scoring(
    resolved: ResolvedRequest, images: Images, tell: Callable[[int, int], None]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the real images' scores, and purpose → protocol. tell: as for Scorer.

    Raises EnvironmentUserError if the feature network's weights are missing.
    """
    from sweeper.execution.job import scorer_of

    scorer = scorer_of(images.name, images.size, resolved.features(images.features), resolved.store.root, tell)
    return scorer.real, {purpose: scorer.protocol(purpose, count) for purpose, count in resolved.n.items()}


def _manifest(
    resolved: ResolvedRequest,
    images: Images,
    specs: list[TrialSpec],
    old: Manifest | None,
    tell: Callable[[int, int], None],
) -> Manifest:
    """Return the manifest of the requested sweep.

    A finished sweep that the request does not change keeps its protocols and its scores of the real images, as long as
    they are of the feature network that there is now. A classifier is compared by its record, without torch.
    """
    space, request, features = resolved.space, resolved.request, resolved.features(images.features)
    manifest = Manifest(
        name=resolved.name,
        role=request.role,
        dataset=images.name,
        image_size=images.size,
        metric=old.metric if old and old.features == features else images.metric,
        features=features,
        real=old.real if old else {},
        real_bytes=images.pixels.nbytes,
        updates=space.updates,
        rungs=space.ladder(),
        eta=resolved.eta,
        n=resolved.n,
        protocols=old.protocols if old else {},
        signatures=[spec.signature for spec in specs],
        confirm=space.confirm,
        teacher=resolved.teacher,
        command=request.command,
        wandb=request.wandb,
        plugins=_plugins(specs, images.name, features),
    )
    is_finished = old and _is_unchanged(manifest, old) and _read_previous(old, resolved.store).finished()
    name = known_name(features, images, resolved.store.scores)
    if is_finished and name and _is_scored_by(manifest, name, images):
        return manifest
    try:
        real, protocols = _scoring(resolved, images, tell)
    except EnvironmentUserError:
        if is_finished:
            return manifest
        raise
    if manifest.metric == "is" and real["is"] is None:
        say(f"features={features} have no classes, so there is no Inception Score: FID chooses")
        manifest = dataclasses.replace(manifest, metric="fid")
    return dataclasses.replace(manifest, real=real, protocols=protocols)


def _is_scored_by(manifest: Manifest, name: str, images: Images) -> bool:
    """Return whether a sweep's scores are of a feature network and of these images."""
    return all(p.startswith(f"{name}/") and f"/real-{images.hash}/" in p for p in manifest.protocols.values())


def _plugins(specs: list[TrialSpec], dataset: str, features: str) -> list[str]:
    """Return the plug-ins (NAME-HASH) that define a sweep's trials, data set and feature network."""
    origins = {origin for spec in specs if spec.plugin for origin in spec.plugin.split("+")}
    origins |= {origin for origin in (DATASETS.origin(registered_name(dataset)), FEATURES.origin(features)) if origin}
    return sorted(origins)


def _drop_lost_trials(manifest: Manifest, old: Manifest | None, store: Store) -> None:
    """Have finished trials trained again whose weights are missing or are not the recorded ones."""
    lost = []
    for signature in dict.fromkeys([*manifest.signatures, *(old.confirming if old else ())]):
        record = store.trial(signature)
        final = record.final(manifest.updates, manifest.protocols) if record else None
        if final is None:
            continue
        try:
            weights.check(store, signature, final)
        except SpoiledError as error:
            store.drop_finals(signature, final.updates)
            lost.append(str(error))
    if lost:
        others = f", and so are {len(lost) - 1} others, whose weights are lost, too" if len(lost) > 1 else ""
        say((lost[0], "yellow"), f"; the trial is trained again{others}")


def _check_grows(old: Manifest, specs: list[TrialSpec], resolved: ResolvedRequest) -> None:
    """Raise UserError if trials would leave the sweep, or its teacher would change."""
    wanted = {spec.signature: spec for spec in specs}
    leaving, teacher, confirm = set(old.signatures) - set(wanted), resolved.teacher, resolved.space.confirm
    if old.teacher and teacher and (old.teacher.signature, old.teacher.updates) != (teacher.signature, teacher.updates):
        change = f"has the teacher {old.teacher.name}, and this command {teacher.name}"
    elif leaving:
        change = f"has {len(leaving)} trials that this command leaves out"
    elif old.confirming and confirm < old.confirm:
        change = f"has {old.confirm} fresh seeds per configuration, and this command {confirm}"
    else:
        return
    raise UserError(
        f"{old.name} {change}; for a new sweep add --name {old.name}-2, to change this one --replace (records stay)"
    )


def _read_previous(old: Manifest, store: Store) -> Sweep:
    """Return the sweep before this command, without trials whose records are missing."""
    records = {signature: record for signature in old.signatures if (record := store.trial(signature))}
    return Sweep(old, records, find=store.trial)


def _announce(before: Sweep | None, after: Sweep) -> None:
    """Print what this command changes in the sweep."""
    states, old, new = before.states() if before else {}, before.manifest if before else None, after.manifest
    wanted = {trial for stratum in after.strata.values() for trial, _ in stratum.wanted}
    counts = {
        "done": sum(after.final(trial) is not None for trial in after.records),
        "return": sum(states.get(trial) in ("pruned", "speculative") for trial in wanted),
        "new": sum(trial not in states and after.final(trial) is None for trial in after.records),
        "leave": sum(trial not in after.records for trial in (old.signatures if old else ())),
    }
    summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what in ("done", "new"))
    ladder = ", ".join(str(rung) for rung in new.rungs)
    say((new.name, "bold"), f": {len(after.records)} trials ({summary}); rungs at {ladder} updates, eta {new.eta}")
    if old and (old.rungs, old.eta, old.n) != (new.rungs, new.eta, new.n):
        say(f"  before: rungs at {', '.join(map(str, old.rungs))} updates, eta {old.eta}, n {old.n}; now n {new.n}")


def _is_unchanged(manifest: Manifest, old: Manifest) -> bool:
    """Return whether two manifests define the same sweep. Its command and wandb affect no score."""
    return manifest == dataclasses.replace(old, command=manifest.command, wandb=manifest.wandb, confirming=[])


def _train(sweep: Sweep, session: Session, watchers: list[UploadWatcher]) -> None:
    from sweeper.execution import tune
    from sweeper.execution.resources import is_slowed_by_precision
    from sweeper.terminal.progress import Progress

    store, limit = session.store, session.request.slots
    with session.nodes() as cluster:
        specs = [record.spec for record in sweep.records.values()]
        if any(is_slowed_by_precision(spec, sweep.teacher, cluster.machine) for spec in specs):
            say(
                "the wide networks here train in exact float32; --precision tf32 or bf16 makes other trials of them, "
                "2 to 9 times as fast on an H100; GPUs older than Ampere have neither"
            )
        slots = partial(tune.max_concurrent, sweep, store, cluster, limit)
        with Progress(sweep, store, cluster, slots) as progress:
            seconds = session.request.checkpoint_seconds
            tune.run(sweep, store, cluster, limit, [progress, *watchers], checkpoint_seconds=seconds)


def _conclude(sweep: Sweep, store: Store, request: Request, trained: bool) -> int:
    """Print the outcome and the next command. Return the exit code."""
    name, command = sweep.manifest.name, request.command
    if not sweep.finished():
        say((f"{name} is interrupted", "yellow"), f"; continue with `{command}`")
        return 130
    if sweep.failed:
        say((f"{len(sweep.failed)} trials of {name} failed", "red"), f"; try again with `{command}`")
        for signature, failure in sweep.failed.items():
            say(f"  {sweep.records[signature].spec.label()}: {failure.reason}")
            if (trace := store.traceback(signature)).exists():
                say(f"  traceback: {trace}")
        codes = {failure.exit_code for failure in sweep.failed.values()}
        return EnvironmentUserError.exit_code if codes == {EnvironmentUserError.exit_code} else 3
    for shape in sweep.strata:
        if shape not in sweep.finishers():
            say((f"{shape.label}: every configuration diverged", "yellow"), "; try a smaller lr")
    if sweep.manifest.role == "student":
        _write_samples(sweep, store, request, trained)
        others = [each for each in store.sweeps() if each.role == "student" and each.name != name]
        name_option = f" --name {name}" if request.name or others else ""
        next_step = f"sweeper table{name_option}{_options(request)}"
    else:
        next_step = f"sweeper run students --teacher best{_options(request)}"
    say((f"{name} is finished", "green"), f"; next: `{next_step}`")
    return 0


def _write_samples(sweep: Sweep, store: Store, request: Request, trained: bool) -> None:
    """Draw the sheet of samples, if training changed it or it is missing. Print its path."""
    if trained or not store.picture(sweep.manifest.name).exists():
        from sweeper.results.sheet import draw_sheet

        draw_sheet(Comparison.of(store, *joined(store, sweep.manifest)))
    say(f"samples: {store.picture(sweep.manifest.name)}")


def _options(request: Request) -> str:
    """Return the options that every further command on this store needs."""
    store_option = [] if request.store == Path("runs") else ["--store", str(request.store)]
    plugin_options = [word for reference in request.plugins for word in ("--plugin", reference)]
    return "".join(f" {shlex.quote(word)}" for word in [*store_option, *plugin_options])

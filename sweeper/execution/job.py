"""One job: train a trial to a rung, score it, and write the record to the store. Needs neither Ray nor W&B."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import nn

from sweeper import weights
from sweeper.execution.generators import load_generator, load_network, teacher_images
from sweeper.execution.samples import SAMPLES, save_samples
from sweeper.records import CHECKPOINT_SECONDS, FinalRecord, Manifest, RungRecord, Teacher, TrialRecord
from sweeper.scheduling.sweep import Job
from sweeper.store import Store
from trainables.bank import Bank
from trainables.errors import NotFiniteError, SpoiledError, UserError
from trainables.files import file_hash, replacing
from trainables.images import prepare
from trainables.latents import latents
from trainables.objectives import Part
from trainables.rendering import render
from trainables.scores.loading import load_features
from trainables.scores.scorer import Scorer
from trainables.spec import TrialSpec
from trainables.step import Extras, TeacherNetworks
from trainables.training import Rung, train


def run(
    job: Job,
    sweep: Manifest,
    store: Store,
    stop: Callable[[int], bool] = lambda updates: False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> RungRecord:
    """Train a trial from its checkpoint to the job's rung. Write the rung record to the store, and return it.

    A finished trial that lacks scores by the sweep's protocols is scored from its weights, without training.
    At the sweep's budget, write the networks' weights and the final record, too. stop, checkpoint_seconds: as for
    trainables.training.train. Raises UserError if the feature network's weights have changed since the sweep began,
    Interrupted as train does.
    """
    trial = store.require(job.signature)
    spec = trial.spec
    scorer = scorer_of(sweep.dataset, sweep.image_size, sweep.features, store.root)
    if scorer.protocol("rung", sweep.n["rung"]) != sweep.protocols["rung"]:
        raise UserError(f"the weights of {sweep.features} have changed since {sweep.name} began; run its command again")
    stored = _stored(trial, job.updates, store)
    rung = stored[0] if stored else _train(spec, job, sweep, scorer, store, stop, checkpoint_seconds)
    final = rung.updates == sweep.updates
    try:
        # Before anything is written: an image that is not finite may be among the last latents.
        scores = scorer(rung.generator, "rung", sweep.n["rung"], spec.law)
        selection = scorer(rung.generator, "selection", sweep.n["selection"], spec.law) if final else {}
        report = scorer(rung.generator, "report", sweep.n["report"], spec.law) if final else {}
        samples = render(rung.generator, _picture_latents(spec, sweep, store))
    except NotFiniteError:
        record = RungRecord(rung.updates, rung.seconds, _finite(rung.losses), {}, diverged=True)
        store.add(spec, rung=record)
        return record
    record = RungRecord(rung.updates, rung.seconds, _finite(rung.losses), scores, diverged=False)
    store.check_claim()  # before the samples and the weights, too
    save_samples(store.samples(spec.signature, rung.updates), samples)
    if final:
        hashes = stored[1] if stored else _save_weights(spec, rung, store)
        store.add(spec, final=FinalRecord(rung.updates, selection=selection, report=report, **hashes))
    # Write the rung record last: a rung that has a record is not trained again.
    store.add(spec, rung=record)
    return record


def _picture_latents(spec: TrialSpec, sweep: Manifest, store: Store) -> np.ndarray:
    """Return the latents of the trial's samples: a student's are its teacher's."""
    if sweep.teacher is None:
        return latents("picture", 0, SAMPLES, spec.law)
    return teacher_images(store, sweep.teacher, spec.image_size).latents("picture", 0, SAMPLES)


def _train(
    spec: TrialSpec,
    job: Job,
    sweep: Manifest,
    scorer: Scorer,
    store: Store,
    stop: Callable[[int], bool],
    checkpoint_seconds: float,
) -> Rung:
    bank = bank_of(sweep, store, spec.latents) if spec.latents is not None else None
    pixels = scorer.images.pixels if Part.REAL in spec.loads else None
    extras, checkpoint = extras_of(spec, sweep, scorer, store), store.checkpoint(job.signature)
    (rung,) = train(
        spec,
        [job.updates],
        pixels=pixels,
        bank=bank,
        extras=extras,
        checkpoint_path=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        stop=stop,
    )
    return rung


def _finite(losses: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in losses.items() if math.isfinite(value)}


def _stored(trial: TrialRecord, updates: int, store: Store) -> tuple[Rung, dict[str, str | None]] | None:
    """Return a trial that was finished at these updates, and the hashes of its weights, from the store.

    It was scored by another protocol, and is scored again without training. None without its weights.
    """
    finals = [final for final in trial.finals if final.updates == updates]
    rungs = [rung for rung in trial.rungs if rung.updates == updates]
    if not finals or not rungs:
        return None
    try:
        weights.check(store, trial.spec.signature, finals[-1])
    except SpoiledError:
        return None
    generator = load_generator(store, trial.spec.signature, updates, finals[-1].weights)
    hashes = {"weights": finals[-1].weights, "discriminator": finals[-1].discriminator}
    return Rung(updates, generator, None, rungs[-1].losses, rungs[-1].seconds), hashes


def _save_weights(spec: TrialSpec, rung: Rung, store: Store) -> dict[str, str]:
    """Write the weights of a trial at its budget. Return their hashes by the fields of FinalRecord."""
    networks: dict[str, nn.Module] = {"generator": rung.generator}
    if spec.role == "teacher" and rung.discriminator is not None:
        networks["discriminator"] = rung.discriminator
    hashes = {}
    for name, network in networks.items():
        path = store.weights(spec.signature, name, rung.updates)
        with replacing(path) as temporary:
            tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(tensors, temporary)
        hashes["weights" if name == "generator" else name] = file_hash(path)
    return hashes


def extras_of(spec: TrialSpec, sweep: Manifest, scorer: Scorer, store: Store) -> Extras:
    """Load what the trial's loss needs beside images: the teacher's networks, a feature network.

    Raises UserError for a feature network without a gradient.
    """
    teacher, feature_map = None, None
    if Part.TEACHER in spec.loads:
        assert sweep.teacher is not None
        teacher = _teacher_networks(store.root, sweep.teacher)
    if spec.loss_features is not None:
        shared = spec.loss_features == sweep.features
        features = scorer.features if shared else load_features(spec.loss_features, scorer.images, store.scores)
        if not hasattr(features, "map"):
            raise UserError(f"loss_features={spec.loss_features} has no gradient; give its class a method map")
        feature_map = features.map
    return Extras(teacher, feature_map)


# Cached: the jobs of one process share these.
@lru_cache(maxsize=1)
def _teacher_networks(store_root: Path, teacher: Teacher) -> TeacherNetworks:
    store = Store(store_root)
    record = store.require(teacher.signature)
    shape, updates = record.spec.discriminator, teacher.updates
    assert shape is not None
    finals = [f for f in record.finals if (f.updates, f.weights) == (updates, teacher.weights)]
    recorded = finals[-1].discriminator if finals else None  # None in older stores, too
    generator = load_generator(store, teacher.signature, updates, teacher.weights)
    discriminator = load_network(store, teacher.signature, "discriminator", shape, updates, recorded)
    return TeacherNetworks(generator.requires_grad_(False), discriminator.requires_grad_(False))


@lru_cache(maxsize=2)
def scorer_of(
    dataset: str,
    size: int,
    features: str,
    store_root: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Scorer:
    """Return the scorer of a data set at a size, on a feature network. tell: as for Scorer."""
    store = Store(store_root)
    return Scorer(prepare(dataset, size, store.datasets), store.scores, features, tell)


@lru_cache(maxsize=2)
def _bank(store_root: Path, teacher: Teacher, count: int, side: int) -> Bank:
    store = Store(store_root)
    known = store.taught_by(teacher)
    smaller = side if side != known.image_size else None
    folder = store.bank(teacher.name, smaller)
    return Bank(folder, count, teacher_images(store, teacher, side), (known.channels, side, side))


def bank_of(sweep: Manifest, store: Store, count: int) -> Bank:
    """Return the bank of the sweep's teacher: its images of the first `count` latents."""
    assert sweep.teacher is not None
    return _bank(store.root, sweep.teacher, count, sweep.image_size)

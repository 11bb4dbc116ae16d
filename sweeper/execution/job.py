"""One job: train a trial to a rung, score it, and write the record to the store. Needs neither Ray nor W&B."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sweeper.execution.samples import SAMPLES, save_samples
from sweeper.scheduling.sweep import Job
from sweeper.store import FinalRecord, Manifest, RungRecord, Store
from trainables.bank import Bank
from trainables.errors import NotFiniteError, UserError
from trainables.files import file_hash, replacing
from trainables.images import prepare
from trainables.latents import latents
from trainables.networks import build, memory_format
from trainables.objectives import Part
from trainables.rendering import render
from trainables.scores.loading import load_features
from trainables.scores.scorer import Scorer
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.spec import TrialSpec
from trainables.step import Extras, TeacherNetworks
from trainables.training import Rung, train


def run(job: Job, sweep: Manifest, store: Store) -> RungRecord:
    """Train a trial from its checkpoint to the job's rung. Write the rung record to the store, and return it.

    At the sweep's budget, write the networks' weights and the final record, too. Raises UserError if the feature
    network's weights have changed since the sweep began.
    """
    spec = store.require(job.signature).spec
    scorer = scorer_of(sweep.dataset, sweep.image_size, sweep.features, store.root)
    if scorer.protocol("rung", sweep.n["rung"]) != sweep.protocols["rung"]:
        raise UserError(f"the weights of {sweep.features} have changed since {sweep.name} began; run its command again")
    bank = bank_of(sweep, store, spec.latents) if spec.latents is not None else None
    pixels = scorer.images.pixels if Part.REAL in spec.loads else None
    extras, checkpoint = extras_of(spec, sweep, scorer, store), store.checkpoint(job.signature)
    (rung,) = train(spec, [job.updates], pixels=pixels, bank=bank, extras=extras, checkpoint_path=checkpoint)
    try:
        scores = scorer(rung.generator, "rung", sweep.n["rung"])
    except NotFiniteError:
        scores = {}
    losses = {name: value for name, value in rung.losses.items() if math.isfinite(value)}
    if scores:
        z = latents("picture", 0, SAMPLES)
        save_samples(store.samples(spec.signature, rung.updates), render(rung.generator, z))
    record = RungRecord(rung.updates, rung.seconds, losses, scores, diverged=not scores)
    if rung.updates == sweep.updates and scores:
        store.add(spec, final=_finish(spec, rung, sweep, scorer, store))
    # Write the rung record last: a rung that has a record is not trained again.
    store.add(spec, rung=record)
    return record


def _finish(spec: TrialSpec, rung: Rung, sweep: Manifest, scorer: Scorer, store: Store) -> FinalRecord:
    networks: dict[str, nn.Module] = {"generator": rung.generator}
    if spec.role == "teacher" and rung.discriminator is not None:
        networks["discriminator"] = rung.discriminator
    for name, network in networks.items():
        with replacing(store.weights(spec.signature, name, rung.updates)) as temporary:
            tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(tensors, temporary)
    return FinalRecord(
        updates=rung.updates,
        weights=file_hash(store.weights(spec.signature, "generator", rung.updates)),
        selection=scorer(rung.generator, "selection", sweep.n["selection"]),
        report=scorer(rung.generator, "report", sweep.n["report"]),
    )


def load_generator(store: Store, signature: str, updates: int) -> nn.Module:
    """Load a finished trial's generator in eval mode. Raises UserError if its file is missing."""
    return _load(store, signature, "generator", store.require(signature).spec.generator, updates)


def _load(
    store: Store, signature: str, name: str, shape: GeneratorShape | DiscriminatorShape, updates: int
) -> nn.Module:
    path = store.weights(signature, name, updates)
    if not path.exists():
        raise UserError(f"{path} is missing; restore it from a backup, or train again in a new --store")
    path.open("rb").close()  # raises what is wrong; of a file that may not be read safetensors says that it is missing
    network = build(shape)
    network.load_state_dict(load_file(path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device).to(memory_format=memory_format(shape, device)).eval()


def extras_of(spec: TrialSpec, sweep: Manifest, scorer: Scorer, store: Store) -> Extras:
    """Load what the trial's loss needs beside images: the teacher's networks, a feature network.

    Raises UserError for a feature network without a gradient.
    """
    teacher, feature_map = None, None
    if Part.TEACHER in spec.loads:
        assert sweep.teacher is not None
        teacher = _teacher_networks(store.root, sweep.teacher.signature, sweep.teacher.updates)
    if spec.loss_features is not None:
        shared = spec.loss_features == sweep.features
        features = scorer.features if shared else load_features(spec.loss_features, scorer.images, store.scores)
        if not hasattr(features, "map"):
            raise UserError(f"loss_features={spec.loss_features} has no gradient; give its class a method map")
        feature_map = features.map
    return Extras(teacher, feature_map)


notes: list[str] = []  # messages of this process to the user; each is printed once


# Cached: the jobs of one process share these.
@lru_cache(maxsize=1)
def _teacher_networks(store_root: Path, signature: str, updates: int) -> TeacherNetworks:
    store = Store(store_root)
    shape = store.require(signature).spec.discriminator
    assert shape is not None
    generator = load_generator(store, signature, updates).requires_grad_(False)
    return TeacherNetworks(generator, _load(store, signature, "discriminator", shape, updates).requires_grad_(False))


@lru_cache(maxsize=2)
def scorer_of(dataset: str, size: int, features: str, store_root: Path) -> Scorer:
    """Return the scorer of a data set at a size, on a feature network."""
    store = Store(store_root)
    return Scorer(prepare(dataset, size, store.datasets), store.scores, features)


@lru_cache(maxsize=2)
def _bank(store_root: Path, signature: str, updates: int, name: str, count: int) -> Bank:
    store = Store(store_root)

    def images_of(z: np.ndarray) -> np.ndarray:
        return render(load_generator(store, signature, updates), z)

    return Bank(store.bank(name), count, images_of, notes.append)


def bank_of(sweep: Manifest, store: Store, count: int) -> Bank:
    """Return the bank of the sweep's teacher: its images of the first `count` latents."""
    assert sweep.teacher is not None
    return _bank(store.root, sweep.teacher.signature, sweep.teacher.updates, sweep.teacher.name, count)

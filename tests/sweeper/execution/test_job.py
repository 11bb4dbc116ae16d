"""A job: what it writes, what it scores again without training, and weights that are not the recorded ones."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from sweeper import weights
from sweeper.execution import job as jobs
from sweeper.execution.generators import load_generator
from sweeper.records import FinalRecord, Manifest, Teacher
from sweeper.scheduling.sweep import Job
from sweeper.store import Store
from tests.sweeper import stores
from trainables import checkpoint
from trainables.errors import NotFiniteError, SpoiledError, UserError
from trainables.images import Images
from trainables.scores.protocol import Score
from trainables.shapes import LatentLaw

SPEC = stores.teacher(1, batch_size=8, lr=0.01, d_discriminator=1)


class StandIn:
    """A scorer whose scores are the mean of an image. diverged: the purpose for which images are not finite."""

    def __init__(self, images: Images, protocols: dict[str, str]) -> None:
        self.images, self.protocols, self.diverged = images, protocols, ""

    def protocol(self, purpose: str, n: int) -> str:
        return self.protocols[purpose]

    def __call__(self, generator: nn.Module, purpose: str, n: int, law: LatentLaw) -> dict[str, Score]:
        if purpose == self.diverged:
            raise NotFiniteError("not finite")
        images = jobs.render(generator, jobs.latents(purpose, 0, n, law))
        score = Score(mean=float(images.mean()), std=None, n=n, protocol=self.protocols[purpose])
        return {"fid": score, "is": score}


@pytest.fixture
def scorer(digits: Images, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    found = StandIn(digits, stores.PROTOCOLS)
    monkeypatch.setattr(jobs, "scorer_of", lambda *_: found)
    jobs._teacher_networks.cache_clear()
    yield found
    jobs._teacher_networks.cache_clear()


@pytest.fixture
def sweep(tmp_path: Path, scorer: StandIn) -> tuple[Manifest, Store]:
    """Return a teacher sweep of one trial that is trained to the budget of 30 updates."""
    store = Store(tmp_path)
    store.add(SPEC)
    manifest = stores.sweep(store, "teacher", [SPEC.signature])
    for updates in stores.RUNGS:
        jobs.run(Job(SPEC.signature, updates), manifest, store)
    return manifest, store


def final_of(store: Store) -> FinalRecord:
    return store.require(SPEC.signature).finals[-1]


def no_training(*_: Any, **__: Any) -> None:
    raise AssertionError("it trains")


def test_the_hashes_of_both_networks_are_recorded(sweep: tuple[Manifest, Store]) -> None:
    _, store = sweep
    weights.check(store, SPEC.signature, final_of(store))
    for network in ("generator", "discriminator"):
        path = store.weights(SPEC.signature, network, 30)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"x")
        with pytest.raises(SpoiledError, match=f"{path.name} is not the file that was recorded"):
            weights.check(store, SPEC.signature, final_of(store))
        path.write_bytes(content)


@pytest.mark.parametrize("damage", ["missing", "replaced"])
def test_other_weights_are_not_loaded_and_the_error_names_the_command(
    damage: str, sweep: tuple[Manifest, Store]
) -> None:
    _, store = sweep
    path = store.weights(SPEC.signature, "generator", 30)
    load_generator(store, SPEC.signature, 30)
    path.unlink() if damage == "missing" else shutil.copy(path.with_name("discriminator-30.safetensors"), path)
    with pytest.raises(UserError, match=r"generator-30.*; restore it from a backup, or .* with `sweeper run teachers`"):
        load_generator(store, SPEC.signature, 30)


def test_a_replaced_discriminator_of_the_teacher_is_not_loaded(sweep: tuple[Manifest, Store]) -> None:
    manifest, store = sweep
    teacher = Teacher(SPEC.signature, 30, final_of(store).weights, manifest.name, "best")
    jobs._teacher_networks(store.root, teacher)
    jobs._teacher_networks.cache_clear()
    path = store.weights(SPEC.signature, "discriminator", 30)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"discriminator-30\.safetensors is not the file that was recorded"):
        jobs._teacher_networks(store.root, teacher)


def test_the_bank_renders_only_from_the_pinned_weights(sweep: tuple[Manifest, Store]) -> None:
    """A teacher that was trained again elsewhere has another hash, and its images do not join the old bank."""
    manifest, store = sweep
    pinned = Teacher(SPEC.signature, 30, "0" * 12, manifest.name, "best")
    student = dataclasses.replace(manifest, role="student", teacher=pinned)
    with pytest.raises(UserError, match="is not the file that was recorded"):
        jobs.bank_of(student, store, 4)(np.arange(4))
    assert not list(store.bank(pinned.name).glob("*.npy"))


@pytest.mark.parametrize("purpose", ["selection", "report"])
def test_an_image_that_is_not_finite_among_the_last_latents_is_divergence(
    purpose: str, tmp_path: Path, scorer: StandIn
) -> None:
    store = Store(tmp_path)
    store.add(SPEC)
    scorer.diverged = purpose
    record = jobs.run(Job(SPEC.signature, 30), stores.sweep(store, "teacher", [SPEC.signature]), store)
    assert record.diverged
    assert not store.require(SPEC.signature).finals
    assert not store.samples(SPEC.signature, 30).exists(), "a trial that diverged has none"


def test_another_protocol_scores_a_finished_trial_again_without_training(
    sweep: tuple[Manifest, Store], scorer: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are gone, and its weights suffice at the budget."""
    manifest, store = sweep
    before = final_of(store)
    for file in store.checkpoint(SPEC.signature).parent.glob("checkpoint*"):
        file.unlink()
    scorer.protocols = {purpose: f"new/{purpose}" for purpose in stores.PROTOCOLS}
    monkeypatch.setattr(jobs, "train", no_training)
    jobs.run(Job(SPEC.signature, 30), dataclasses.replace(manifest, protocols=scorer.protocols), store)
    after = store.require(SPEC.signature).final(30, scorer.protocols)
    assert after is not None
    assert after.report["fid"]["mean"] == before.report["fid"]["mean"]
    assert (after.weights, after.discriminator) == (before.weights, before.discriminator)
    assert store.require(SPEC.signature).final(30, manifest.protocols) == before, "the old scores stay"


def test_another_protocol_scores_a_rung_again_from_its_checkpoint(
    sweep: tuple[Manifest, Store], scorer: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = sweep
    old = store.require(SPEC.signature).rungs[0]
    scorer.protocols = {purpose: f"new/{purpose}" for purpose in stores.PROTOCOLS}
    monkeypatch.setattr(checkpoint, "write_tensors", no_training)
    new = jobs.run(Job(SPEC.signature, 10), dataclasses.replace(manifest, protocols=scorer.protocols), store)
    assert new.scores["fid"]["mean"] == old.scores["fid"]["mean"]
    assert new.losses == old.losses


def test_lost_weights_are_trained_again_to_the_same_ones(sweep: tuple[Manifest, Store]) -> None:
    manifest, store = sweep
    before = final_of(store)
    store.weights(SPEC.signature, "generator", 30).unlink()
    store.drop_finals(SPEC.signature, 30)
    jobs.run(Job(SPEC.signature, 30), manifest, store)
    assert final_of(store) == before
    weights.check(store, SPEC.signature, before)

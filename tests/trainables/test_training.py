"""The training loop: resumed equals uninterrupted, alpha = 0 is mse, scoring does not change training."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables import built
from trainables import batches, checkpoint
from trainables.bank import Bank
from trainables.descent import NEEDS_GPU
from trainables.errors import EnvironmentUserError, Interrupted, NotFiniteError
from trainables.images import Images
from trainables.latents import latents
from trainables.objectives import GAMES, LOSSES
from trainables.rendering import render, to_uint8
from trainables.spec import TrialSpec, needed
from trainables.step import Extras, TeacherNetworks
from trainables.teacher_images import TeacherImages
from trainables.training import Rung, train

TEACHER: dict[str, Any] = {"role": "teacher", "d_discriminator": 2}
WGAN: dict[str, Any] = {**TEACHER, "objective": "wgan", "n_critic": 2, "clip": 0.01}
MSE: dict[str, Any] = {"role": "student", "loss": "mse", "teacher": "t@1-x", "latents": 50}
JOINT: dict[str, Any] = {**MSE, "loss": "joint", "alpha": 0.1, "warmup": 3, "d_discriminator": 2}
PERCEPTUAL: dict[str, Any] = {**MSE, "loss": "perceptual", "warmup": 3}
VALUES = {
    "alpha": 0.1,
    "beta": 0.5,
    "d_discriminator": 2,
    "latents": 50,
    "teacher": "t@1-x",
    "loss_features": "inception",
}


def fields_of(loss: str, objective: str) -> dict[str, Any]:
    """Return the fields that a trial of a registered loss and game requires."""
    rule, game = LOSSES[loss], GAMES[objective]
    fields = {"role": "student" if rule.needs_teacher else "teacher", "loss": loss}
    fields |= {name: VALUES[name] for name in needed(loss)}
    if rule.needs_discriminator:
        fields |= {"objective": objective, "n_critic": min(2, game.n_critic), "clip": game.clip}
        fields |= {"warmup": 3} if rule.needs_teacher else {}
    return fields


# All registered losses, with all games that they use.
ALL = [fields_of(loss, game) for loss in LOSSES for game in GAMES if LOSSES[loss].needs_discriminator or game == "gan"]


def spec_of(**fields: Any) -> TrialSpec:
    return TrialSpec(**{"dataset": "mnist5k", "d": 1, "channels": 1, "batch_size": 8, "lr": 0.01, **fields})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """The bank of a teacher whose images have contrast. Those of initial weights are grey within a level."""
    teacher = built.generator(1, seed=9).requires_grad_(False)
    for parameter in teacher.parameters():
        parameter.mul_(20)
    return Bank(tmp_path_factory.mktemp("bank"), 50, TeacherImages(lambda z: render(teacher, z)))


def run(
    spec: TrialSpec, rungs: list[int], digits: Images, bank: Bank, path: Path | None = None, **more: Any
) -> list[Rung]:
    """Train and return all rungs. Their networks have the weights of the last rung."""
    networks = (built.generator(1).eval(), built.discriminator(1).eval())
    extras = Extras(TeacherNetworks(*networks), features=lambda images: images.flatten(1)[:, :8])
    return list(train(spec, rungs, pixels=digits.pixels, bank=bank, extras=extras, checkpoint_path=path, **more))


def killed_at(digits: Images, read: int) -> np.ndarray:
    """Return images that raise at a read, to simulate a killed process."""

    class Killed(np.ndarray):
        remaining = read

        def __getitem__(self, key: Any) -> Any:
            Killed.remaining -= 1
            if Killed.remaining == 0:
                raise KeyboardInterrupt
            return super().__getitem__(key).view(np.ndarray)

    return digits.pixels.view(Killed)


def train_until_killed(spec: TrialSpec, rungs: list[int], digits: Images, path: Path, batch: int) -> None:
    """Train until a batch, and save before each update. Each batch is a read."""
    pixels = killed_at(digits, batch)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batches, "AHEAD", 1)
        with pytest.raises(KeyboardInterrupt):
            list(train(spec, rungs, pixels=pixels, bank=None, checkpoint_path=path, checkpoint_seconds=0.0))


def weights(rung: Rung) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in rung.generator.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "fields",
    [
        *ALL,
        {**JOINT, "ema": 0.9},
        {**JOINT, "d_discriminator": 1, "discriminator_start": "teacher"},
        {**TEACHER, "precision": "bf16"},
        {**TEACHER, "d": 8, "batch_size": 64},
        {**TEACHER, "latent_size": 5, "latent_law": "uniform", "family": "residual"},
        {**TEACHER, "latent_law": "truncated", "latent_bound": 1.0, "family": "separable"},
    ],
    ids=lambda fields: " ".join(str(value) for value in fields.values()),
)
@pytest.mark.parametrize("stop", [2, 5])
def test_resumed_equals_uninterrupted(
    fields: dict[str, Any], stop: int, digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**fields), tmp_path / "checkpoint.safetensors"
    whole = weights(run(spec, [8], digits, bank)[-1])
    run(spec, [stop], digits, bank, path)
    assert same(weights(run(spec, [8], digits, bank, path)[-1]), whole)


@pytest.mark.parametrize("law", [{"latent_law": "uniform"}, {"latent_law": "truncated", "latent_bound": 1.0}])
def test_a_trial_trains_on_latents_of_its_law(law: dict[str, Any], digits: Images, bank: Bank) -> None:
    normal, other = (run(spec_of(**TEACHER, **more), [1], digits, bank)[-1] for more in ({}, law))
    assert not same(weights(normal), weights(other))


def test_a_discriminator_may_start_as_the_teacher_s(digits: Images, bank: Bank) -> None:
    """Two trials whose seeds, and so their random weights, differ: before its first update it has the teacher's."""
    fields = {**JOINT, "d_discriminator": 1, "warmup": 9, "discriminator_start": "teacher"}
    expected = built.discriminator(1).state_dict()
    for seed in (0, 1):
        discriminator = run(spec_of(**fields, seed=seed), [2], digits, bank)[-1].discriminator
        assert discriminator is not None
        assert same(discriminator.state_dict(), expected)
    learned = run(spec_of(**{**fields, "warmup": 0}), [2], digits, bank)[-1].discriminator
    assert learned is not None
    assert not same(learned.state_dict(), expected)


def test_a_trial_killed_between_rungs_resumes_from_the_timed_checkpoint(
    digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    whole = run(spec, [6], digits, bank)[-1]
    train_until_killed(spec, [6], digits, path, batch=5)
    assert checkpoint.updates(path) == 4
    resumed = run(spec, [6], digits, bank, path)[-1]
    assert same(weights(resumed), weights(whole))
    assert resumed.losses == whole.losses


def test_a_trial_killed_after_a_rung_s_checkpoint_and_before_its_record_keeps_its_losses(
    digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    first, second = run(spec, [3, 6], digits, bank)
    assert run(spec, [3], digits, bank, path)[0].losses == first.losses
    repeated = run(spec, [3], digits, bank, path)[0]  # the next job trains to the same rung
    assert repeated.losses == first.losses
    assert repeated.seconds > 0
    assert run(spec, [6], digits, bank, path)[0].losses == second.losses


def test_a_trial_that_repeats_an_earlier_part_saves_there_and_keeps_its_later_checkpoint(
    digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    run(spec, [6], digits, bank, path)
    train_until_killed(spec, [4], digits, path, batch=4)
    assert checkpoint.load(path, {}, at_most=4) == 3, "what a kill leaves of the repeated part"
    repeated = weights(run(spec, [4], digits, bank, path)[-1])
    assert same(repeated, weights(run(spec, [4], digits, bank)[-1]))
    assert checkpoint.updates(path) == 6


def test_a_rung_that_was_reached_before_is_not_trained_again(digits: Images, bank: Bank, tmp_path: Path) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    rungs = train(spec, [2, 6], pixels=digits.pixels, bank=None, checkpoint_path=path)
    first, _ = [(weights(rung), rung.losses) for rung in rungs]
    (again,) = train(spec, [2], pixels=killed_at(digits, 1), bank=None, checkpoint_path=path)
    assert same(weights(again), first[0])
    assert again.losses == first[1]


def test_training_from_the_bank_equals_rendering_in_every_step(digits: Images, bank: Bank) -> None:
    """Weights are equal bit for bit, because both use uint8 images."""

    class UncachedBank(Bank):
        def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self.z[indices], self.teacher.render(self.z[indices])

    spec = spec_of(role="student", loss="joint", alpha=0.1, d_discriminator=1, teacher="t", latents=50)
    uncached = UncachedBank(bank.folder, bank.count, bank.teacher)
    assert same(weights(run(spec, [8], digits, uncached)[-1]), weights(run(spec, [8], digits, bank)[-1]))


@pytest.mark.long
@pytest.mark.parametrize("fields", [TEACHER, MSE])
def test_a_compiled_trial_resumes_and_agrees_with_eager_mode(
    fields: dict[str, Any], digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**fields, compile=True), tmp_path / "checkpoint.safetensors"
    whole = weights(run(spec, [4], digits, bank)[-1])
    run(spec, [2], digits, bank, path)
    assert same(weights(run(spec, [4], digits, bank, path)[-1]), whole)
    eager = weights(run(spec_of(**fields), [4], digits, bank)[-1])
    assert spec.signature != spec_of(**fields).signature
    for name, value in whole.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-2, atol=1e-3)


def test_intermediate_rungs_do_not_change_training(digits: Images, bank: Bank) -> None:
    """Neither a rung nor its scoring changes a random state or a buffer of batch normalisation."""
    spec = spec_of(**TEACHER)
    whole = weights(run(spec, [6], digits, bank)[-1])
    for rung in train(spec, [1, 2, 4, 6], pixels=digits.pixels, bank=None):
        torch.manual_seed(rung.updates)
        render(rung.generator, latents("rung", 0, 20))
    assert same(weights(rung), whole)


@pytest.mark.parametrize(
    "loss",
    [name for name, rule in LOSSES.items() if {"alpha", "target"} <= set(rule.arguments)],
)
def test_alpha_0_is_mse(loss: str, digits: Images, bank: Bank) -> None:
    by_mse = weights(run(spec_of(**MSE), [5], digits, bank)[-1])
    by_joint = weights(run(spec_of(**{**fields_of(loss, "gan"), "alpha": 0.0, "warmup": 0}), [5], digits, bank)[-1])
    assert same(by_mse, by_joint)


@pytest.mark.parametrize("fields", [JOINT, PERCEPTUAL], ids=["joint", "perceptual"])
def test_a_warm_up_is_training_by_mse(fields: dict[str, Any], digits: Images, bank: Bank) -> None:
    for updates, equal in ((3, True), (4, False)):
        by_mse, warmed = (weights(run(spec_of(**f), [updates], digits, bank)[-1]) for f in (MSE, fields))
        assert same(by_mse, warmed) == equal


def test_imitation_needs_no_real_images_and_joint_has_another_discriminator(digits: Images, bank: Bank) -> None:
    fields = {**JOINT, "loss": "imitation", "alpha": 0.5, "warmup": 0}
    with_images = run(spec_of(**fields), [5], digits, bank)[-1]
    without = list(train(spec_of(**fields), [5], pixels=None, bank=bank))[-1]
    assert same(weights(without), weights(with_images))
    by_joint = run(spec_of(**{**fields, "loss": "joint"}), [5], digits, bank)[-1]
    assert not same(weights(by_joint), weights(without))


def test_a_fading_pixel_term_has_gone_after_its_updates(digits: Images, bank: Bank) -> None:
    plain, faded = (run(spec_of(**{**PERCEPTUAL, "fade": fade}), [5], digits, bank)[-1] for fade in (0, 1))
    assert not same(weights(plain), weights(faded))
    assert plain.losses["generator"] < faded.losses["generator"]


def test_the_loss_of_a_student_by_mse_decreases(digits: Images, bank: Bank) -> None:
    losses = [rung.losses["generator"] for rung in run(spec_of(**MSE, seed=1), [5, 40, 80], digits, bank)]
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_the_critic_is_clipped(digits: Images, bank: Bank) -> None:
    discriminator = run(spec_of(**WGAN), [2], digits, bank)[-1].discriminator
    assert discriminator is not None
    assert max(p.abs().max().item() for p in discriminator.parameters()) <= 0.01


def test_seeds_give_different_weights(digits: Images, bank: Bank) -> None:
    first, second = (weights(run(spec_of(**TEACHER, seed=s), [2], digits, bank)[-1]) for s in (0, 1))
    assert not same(first, second)


def test_divergence_is_detected_in_the_images(digits: Images, bank: Bank) -> None:
    rung = run(spec_of(**{**TEACHER, "lr": 1e30}), [4], digits, bank)[-1]
    with pytest.raises(NotFiniteError, match="has diverged"):
        render(rung.generator, latents("rung", 0, 4))


@pytest.mark.parametrize("precision", NEEDS_GPU)
def test_a_precision_that_needs_a_gpu_is_refused_without_one(precision: str, digits: Images, bank: Bank) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(EnvironmentUserError, match=f"precision={precision} needs a GPU"):
        run(spec_of(**TEACHER, precision=precision), [1], digits, bank)


def test_images_are_rounded_and_clamped() -> None:
    levels = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5, 100 / 127.5 - 1 + 0.4 / 127.5])
    assert to_uint8(levels).tolist() == [0, 0, 128, 255, 255, 100]


def test_an_image_does_not_depend_on_its_batch() -> None:
    generator, z = built.generator(2), latents("rung", 0, 10)
    assert np.array_equal(render(generator, z, batch_size=3), render(generator, z))
    assert generator.training


def test_a_trial_that_is_told_to_stop_saves_its_checkpoint_and_resumes_to_the_same_weights(
    digits: Images, bank: Bank, tmp_path: Path
) -> None:
    spec, path = spec_of(**TEACHER), tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupted):
        run(spec, [10], digits, bank, path, stop=lambda updates: updates == 4)
    assert checkpoint.updates(path) == 4
    (resumed,), (uninterrupted,) = run(spec, [10], digits, bank, path), run(spec, [10], digits, bank)
    for one, other in zip(resumed.generator.parameters(), uninterrupted.generator.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fields", [MSE, TEACHER], ids=["student", "teacher"])
def test_a_trial_whose_loss_is_nan_stops_within_100_updates(fields: dict[str, Any], digits: Images, bank: Bank) -> None:
    seen: list[int] = []

    def note(updates: int) -> bool:
        seen.append(updates)
        return False

    (rung,) = run(spec_of(**fields, lr=1e30), [1_000_000], digits, bank, stop=note)
    assert rung.updates == 1_000_000
    assert len(seen) <= 100
    with pytest.raises(NotFiniteError):
        render(rung.generator, latents("rung", 0, 4))

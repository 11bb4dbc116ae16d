"""Objectives: relations between equations (1) to (4)."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables import built
from trainables.errors import UserError
from trainables.networks import HiddenMaps
from trainables.objectives import (
    ARGUMENTS,
    GAME_ARGUMENTS,
    GAMES,
    LOSSES,
    PIXELS,
    WEIGHTS,
    Game,
    Network,
    Part,
    adam,
    adversarial,
    gan_generator,
    joint,
    loss,
    mse,
)
from trainables.spec import TrialSpec
from trainables.step import CriticStep, Extras, Step, TeacherNetworks

IMAGES = st.integers(0, 2**31).map(
    lambda seed: torch.rand(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
)
LOGITS = st.lists(st.floats(-20, 20), min_size=1, max_size=8).map(torch.tensor)


@given(IMAGES, LOGITS, st.sampled_from(sorted(GAMES)))
def test_alpha_0_is_mse(images: torch.Tensor, logits: torch.Tensor, game: str) -> None:
    fake, target = images
    assert joint(fake, target, logits, GAMES[game], alpha=0.0) == mse(fake, target)


@given(IMAGES, LOGITS, st.sampled_from(sorted(GAMES)))
def test_alpha_1_is_adversarial(images: torch.Tensor, logits: torch.Tensor, game: str) -> None:
    fake, target = images
    assert joint(fake, target, logits, GAMES[game], alpha=1.0) == adversarial(logits, GAMES[game])


@given(IMAGES, LOGITS, st.floats(0, 1))
def test_joint_is_linear_in_alpha(images: torch.Tensor, logits: torch.Tensor, alpha: float) -> None:
    fake, target = images
    ends = [float(joint(fake, target, logits, GAMES["gan"], alpha=a)) for a in (0.0, 1.0)]
    assert float(joint(fake, target, logits, GAMES["gan"], alpha=alpha)) == pytest.approx(
        (1 - alpha) * ends[0] + alpha * ends[1], rel=1e-4, abs=1e-5
    )


def test_mse_is_the_mean_over_pixels() -> None:
    small, large = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 64, 64)
    assert mse(small, small + 0.5) == mse(large, large + 0.5) == 0.25


def test_the_loss_of_a_constant_discriminator_is_log_4() -> None:
    zero = torch.zeros(6)
    assert GAMES["gan"].discriminator(zero, zero).item() == pytest.approx(math.log(4))
    assert GAMES["gan"].generator(zero).item() == pytest.approx(math.log(2))


def test_gan_equals_equation_1_in_probabilities() -> None:
    real, fake = torch.tensor([0.3, -1.2]), torch.tensor([0.7, 2.0])
    expected = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    assert GAMES["gan"].discriminator(real, fake).item() == pytest.approx(expected.item(), rel=1e-6)
    assert GAMES["gan"].generator(fake).item() == pytest.approx(-fake.sigmoid().log().mean().item(), rel=1e-6)


def test_gan_stays_finite_where_the_sigmoid_saturates() -> None:
    logits = torch.tensor([1000.0, -1000.0])
    assert GAMES["gan"].discriminator(logits, logits).isfinite()
    assert GAMES["gan"].generator(logits).isfinite()


@given(LOGITS, LOGITS, st.floats(-5, 5))
def test_the_critic_s_loss_is_invariant_to_a_constant_shift(
    real: torch.Tensor, fake: torch.Tensor, shift: float
) -> None:
    critic = GAMES["wgan"].discriminator
    assert critic(real + shift, fake + shift).item() == pytest.approx(critic(real, fake).item(), abs=1e-4)


def test_the_arguments_of_a_loss_determine_what_is_loaded() -> None:
    assert LOSSES["mse"].loads == {Part.BANK}
    assert LOSSES["adversarial"].loads == {Part.DISCRIMINATOR, Part.REAL}
    assert LOSSES["joint"].loads == {Part.BANK, Part.DISCRIMINATOR, Part.REAL}
    assert LOSSES["imitation"].loads == {Part.BANK, Part.DISCRIMINATOR}


def test_an_unknown_argument_is_refused_when_the_loss_is_registered() -> None:
    def wrong(fake: torch.Tensor, teh_target: torch.Tensor) -> torch.Tensor:
        return fake

    with pytest.raises(UserError, match="loss wrong takes 'teh_target', which is unknown; it may take z, fake, target"):
        loss(wrong)
    assert "wrong" not in LOSSES
    with pytest.raises(UserError, match="takes 'logits', which is unknown; it may take real_logits"):
        Game(discriminator=lambda logits: logits, generator=lambda logits: logits, optimizer=adam, lr=0.1)


def test_every_argument_is_an_attribute_of_a_step() -> None:
    spec = TrialSpec(role="teacher", dataset="mnist5k", d=1, channels=1, d_discriminator=1)
    images = torch.zeros(2, 1, 32, 32)
    step = Step(spec, 3, torch.zeros(2, 100), images, None, lambda: images, torch.nn.Flatten(), Extras())
    assert all(hasattr(step, name) for name in [*ARGUMENTS, *WEIGHTS])
    critic = CriticStep(spec, torch.nn.Flatten(), images, images)
    assert all(hasattr(critic, name) for name in [*GAME_ARGUMENTS, *WEIGHTS])


@pytest.mark.parametrize("size", [32, 64])
def test_hidden_maps_are_the_discriminator_s_activations_in_eval_mode(size: int) -> None:
    discriminator, images = built.discriminator(4, size, 3), torch.randn(5, 3, size, size)
    discriminator(images)  # moves the running statistics
    discriminator.eval()
    with torch.no_grad():
        for name, bias in discriminator.named_parameters():
            if name.endswith("bias"):
                bias.normal_()
    expected, x = [], images
    for layer in discriminator:
        x = layer(x)
        if isinstance(layer, torch.nn.LeakyReLU):
            expected.append(x.clone())
    found = HiddenMaps(discriminator)(images)
    assert len(found) == len(expected) == size.bit_length() - 3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_perceptual_is_a_relative_error_whose_gradient_reaches_the_student_alone() -> None:
    teacher = TeacherNetworks(torch.nn.Identity(), built.discriminator(2).eval())
    fake, target = (torch.rand(6, 1, 32, 32, requires_grad=own) for own in (True, False))
    given: dict[str, Any] = {"target": target, "teacher": teacher, "fading": torch.zeros(())}
    assert LOSSES["perceptual"](SimpleNamespace(fake=target.detach(), **given)) == 0
    value = LOSSES["perceptual"](SimpleNamespace(fake=fake, **given))
    value.backward()
    assert fake.grad is not None
    assert all(parameter.grad is None for parameter in teacher.discriminator.parameters())
    maps, wanted = teacher.maps(fake), teacher.maps(target)
    errors = [float((a - b).norm() ** 2 / b.norm() ** 2) for a, b in zip(maps, wanted, strict=True)]
    assert value.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    half = LOSSES["perceptual"](SimpleNamespace(fake=fake, **{**given, "fading": torch.tensor(0.5)}))
    assert half.item() == pytest.approx(value.item() + PIXELS / 2 * float((fake - target).square().mean()), rel=1e-5)


def test_the_pixel_term_falls_from_1_to_0_in_fade_updates_after_the_warm_up() -> None:
    images = torch.zeros(2, 1, 32, 32)

    def fading(fade: int, update: int | torch.Tensor) -> float:
        fields: dict[str, Any] = {"role": "student", "dataset": "mnist5k", "d": 1, "channels": 1, "loss": "perceptual"}
        spec = TrialSpec(**fields, teacher="t@1-x", latents=50, warmup=10, fade=fade)
        return float(Step(spec, update, images, images, images, lambda: images, None, Extras()).fading)

    assert [fading(4, update) for update in (10, 11, 13, 14, 99)] == [1.0, 0.75, 0.25, 0.0, 0.0]
    assert fading(4, torch.tensor(11.0, dtype=torch.float64)) == 0.75, "on the GPU, in a graph"
    assert fading(0, 10) == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_passes_include_the_generator_and_the_discriminator_if_needed(name: str) -> None:
    passes = LOSSES[name].passes(GAMES["gan"], n_critic=1)
    assert passes[Network.GENERATOR] == 3, "forward, backward to the input, backward to the weights"
    assert (Network.DISCRIMINATOR in passes) == LOSSES[name].needs_discriminator


def test_a_penalty_on_the_gradient_adds_passes() -> None:
    def penalised(real_logits: torch.Tensor, discriminator: torch.nn.Module) -> torch.Tensor:
        return real_logits

    plain, game = GAMES["gan"], Game(discriminator=penalised, generator=gan_generator, optimizer=adam, lr=0.1)
    passes = [LOSSES["adversarial"].passes(g, n_critic=2)[Network.DISCRIMINATOR] for g in (plain, game)]
    assert passes == [2 * 6 + 2, 2 * 12 + 2]

"""TrialSpec: signatures are stable and cover all fields; errors name the value."""

import dataclasses
import json
from typing import Any

import pytest

from trainables.errors import MissingPluginError, UserError
from trainables.objectives import LOSSES, WEIGHTS
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.spec import DEFAULTS, FIELDS, TrialSpec, irrelevant, needed, parse


def teacher(**changes: Any) -> TrialSpec:
    return TrialSpec(
        **{"role": "teacher", "dataset": "mnist5k", "d": 4, "channels": 1, "d_discriminator": 8, **changes}
    )


def student(**changes: Any) -> TrialSpec:
    base = {
        "role": "student",
        "dataset": "mnist5k",
        "d": 2,
        "channels": 1,
        "loss": "mse",
        "teacher": "t@1-x",
        "latents": 9,
    }
    return TrialSpec(**{**base, **changes})


# Golden values: if one changes, existing stores lose their trials. Keys are signatures, values the specs in records.
_TEACHER = {"role": "teacher", "dataset": "mnist5k", "d": 4, "channels": 1, "d_discriminator": 8}
_STUDENT = {"role": "student", "dataset": "mnist5k", "d": 2, "channels": 1, "teacher": "t@1-x", "latents": 9}
_JOINT = {**_STUDENT, "loss": "joint", "alpha": 0.02, "warmup": 10, "d_discriminator": 8}
GOLDEN: dict[str, dict[str, Any]] = {
    "4267da2737ff": _TEACHER,
    "359efb204947": {**_TEACHER, "objective": "wgan", "n_critic": 5, "clip": 0.01, "lr": 5e-05},
    "fb3fe2f194b6": {**_TEACHER, "dataset": "photos-1a2b3c4d", "channels": 3, "image_size": 64},
    "2252052ac048": {**_TEACHER, "ema": 0.99, "lr": 0.008, "lr_discriminator": 0.002, "seed": 3},
    "b32a1035fbdc": {**_TEACHER, "precision": "bf16", "threads": 2, "batch_size": 32},
    "00f609e93ad5": {**_TEACHER, "compile": "yes"},
    "02163a825722": {**_STUDENT, "loss": "mse"},
    "fa64239dcfca": _JOINT,
    "d333f06cac8d": {**_JOINT, "objective": "wgan", "n_critic": 3, "clip": 0.02, "lr": 1.0},
}


@pytest.mark.parametrize(("signature", "canonical"), GOLDEN.items())
def test_signatures_are_stable(signature: str, canonical: dict[str, Any]) -> None:
    spec = TrialSpec.from_canonical(canonical)
    assert spec.signature == signature
    assert spec.canonical() == canonical


def test_a_field_at_its_default_is_left_out_so_that_a_new_field_keeps_signatures() -> None:
    assert set(teacher(lr=DEFAULTS["lr"]).canonical()) == {"role", "dataset", "d", "channels", "d_discriminator"}


@pytest.mark.parametrize(
    "change",
    [{"d": 5}, {"lr": 0.001}, {"seed": 1}, {"ema": 0.9}, {"batch_size": 32}, {"precision": "bf16"}, {"threads": 2}],
)
def test_a_field_that_changes_the_result_changes_the_signature(change: dict[str, Any]) -> None:
    assert teacher(**change).signature != teacher().signature


def test_an_int_and_the_equal_float_have_one_signature() -> None:
    assert student(lr=1).signature == student(lr=1.0).signature


def test_a_configuration_is_independent_of_the_seed() -> None:
    assert teacher(seed=1).configuration == teacher(seed=2).configuration != teacher(lr=0.1).configuration


def test_a_spec_is_restored_from_its_canonical_form() -> None:
    spec = student(loss="joint", alpha=0.02, warmup=10, d_discriminator=8, seed=3)
    assert TrialSpec(**json.loads(json.dumps(spec.canonical()))) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": 3.5}, "d=3.5: not a whole number"),
        ({"d": 0}, "d=0 is below 1"),
        ({"d": True}, "d=True: not a whole number"),
        ({"lr": "abc"}, "lr='abc': not a number"),
        ({"lr": -1.0}, "lr=-1 is not positive"),
        ({"lr": float("nan")}, "lr=nan is not positive"),
        ({"image_size": 48}, "image_size=48 is unknown"),
        ({"channels": 2}, "channels=2 is unknown"),
        ({"loss": "hinge"}, "loss=hinge is unknown"),
        ({"loss": "mse"}, "loss=mse is not a loss of a teacher"),
        ({"alpha": 0.5}, "alpha=0.5 is not used by loss=adversarial"),
        ({"d_discriminator": None}, "needs d_discriminator"),
        ({"precision": "fp8"}, "precision=fp8 is unknown"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"ema": 1.0}, "ema=1 is outside"),
        ({"seed": -1}, "seed=-1 is negative"),
        ({"latent_size": 0}, "latent_size=0 is below 1"),
        ({"latent_law": "cauchy"}, "latent_law=cauchy is unknown"),
        ({"latent_law": "truncated"}, "truncated latents, which need it"),
        ({"latent_bound": 2.0}, "latent_bound is for truncated latents"),
        ({"latent_law": "truncated", "latent_bound": 0.0}, "latent_bound=0 is below"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("[", r"\[")):
        teacher(**changes)


def test_alpha_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UserError, match="alpha=2 is outside"):
        student(loss="joint", alpha=2.0, d_discriminator=4)


def test_arguments_of_the_command_line_are_parsed() -> None:
    words = {"d": "8", "alpha": "0.02", "loss": "mse", "clip": "none", "compile": "yes"}
    assert [parse(name, word) for name, word in words.items()] == [8, 0.02, "mse", None, True]


def test_an_error_names_the_field_and_the_value() -> None:
    numeric = [name for name, field in FIELDS.items() if field.type in (int, float)]
    assert numeric
    for name in numeric:
        with pytest.raises(UserError, match=f"{name}=x1: not a"):
            parse(name, "x1")


def test_a_spec_has_the_shapes_of_its_networks() -> None:
    spec = student(loss="joint", alpha=0.02, d_discriminator=8)
    assert spec.generator == GeneratorShape("dcgan", 2, 32, 1)
    assert spec.discriminator == DiscriminatorShape(8, 32, 1)
    assert student().discriminator is None


@pytest.mark.parametrize("loss", LOSSES)
def test_a_field_is_either_unused_by_a_loss_or_may_be_required(loss: str) -> None:
    unused, required = irrelevant(loss, "gan"), needed(loss)
    assert not unused & set(required)
    rule = LOSSES[loss]
    for weight in WEIGHTS:
        assert (weight in unused) == (weight not in rule.arguments)
    assert ("teacher" in required) == rule.needs_teacher
    assert ("d_discriminator" in required) == rule.needs_discriminator


def test_a_loss_of_a_missing_plug_in_names_the_plug_in() -> None:
    with pytest.raises(MissingPluginError, match=r"loss=mine is defined by plug-in mine-1a2b3c4d.*add --plugin mine"):
        student(loss="mine", plugin="mine-1a2b3c4d")


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        teacher().d = 5  # type: ignore[misc]

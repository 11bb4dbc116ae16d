"""Search spaces: expansion of grids to trials, and `--set`."""

from pathlib import Path
from typing import Any

import pytest

from sweeper.spaces import Space, expand, load_space, override
from trainables.datasets import DATASETS
from trainables.errors import UserError
from trainables.spec import TrialSpec

SPACE = "from sweeper.spaces import Space\nTEACHERS = Space"  # the beginning of a user's file


def space(*grids: dict[str, Any], **settings: Any) -> Space:
    return Space(**{"grids": grids, "updates": 90, "first_rung": 10, **settings})


def teachers(searched: Space) -> list[TrialSpec]:
    return expand(searched, role="teacher", dataset="mnist5k", channels=1, teacher=None, fixed={})


def students(searched: Space) -> list[TrialSpec]:
    given: dict[str, Any] = {"dataset": "mnist5k", "channels": 1, "teacher": "t@1-x", "fixed": {"latents": 10}}
    return expand(searched, role="student", **given, teacher_discriminator=16)


@pytest.mark.parametrize("dataset", [*DATASETS, "folder"])
def test_every_shipped_space_gives_students_and_controls_equal_configurations(dataset: str) -> None:
    """Equal configurations per d and budget; controls try every width of the discriminator that students use."""
    control, student = (load_space(dataset, role, None) for role in ("teacher", "student"))
    settings = [(s.updates, s.first_rung, s.eta, s.confirm) for s in (control, student)]
    assert settings[0] == settings[1]
    controls, distilled = teachers(control), students(student)
    for d in {spec.d for spec in distilled}:
        per_d = [[spec for spec in specs if spec.d == d] for specs in (controls, distilled)]
        assert len(per_d[0]) == len(per_d[1]), f"d={d}"
        assert {s.objective for s in per_d[1] if s.rule.needs_discriminator} == {s.objective for s in per_d[0]}
        widths = [{spec.d_discriminator for spec in specs if spec.rule.needs_discriminator} for specs in per_d]
        assert widths[0] >= widths[1]


def test_a_discriminator_that_starts_as_the_teacher_s_has_its_width() -> None:
    grid = {"d": 2, "loss": ["joint", "mse"], "alpha": 0.1, "discriminator_start": "teacher", "latents": 10}
    given: dict[str, Any] = {"role": "student", "dataset": "x", "channels": 1, "teacher": "t@1-x", "fixed": {}}
    specs = expand(space(grid), **given, teacher_discriminator=16)
    assert {spec.loss: spec.d_discriminator for spec in specs} == {"joint": 16, "mse": None}
    assert expand(space({**grid, "d_discriminator": 16}), **given, teacher_discriminator=16) == specs
    with pytest.raises(
        UserError, match="d_discriminator=8: a discriminator that starts as the teacher's has its width"
    ):
        expand(space({**grid, "d_discriminator": 8}), **given, teacher_discriminator=16)


def test_the_digits_space_has_enough_trials_to_prune() -> None:
    digits = load_space("mnist5k", "teacher", None)
    assert len(digits.ladder()) > 1
    assert max(sum(spec.d == d for spec in teachers(digits)) for d in (2, 4, 16)) >= 3


def test_a_grid_is_the_product_of_its_lists_without_duplicates() -> None:
    specs = teachers(space({"d": [2, 4], "lr": [0.1, 0.2]}, {"d": 2, "lr": 0.1}))
    assert sorted((spec.d, spec.lr) for spec in specs) == [(2, 0.1), (2, 0.2), (4, 0.1), (4, 0.2)]


def test_the_order_of_trials_does_not_depend_on_the_order_of_fields() -> None:
    assert teachers(space({"d": [2, 4], "lr": [0.1, 0.2]})) == teachers(space({"lr": [0.2, 0.1], "d": [4, 2]}))


def test_fields_that_a_loss_does_not_read_are_dropped() -> None:
    specs = students(space({"d": 2, "loss": ["mse", "joint"], "alpha": [0.1, 0.2], "d_discriminator": 4}))
    assert sorted((spec.loss, spec.alpha or 0) for spec in specs) == [("joint", 0.1), ("joint", 0.2), ("mse", 0)]


def test_wgan_defaults_to_its_authors_values() -> None:
    (spec,) = teachers(space({"d": 2, "objective": "wgan"}))
    assert (spec.lr, spec.n_critic, spec.clip) == (5e-5, 5, 0.01)


def test_the_discriminator_is_by_default_as_wide_as_the_generator() -> None:
    assert {(s.d, s.d_discriminator) for s in teachers(space({"d": [2, 4]}))} == {(2, 2), (4, 4)}


def test_the_ladder_is_geometric_and_ends_at_the_budget() -> None:
    assert space(updates=90, first_rung=10).ladder() == [10, 30, 90]
    assert space(updates=100, first_rung=10).ladder() == [10, 30, 90, 100]
    assert space(updates=10, first_rung=10).ladder() == [10]
    assert space(updates=100, first_rung=10, rungs=1).ladder() == [10, 100]
    assert space(updates=100, first_rung=10, rungs=0).ladder() == [100]


def test_a_longer_budget_moves_no_rung() -> None:
    short, long = space(updates=90).ladder(), space(updates=900).ladder()
    assert short == long[: len(short)]


def test_set_replaces_values_and_settings() -> None:
    changed = override(space({"d": [2, 4]}), ["d=8,16", "lr=0.5", "updates=7"], "teacher")
    assert {(spec.d, spec.lr) for spec in teachers(changed)} == {(8, 0.5), (16, 0.5)}
    assert changed.updates == 7


def test_set_loss_selects_the_grids_that_list_it_in_any_order() -> None:
    grids = {"d": 2, "loss": "mse"}, {"d": 2, "loss": "joint", "alpha": 0.5, "d_discriminator": 8}
    for assignments in (["loss=joint", "alpha=0.1"], ["alpha=0.1", "loss=joint"]):
        (spec,) = students(override(space(*grids), assignments, "student"))
        assert (spec.loss, spec.alpha, spec.d_discriminator) == ("joint", 0.1, 8)


def test_a_warm_up_that_covers_the_first_rung_is_refused() -> None:
    joint = {"d": 2, "loss": "joint", "alpha": 0.1, "d_discriminator": 2}
    with pytest.raises(UserError, match="warmup=10: the first rung, at 10 updates"):
        students(space({**joint, "warmup": 10}))
    assert students(space({**joint, "warmup": 9}))


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(UserError, match="has no teacher in it"):
        teachers(space())


def test_set_changes_only_grids_that_use_the_field() -> None:
    changed = override(space({"d": 2, "loss": "mse"}, {"d": 2, "loss": "joint"}), ["alpha=0.1"], "student")
    assert sorted(spec.loss for spec in students(changed)) == ["joint", "mse"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("d=3.5", r"d=3\.5: not a whole number; try --set d=2,4,8"),
        ("lr=abc", "lr=abc: not a number"),
        ("widht=3", "'widht' is unknown; the keys are"),
        ("d", "write --set KEY=VALUE"),
        ("d=", "write --set KEY=VALUE"),
        ("alpha=0.1", "no teacher of this space uses alpha"),
        ("updates=ten", "updates=ten: not a whole number"),
        ("updates=0", "updates=0: out of range"),
        ("rungs=-1", "rungs=-1: out of range; use a whole number from 0 to 1,000"),
        ("teacher=x", "'teacher' is unknown"),
    ],
)
def test_a_wrong_assignment_is_an_error_that_names_it(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(space({"d": [2, 4]}), [assignment], "teacher")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/0", "does not load: ZeroDivisionError"),
        ("TEACHERS = 3", "defines no TEACHERS"),
        (None, "there is no search space"),
        ("import sys; sys.exit(0)", "does not load: SystemExit: 0"),
        ("raise BaseException('x')", "does not load: BaseException: x"),
        (
            f"{SPACE}(grids=(g for g in [{{}}]), updates=9, first_rung=3)",
            "grids=",
        ),
        (f"{SPACE}(grids=[{{'d': {{1}}}}], updates=9, first_rung=3)", "d={1}"),
        (f"{SPACE}(grids=[{{}}], updates='9', first_rung=3)", "updates='9'"),
    ],
)
def test_a_broken_space_file_is_an_error(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_space("mnist5k", "teacher", file)


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(UserError, match="sets 'depth', which is not a field"):
        teachers(space({"d": 2, "depth": 3}))


def test_a_grid_is_counted_before_it_is_expanded() -> None:
    huge = {"d": list(range(1, 1001)), "lr": [0.1] * 1000, "seed": list(range(1000))}
    with pytest.raises(UserError, match="has 1,000,000,000 trials, above max_trials=100000; give shorter lists"):
        teachers(space(huge))
    with pytest.raises(UserError, match="has 4 trials, above max_trials=3"):
        teachers(override(space({"d": [1, 2], "lr": [0.1, 0.2]}), ["max_trials=3"], "teacher"))


def test_a_space_that_prints_leaves_stdout_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"print('noise')\n{SPACE}(grids=[{{'d': 1}}], updates=9, first_rung=3)")
    load_space("mnist5k", "teacher", file)
    assert capsys.readouterr().out == ""

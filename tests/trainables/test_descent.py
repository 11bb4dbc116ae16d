"""Precisions: TF32 where it is named, bits that repeat, one process, one scale per optimiser."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.trainables.test_training import TEACHER, spec_of
from trainables.descent import Descent, in_its_precision, make_accelerator
from trainables.precision import exact_float32
from trainables.spec import TrialSpec

Flags = tuple[bool, bool, bool, bool]
EXACT, TF32 = (False, False, True, False), (True, True, True, False)


def flags() -> Flags:
    cudnn = torch.backends.cudnn
    return cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark


@in_its_precision
def trial(spec: TrialSpec) -> Iterator[Flags]:
    yield flags()
    with exact_float32():
        assert flags() == EXACT, "the bank's images are made on the way"
    yield flags()


@pytest.mark.parametrize(("precision", "expected"), [("no", EXACT), ("tf32", TF32), ("bf16", EXACT), ("fp16", EXACT)])
def test_a_training_is_in_tf32_where_that_is_its_precision_and_repeats_its_bits(
    precision: str, expected: Flags
) -> None:
    assert list(trial(spec_of(**TEACHER, precision=precision))) == [expected, expected]


def test_a_training_leaves_no_flag_behind_at_a_rung() -> None:
    before = flags()
    for _ in trial(spec_of(**TEACHER, precision="tf32")):
        assert flags() == before


def test_what_is_rendered_and_scored_is_exact_and_repeats_its_bits() -> None:
    before = flags()
    with exact_float32():
        assert flags() == EXACT
    assert flags() == before


def test_a_launcher_s_environment_makes_no_trial_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "4", "PMI_SIZE": "4"}
    launched |= {"ACCELERATE_MIXED_PRECISION": "fp8", "ACCELERATE_USE_FSDP": "true", "MASTER_ADDR": "127.0.0.1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    accelerator = make_accelerator(spec_of(**TEACHER, precision="bf16"))
    assert (accelerator.num_processes, str(accelerator.distributed_type)) == (1, "DistributedType.NO")
    assert accelerator.mixed_precision == "bf16"
    assert {name: os.environ[name] for name in launched} == launched, "others may still need them"


def _descent(rate: float) -> tuple[nn.Parameter, Descent]:
    parameter = nn.Parameter(torch.ones(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    return parameter, Descent(torch.optim.SGD([parameter], lr=rate), scaler)


def test_each_optimiser_counts_its_own_steps_towards_a_larger_scale() -> None:
    (critic, descend_d), (generator, descend) = _descent(0.1), _descent(0.1)
    for _ in range(3):
        descend_d(critic.square().sum())
    descend(generator.square().sum())
    assert descend_d.scaler is not None
    assert descend.scaler is not None
    assert (descend_d.scaler.get_scale(), descend.scaler.get_scale()) == (16.0, 8.0)


def test_an_overflow_of_one_optimiser_leaves_the_other_alone() -> None:
    (critic, descend_d), (generator, descend) = _descent(0.1), _descent(0.1)
    descend_d((critic * torch.inf).sum())
    descend(generator.square().sum())
    assert descend_d.scaler is not None
    assert descend.scaler is not None
    assert (descend_d.scaler.get_scale(), descend.scaler.get_scale()) == (4.0, 8.0)
    assert (critic.item(), generator.item()) == (1.0, pytest.approx(0.8))

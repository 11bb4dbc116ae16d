"""Resources: the share that a trial reserves, and how many trials run at once."""

import pytest

from sweeper.execution.resources import Machine, Share, Slots
from sweeper.execution.resources import share as allot
from tests.sweeper.stores import student, teacher
from trainables.arithmetic import device_bytes
from trainables.spec import TrialSpec

LAPTOP, GPU_MACHINE = Machine(cpus=2, gpus=0), Machine(cpus=16, gpus=4)
DIGITS, FACES = 5_000 * 32 * 32, 162_770 * 3 * 64 * 64  # bytes of real images


def share(spec: TrialSpec, machine: Machine, data: int) -> Share:
    return allot(spec, None, machine, data)


def memory(spec: TrialSpec, data: int, device: float) -> float:
    return device_bytes(spec, None, data, device)


def test_without_a_gpu_a_trial_reserves_its_threads() -> None:
    assert share(teacher(64), LAPTOP, DIGITS) == Share(cpus=1, gpus=0)
    assert share(teacher(64, threads=2), LAPTOP, DIGITS) == Share(cpus=2, gpus=0)


def test_a_wider_trial_never_reserves_a_smaller_share_of_a_gpu() -> None:
    shares = [share(teacher(d, image_size=64), GPU_MACHINE, DIGITS).gpus for d in (2, 8, 32, 128, 256, 512)]
    assert shares == sorted(shares)
    assert shares[0] == 0.125
    assert shares[-1] == 1.0


def test_real_images_count_towards_the_memory() -> None:
    assert memory(teacher(2), FACES, 16e9) - memory(teacher(2), 0, 16e9) == FACES
    assert share(teacher(2), GPU_MACHINE, FACES).gpus > share(teacher(2), GPU_MACHINE, DIGITS).gpus


def test_a_data_set_larger_than_a_quarter_of_the_gpu_stays_on_the_host() -> None:
    assert memory(teacher(2), FACES, 7e9) == memory(teacher(2), 0, 7e9)


def test_an_mse_student_needs_no_real_images() -> None:
    assert memory(student(2), FACES, 16e9) == memory(student(2), 0, 16e9)


def test_shares_on_a_gpu_machine_fit_its_cpus() -> None:
    needed = share(teacher(2), GPU_MACHINE, DIGITS)
    assert needed.cpus * GPU_MACHINE.gpus / needed.gpus <= GPU_MACHINE.cpus


@pytest.mark.parametrize(("limit", "expected"), [(None, 2), (1, 1), (5, 2)])
def test_the_machine_or_the_limit_bounds_the_slots(limit: int | None, expected: int) -> None:
    slots = Slots(LAPTOP, limit)
    reserved = [slots.reserve(str(n), Share(cpus=1, gpus=0)) for n in range(4)]
    assert reserved == [True] * expected + [False] * (4 - expected)
    slots.release("0")
    assert slots.reserve("next", Share(cpus=1, gpus=0))


def test_an_elastic_cluster_accepts_trials_up_to_the_limit() -> None:
    slots = Slots(Machine(cpus=0, gpus=0, elastic=True), limit=3)
    assert [slots.reserve(str(n), Share(cpus=1, gpus=0.5)) for n in range(4)] == [True, True, True, False]

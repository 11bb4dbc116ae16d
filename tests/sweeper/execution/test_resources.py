"""Resources: what a trial takes, and who runs at the same time."""

import pytest

from sweeper.execution.resources import Machine, Share, Slots
from sweeper.execution.resources import share as allot
from tests.sweeper.stores import student, teacher
from trainables.arithmetic import device_bytes
from trainables.spec import TrialSpec

LAPTOP, BOX = Machine(cpus=2, gpus=0), Machine(cpus=16, gpus=4)
DIGITS, FACES = 5_000 * 32 * 32, 162_770 * 3 * 64 * 64  # bytes of real images


def share(spec: TrialSpec, machine: Machine, data: int) -> Share:
    return allot(spec, None, machine, data)


def memory(spec: TrialSpec, data: int, device: float) -> float:
    return device_bytes(spec, None, data, device)


def test_without_a_gpu_a_trial_takes_its_threads() -> None:
    assert share(teacher(64), LAPTOP, DIGITS) == Share(cpus=1, gpus=0)
    assert share(teacher(64, threads=2), LAPTOP, DIGITS) == Share(cpus=2, gpus=0)


def test_a_wider_trial_never_takes_a_smaller_share_of_a_gpu() -> None:
    shares = [share(teacher(d, image_size=64), BOX, DIGITS).gpus for d in (2, 8, 32, 128, 256, 512)]
    assert shares == sorted(shares)
    assert shares[0] == 0.125
    assert shares[-1] == 1.0


def test_real_images_that_live_on_the_card_count() -> None:
    assert memory(teacher(2), FACES, 16e9) - memory(teacher(2), 0, 16e9) == FACES
    assert share(teacher(2), BOX, FACES).gpus > share(teacher(2), BOX, DIGITS).gpus


def test_a_set_beyond_a_quarter_of_the_card_stays_on_the_host() -> None:
    assert memory(teacher(2), FACES, 7e9) == memory(teacher(2), 0, 7e9)


def test_a_student_by_mse_needs_no_real_images() -> None:
    assert memory(student(2), FACES, 16e9) == memory(student(2), 0, 16e9)


def test_shares_on_a_box_need_no_more_cpus_than_there_are() -> None:
    wish = share(teacher(2), BOX, DIGITS)
    assert wish.cpus * BOX.gpus / wish.gpus <= BOX.cpus


@pytest.mark.parametrize(("limit", "expected"), [(None, 2), (1, 1), (5, 2)])
def test_slots_end_with_the_machine_or_the_limit(limit: int | None, expected: int) -> None:
    slots = Slots(LAPTOP, limit)
    taken = [slots.take(str(n), Share(cpus=1, gpus=0)) for n in range(4)]
    assert taken == [True] * expected + [False] * (4 - expected)
    slots.give_back("0")
    assert slots.take("next", Share(cpus=1, gpus=0))


def test_a_cluster_that_can_grow_is_asked_for_as_many_as_the_user_wants() -> None:
    slots = Slots(Machine(cpus=0, gpus=0, elastic=True), limit=3)
    assert [slots.take(str(n), Share(cpus=1, gpus=0.5)) for n in range(4)] == [True, True, True, False]

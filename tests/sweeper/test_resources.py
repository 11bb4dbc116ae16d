"""Resources: what a trial takes, and who runs at the same time."""

import pytest

from sweeper.resources import Machine, Share, Slots, share
from tests.sweeper.made import teacher

LAPTOP, BOX = Machine(cpus=2, gpus=0), Machine(cpus=16, gpus=4)


def test_without_a_gpu_a_trial_takes_its_threads() -> None:
    assert share(teacher(64), LAPTOP) == Share(cpus=1, gpus=0)
    assert share(teacher(64, threads=2), LAPTOP) == Share(cpus=2, gpus=0)


def test_a_wider_trial_never_takes_a_smaller_share_of_a_gpu() -> None:
    shares = [share(teacher(d, image_size=64), BOX).gpus for d in (2, 8, 32, 128, 256, 512)]
    assert shares == sorted(shares)
    assert shares[0] == 0.125
    assert shares[-1] == 1.0


def test_shares_on_a_box_need_no_more_cpus_than_there_are() -> None:
    wish = share(teacher(2), BOX)
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

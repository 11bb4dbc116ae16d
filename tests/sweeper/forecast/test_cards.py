"""The table of GPUs, and the names by which torch knows them."""

import pytest

from sweeper.execution.resources import MACS_PER_SECOND, SECONDS_PER_LAUNCH, Machine
from sweeper.forecast.cards import TABLE, read_cards, with_throughput


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
    ],
)
def test_a_gpu_is_found_by_the_name_that_torch_gives_it(name: str, key: str) -> None:
    card = read_cards(TABLE)[key]
    machine = with_throughput(Machine(cpus=8, gpus=1, gpu_name=name, gpu_bytes=9e9))
    assert (machine.macs_per_second, machine.seconds_per_launch) == (card.macs_per_second, card.seconds_per_launch)
    assert machine.gpu_bytes == 9e9, "its memory is known already"


@pytest.mark.parametrize("name", ["", "NVIDIA L40S", "NVIDIA B200"])
def test_a_gpu_that_the_table_lacks_counts_as_the_smallest(name: str) -> None:
    machine = with_throughput(Machine(cpus=8, gpus=1, gpu_name=name))
    assert (machine.macs_per_second, machine.seconds_per_launch) == (MACS_PER_SECOND, SECONDS_PER_LAUNCH)
    smallest = read_cards(TABLE)["T4"]
    assert smallest.macs_per_second == pytest.approx(MACS_PER_SECOND, rel=0.05)
    assert smallest.seconds_per_launch == SECONDS_PER_LAUNCH

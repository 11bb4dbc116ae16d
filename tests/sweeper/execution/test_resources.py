"""Resources: the share that a trial reserves, and how many trials run at once."""

import dataclasses
from pathlib import Path

import pytest

from sweeper.execution.experience import Experience, save_measured
from sweeper.execution.nodes import Cluster
from sweeper.execution.resources import Machine, Share, is_slowed_by_precision, slowdown
from sweeper.execution.resources import share as allot
from sweeper.execution.slots import Slots
from sweeper.store import Store
from tests.sweeper.stores import student, teacher
from trainables.arithmetic import device_bytes
from trainables.files import write_json
from trainables.spec import TrialSpec

LAPTOP, GPU_MACHINE = Machine(cpus=2, gpus=0), Machine(cpus=16, gpus=4)
H100 = Machine(cpus=16, gpus=1, gpu_name="H100", gpu_bytes=80e9, macs_per_second=1e13, seconds_per_launch=14e-6)
DIGITS, FACES = 5_000 * 32 * 32, 162_770 * 3 * 64 * 64  # bytes of real images


def share(spec: TrialSpec, machine: Machine, data: int, experience: Experience | None = None) -> Share:
    return allot(spec, None, machine, data, experience)


def memory(spec: TrialSpec, data: int, device: float) -> float:
    return device_bytes(spec, None, data, device)


def test_without_a_gpu_a_trial_reserves_its_threads() -> None:
    assert share(teacher(64), LAPTOP, DIGITS) == Share(cpus=1, gpus=0)
    assert share(teacher(64, threads=2), LAPTOP, DIGITS) == Share(cpus=2, gpus=0)


def test_a_wider_trial_never_reserves_a_smaller_share_of_a_gpu() -> None:
    shares = [share(teacher(d, image_size=64), GPU_MACHINE, DIGITS).gpus for d in (2, 8, 32, 128, 256, 512)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_sixteen_narrow_trials_share_a_gpu_and_a_wide_one_has_it_alone() -> None:
    assert share(student(2), H100, DIGITS).gpus == 1 / 16
    assert share(teacher(2), H100, DIGITS).gpus == 1 / 16
    assert share(teacher(2, d_discriminator=64, image_size=64), H100, DIGITS).gpus == 1.0, "whatever the generator's d"


def test_more_trials_on_a_gpu_are_each_slower_and_together_faster() -> None:
    shares = [1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
    assert slowdown(1.0) == 1.0
    assert [slowdown(one) for one in shares] == sorted(slowdown(one) for one in shares)
    together = [1 / one / slowdown(one) for one in shares]
    assert together == sorted(together)


@pytest.mark.parametrize(
    ("spec", "machine", "slowed"),
    [
        (teacher(2, d_discriminator=64, image_size=64), H100, True),
        (teacher(2, d_discriminator=64, image_size=64, precision="bf16"), H100, False),
        (teacher(2), H100, False),
        (teacher(64, d_discriminator=64, image_size=64), LAPTOP, False),
    ],
)
def test_only_wide_trials_in_exact_float32_on_a_gpu_are_slowed_by_their_precision(
    spec: TrialSpec, machine: Machine, slowed: bool
) -> None:
    assert is_slowed_by_precision(spec, None, machine) == slowed


def test_memory_bounds_the_share_of_a_narrow_trial() -> None:
    small = Machine(cpus=16, gpus=1, gpu_bytes=16e9, macs_per_second=1e15)
    assert share(teacher(2), small, DIGITS).gpus == 1 / 8, "CUDA's 1 GB is more than a sixteenth of 16 GB"


def test_a_measurement_replaces_the_estimate(tmp_path: Path) -> None:
    store, spec = Store(tmp_path), student(2)
    store.create()
    save_measured(store, "H100", spec, 30e9)
    save_measured(store, "H100", spec, 12e9)
    save_measured(store, "T4", spec, 70e9)
    assert share(spec, H100, DIGITS, Experience.read(store)).gpus == 0.5, "the largest measurement on this GPU"
    blind = Machine(cpus=16, gpus=1, gpu_bytes=80e9, macs_per_second=1e13)
    assert share(spec, blind, DIGITS, Experience.read(store)).gpus == 1.0, "the largest on any GPU"
    other = student(2, lr=0.1, seed=3)
    assert share(other, H100, DIGITS, Experience.read(store)).gpus == 0.5, "lr and seed take no memory"
    assert share(student(2, batch_size=32), H100, DIGITS, Experience.read(store)).gpus == 1 / 16


def test_shares_of_an_older_store_are_read_by_the_generator_s_label(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    write_json(store.root / "shares.json", {"d=2": 0.25})
    Experience.read(store).save_min_share(store, student(4), H100.gpu_name, 0.5)
    experience = Experience.read(store)
    assert share(student(2), H100, DIGITS, experience).gpus == share(teacher(2), H100, DIGITS, experience).gpus == 0.25
    assert share(student(4), H100, DIGITS, experience).gpus == 0.5
    assert share(teacher(4), H100, DIGITS, experience).gpus == 1 / 16, "only the student ran out of memory"
    other = dataclasses.replace(H100, gpu_name="H200")
    assert share(student(4), other, DIGITS, experience).gpus == 1 / 16, "it ran out of memory on another kind of GPU"


def test_real_images_count_towards_the_memory() -> None:
    assert memory(teacher(2), FACES, 16e9) - memory(teacher(2), 0, 16e9) == FACES
    assert share(teacher(2), GPU_MACHINE, FACES).gpus > share(teacher(2), GPU_MACHINE, DIGITS).gpus


def test_a_data_set_larger_than_a_quarter_of_the_gpu_stays_on_the_host() -> None:
    assert memory(teacher(2), FACES, 7e9) == memory(teacher(2), 0, 7e9)


def test_an_mse_student_needs_no_real_images() -> None:
    assert memory(student(2), FACES, 16e9) == memory(student(2), 0, 16e9)


def test_the_bank_counts_if_it_fits_beside_the_real_images() -> None:
    joint = {"loss": "joint", "alpha": 0.1, "d_discriminator": 2}
    images = 100_000 * (32 * 32 + 400)
    assert memory(student(2, latents=100_000), 0, 16e9) - memory(student(2, latents=1), 0, 16e9) > images - 2_000
    several, one = (memory(student(2, latents=n, **joint), FACES, 8.1e9) for n in (100_000, 1))
    assert several - one < 0, "a quarter of 8.1 GB holds the faces alone"


def test_shares_on_a_gpu_machine_fit_its_cpus() -> None:
    needed = share(teacher(2), GPU_MACHINE, DIGITS)
    assert needed.cpus * GPU_MACHINE.gpus / needed.gpus <= GPU_MACHINE.cpus


@pytest.mark.parametrize(("limit", "expected"), [(None, 2), (1, 1), (5, 2)])
def test_the_machine_or_the_limit_bounds_the_slots(limit: int | None, expected: int) -> None:
    slots = Slots(Cluster.of(LAPTOP), limit)
    placed = [slots.place(str(n), lambda machine: Share(cpus=1, gpus=0)) is not None for n in range(4)]
    assert placed == [True] * expected + [False] * (4 - expected)
    slots.release("0")
    assert slots.place("next", lambda machine: Share(cpus=1, gpus=0))

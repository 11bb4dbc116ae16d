"""What the parts of benchmarks/gpu.py share: the device, timing, trials, tables, checks."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from trainables.bank import Bank
from trainables.spec import TrialSpec
from trainables.teacher_images import TeacherImages

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
KINDS: dict[str, dict[str, Any]] = {
    "mse": {"role": "student", "loss": "mse", "teacher": "t", "latents": 2048, "lr": 2e-3},
    "joint": {"role": "student", "loss": "joint", "alpha": 0.02, "teacher": "t", "latents": 2048, "lr": 2e-3},
    "gan": {"role": "teacher"},
    "wgan": {"role": "teacher", "objective": "wgan", "n_critic": 5, "clip": 0.01, "lr": 5e-5},
}
failures: list[str] = []


def check(passed: bool, what: str) -> None:
    """Print a failed check at the end, and exit with 1 then."""
    if not passed:
        failures.append(what)


def table(headings: list[str], rows: Iterable[Iterable[object]]) -> None:
    print("| " + " | ".join(headings) + " |\n|" + "---|" + "--:|" * (len(headings) - 1))
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |", flush=True)
    print(flush=True)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "0" if value == 0 else f"{value:.1e}" if abs(value) < 0.001 else f"{value:,.4g}"
    return "–" if value is None else str(value)


def spec_of(kind: str, d: int, d_discriminator: int, size: int = 32, channels: int = 1, **more: Any) -> TrialSpec:
    fields = {"dataset": "mnist5k", "d": d, "image_size": size, "channels": channels, **KINDS[kind]}
    if kind != "mse":
        fields["d_discriminator"] = d_discriminator
    return TrialSpec(**fields | more)


def world(size: int, channels: int) -> tuple[np.ndarray, Bank]:
    """Return random real images, and a bank of random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (4096, channels, size, size), dtype=np.uint8)
    return pixels, Bank(None, 2048, TeacherImages(lambda z: pixels[: len(z)]))


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def per_call(call: Callable[[], object], seconds: float = 1.0, warm: int = 3) -> float:
    """Return the seconds per call: the median of five runs."""
    for _ in range(warm):
        call()
    synchronize()
    begun = time.perf_counter()
    call()
    synchronize()
    calls = max(1, int(seconds / 5 / max(1e-6, time.perf_counter() - begun)))
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize()
        times.append((time.perf_counter() - begun) / calls)
    return statistics.median(times)

"""Latency of a generator on this machine's CPU."""

import platform
import time
from statistics import median

import torch

from trainables.networks import build
from trainables.shapes import GeneratorShape

CONDITIONS = "one image at a time, one CPU thread, float32, median"
_RUNS, _SECONDS = 200, 0.5


@torch.inference_mode()
def cpu_latency(shape: GeneratorShape) -> float:
    """Return the seconds per image of a generator of this shape: the median of many runs with random weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator, z = build(shape).eval(), torch.randn(1, shape.latent_size)
        seconds: list[float] = []
        start = time.perf_counter()
        while len(seconds) < 5 or (len(seconds) < _RUNS and time.perf_counter() - start < _SECONDS):
            before = time.perf_counter()
            generator(z)
            seconds.append(time.perf_counter() - before)
    finally:
        torch.set_num_threads(threads)
    return median(seconds[1:])  # the first run allocates memory


def machine() -> str:
    """Return the architecture, operating system and torch version."""
    return f"{platform.machine()}, {platform.system()}, torch {torch.__version__}"

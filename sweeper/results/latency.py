"""Latency of a generator on this machine's CPU."""

import platform
import time
from collections.abc import Callable
from statistics import median

import torch

from trainables.latents import latents
from trainables.networks import build
from trainables.onnx_generator import OnnxGenerator
from trainables.shapes import GeneratorShape, LatentLaw

CONDITIONS = "one image at a time, one CPU thread, float32, median"
_RUNS, _SECONDS = 200, 0.5


@torch.inference_mode()
def cpu_latency(shape: GeneratorShape) -> float:
    """Return the seconds per image of a generator of this shape: the median of many runs with random weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator, z = build(shape).eval(), torch.randn(1, shape.latent_size)
        return _median_seconds(lambda: generator(z))
    finally:
        torch.set_num_threads(threads)


def onnx_latency(generator: OnnxGenerator) -> float:
    """Return the same of a generator in ONNX Runtime, on one thread."""
    z = latents("latency", 0, 1, LatentLaw(generator.latent_size))
    return _median_seconds(lambda: generator(z))


def _median_seconds(run: Callable[[], object]) -> float:
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) < 5 or (len(seconds) < _RUNS and time.perf_counter() - start < _SECONDS):
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return median(seconds[1:])  # the first run allocates memory


def machine() -> str:
    """Return the architecture, operating system and torch version."""
    return f"{platform.machine()}, {platform.system()}, torch {torch.__version__}"

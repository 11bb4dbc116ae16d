"""The limits of a GPU, and the scores on it. A part of benchmarks/gpu.py."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from gpu_common import DEVICE, GPU, check, per_call, table

from trainables.precision import float32_products
from trainables.scores import on_device
from trainables.scores.fid import Moments
from trainables.scores.inception import RandomInception
from trainables.scores.kid import kid
from trainables.scores.on_device import DeviceMoments
from trainables.scores.sharpness import sharpness


def ceilings() -> None:
    """Measure what the device reaches at most."""
    n = 8192 if GPU else 512
    a, b = torch.randn(n, n, device=DEVICE), torch.randn(n, n, device=DEVICE)
    rows: list[list[object]] = []
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        if GPU or name == "float32":
            x, y = a.to(dtype), b.to(dtype)
            with float32_products(name == "tf32"):
                rows.append(
                    [
                        f"matrix product {n}³, {name}, TFLOP/s",
                        2 * n**3 / per_call(partial(torch.matmul, x, y), 0.5) / 1e12,
                    ]
                )
    big = torch.empty(2**30 if GPU else 2**24, dtype=torch.uint8, device=DEVICE)
    copy = torch.empty_like(big)
    rows.append(["copy, GB/s", 2 * big.numel() / per_call(lambda: copy.copy_(big), 0.5) / 1e9])
    tiny = torch.zeros(64, device=DEVICE)
    rows.append(["launch from Python, µs", per_call(lambda: tiny.add_(1), 0.3) * 1e6])
    if GPU:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(100):
                tiny.add_(1)
        rows.append(["launch in a graph, µs", per_call(graph.replay, 0.3) * 1e4])
        free, total = torch.cuda.mem_get_info()
        rows.append(["memory outside torch's allocator, MB", (total - free - torch.cuda.memory_reserved()) / 1e6])
        rows.append(["GPU", torch.cuda.get_device_name()])
    table(["limit", "measured"], rows)


def scores() -> None:
    """Time features and sums, and compare the sums with those of the host."""
    images = np.random.default_rng(0).integers(0, 256, (1000 if GPU else 4, 3, 64, 64), dtype=np.uint8)
    here, network = torch.tensor(images, device=DEVICE), RandomInception()
    rows: list[list[object]] = []
    for batch in (50, 200, 500) if GPU else (4,):
        network.batch_size = batch
        seconds = per_call(lambda: network.on_device(here), 0.5, warm=1)
        rows.append([f"Inception, batch {batch}, images/s", len(images) / seconds])
    table(["features, exact float32", "measured"], rows)

    width, count = (2048, 10_000) if GPU else (256, 1_000)
    features = np.abs(np.random.default_rng(1).standard_normal((count, width), dtype=np.float32))
    there = torch.tensor(features, device=DEVICE)

    def sums() -> np.ndarray:
        moments = DeviceMoments(width, DEVICE)
        moments.add_tensor(there)
        return moments.covariance

    backwards = there.flip(0)
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("moments", lambda: Moments(width).add(features).covariance, sums),
        ("KID", lambda: kid(features, features[::-1])[1], lambda: on_device.kid(there, backwards)[1]),
        ("sharpness", lambda: sharpness(images), lambda: on_device.sharpness(here).cpu().numpy()),
    ]
    compared: list[list[object]] = []
    for name, on_host, on_gpu in pairs:
        on_gpu()
        found = [_timed(on_host), _timed(on_gpu)]
        expected, value = (np.asarray(result, dtype=np.float64) for _, result in found)
        apart = float(np.abs(value - expected).max() / np.abs(expected).max())
        check(apart < 1e-9, f"{name}: the device's differs from numpy's by {apart:.1e}")
        compared.append([name, found[0][0], found[1][0], apart])
    table([f"sums of {count:,} × {width:,}", "numpy, s", "on the device, s", "relative difference"], compared)


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result

"""Latency and file size of a generator's shape on this machine: measured once, then read from the store.

Imports torch and ONNX Runtime only to measure.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sweeper.records import Measurement
from sweeper.store import Store
from trainables.errors import DiskError, EnvironmentUserError
from trainables.extras import require
from trainables.latents import latents
from trainables.onnx_generator import OnnxGenerator
from trainables.shapes import GeneratorShape, LatentLaw

_SECONDS = 0.5  # of measuring
_here: list[Measurement] = []  # of this process: they are known even if the store cannot be written


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a latency is measured. threads: of a CPU. batch: images at a time."""

    runtime: str = "onnx"  # or torch
    device: str = "cpu"  # or cuda
    threads: int = 1
    batch: int = 1

    def __str__(self) -> str:
        """Return a description with the version of the runtime, without importing it."""
        place = "GPU" if self.device == "cuda" else f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return f"{_version(self.runtime)}, {place}, {self.batch} image{'s' * (self.batch > 1)} at a time"


DEFAULT = Conditions()


def _version(runtime: str) -> str:
    for package in {"onnx": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",)}[runtime]:
        with suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return runtime


def measured(store: Store, shape: GeneratorShape, name: str, conditions: Conditions) -> Measurement:
    """Return what a generator of this shape takes on this machine: from the store if it was measured before.

    name: one of ONNX_FORMATS, or torch with that runtime. It is measured with random weights.
    Raises EnvironmentUserError without the device, and without the runtime.
    """
    wanted = subject(shape), name, str(conditions), platform.node(), machine(conditions.device)
    for found in [*_here, *store.measurements()]:
        if (found.subject, found.format, found.conditions, found.host, found.machine) == wanted:
            return found
    if conditions.runtime == "torch":
        return _keep(store, shape, name, conditions, *_measure_torch(shape, conditions))
    require("onnx", "a latency or a file size by ONNX")
    from sweeper.results import onnx_file
    from trainables.networks import build

    with tempfile.TemporaryDirectory(prefix="sweeper-") as folder:
        law = LatentLaw(shape.latent_size)
        path = onnx_file.write(build(shape), shape, law, Path(folder), (name,))[name]
        return measure_file(store, shape, name, conditions, path)


def measure_file(store: Store, shape: GeneratorShape, name: str, conditions: Conditions, path: Path) -> Measurement:
    """Measure an ONNX file of this shape, and keep the result in the store. name: one of ONNX_FORMATS."""
    from sweeper.results import onnx_file

    session = onnx_file.open_session(path, conditions.device, conditions.threads)
    z = np.random.default_rng(0).standard_normal((conditions.batch, shape.latent_size), dtype=np.float32)
    seconds = _time(lambda: session.run(None, {"z": z})) / conditions.batch
    return _keep(store, shape, name, conditions, seconds, path.stat().st_size)


def _keep(
    store: Store, shape: GeneratorShape, name: str, conditions: Conditions, seconds: float, size: int
) -> Measurement:
    """Write a measurement to the store, if it can be written, and return it. Without it the next command measures."""
    found = Measurement(
        subject=subject(shape),
        format=name,
        conditions=str(conditions),
        host=platform.node(),
        machine=machine(conditions.device),
        milliseconds=1000 * seconds,
        bytes=size,
    )
    _here.insert(0, found)
    with suppress(DiskError):
        store.save_measurement(found)
    return found


def known(store: Store) -> Callable[[GeneratorShape, str, Conditions], Measurement | None]:
    """Return a function that finds a measurement in the store without measuring: this host's, else the newest."""
    found = sorted([*_here, *store.measurements()], key=lambda m: m.host != platform.node())

    def find(shape: GeneratorShape, name: str, conditions: Conditions) -> Measurement | None:
        wanted = subject(shape), name, str(conditions)
        return next((m for m in found if (m.subject, m.format, m.conditions) == wanted), None)

    return find


def _measure_torch(shape: GeneratorShape, conditions: Conditions) -> tuple[float, int]:
    """Return the seconds per image, and the bytes of the weights."""
    import torch

    from trainables.networks import build

    threads = torch.get_num_threads()
    torch.set_num_threads(conditions.threads)
    try:
        generator = build(shape).eval().to(conditions.device)
        z = torch.randn(conditions.batch, shape.latent_size, device=conditions.device)

        @torch.inference_mode()
        def run() -> None:
            generator(z)
            if conditions.device == "cuda":
                torch.cuda.synchronize()

        seconds = _time(run) / conditions.batch
    finally:
        torch.set_num_threads(threads)
    return seconds, sum(value.numel() * value.element_size() for value in generator.state_dict().values())


def onnx_latency(generator: OnnxGenerator) -> float:
    """Return the seconds per image of an added teacher in ONNX Runtime, one image at a time on one thread."""
    z = latents("latency", 0, 1, LatentLaw(generator.latent_size))
    return _time(lambda: generator(z))


def _time(run: Callable[[], Any]) -> float:
    """Return the median seconds of many runs. The first five are left out: they allocate memory."""
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) < 15 or time.perf_counter() - start < _SECONDS:
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return median(seconds[5:])


def subject(shape: GeneratorShape) -> str:
    """Return the words that name a shape. The counts tell apart versions of a plug-in's family."""
    images = f"{shape.image_size}×{shape.image_size}×{shape.channels}"
    counts = f"{shape.parameters} parameters, {shape.macs} multiply-accumulates"
    return f"{shape.family} d={shape.d}, {shape.latent_size} → {images}, {counts}"


@cache
def machine(device: str = "cpu") -> str:
    """Return the name of the processor or of the GPU, and the operating system. Raises EnvironmentUserError."""
    if device == "cpu":
        return f"{_processor()}, {platform.system()}"
    import torch

    if not torch.cuda.is_available():
        raise EnvironmentUserError("torch sees no GPU here; leave out --device")
    return f"{torch.cuda.get_device_name()}, {platform.system()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()

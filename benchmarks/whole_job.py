"""Compare the whole job with a script on Ray Tune: teachers of d = 2 … 64, the choice, students, and the table.

The script follows the documentation of Ray Tune and PyTorch: a Tuner per role and d with Tune's ASHAScheduler on FID, a
function trainable in a new process per trial, the teacher in every step, a DataLoader over image files, pytorch-fid's
Fréchet distance. It scores its best generator of each role and d for its table. Configurations, networks, budget,
rungs, eta and n are those of `sweeper`, which prunes by its own rule.

python benchmarks/whole_job.py [--folder FOLDER]    # resumes the parts that it has
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from plain_tune import CONFIGURATIONS, RUNGS, SLOTS, UPDATES, WARMUP, N, save_digits, show_modules_to_workers, trainable

TEACHERS, WIDTHS, ETA, REPORT = (2, 4, 8, 16, 64), (2, 4, 8, 16), 3, 5_000
GANS = [{"lr": lr, "lr_discriminator": lr_d} for lr, lr_d in product((0.002, 0.004), (0.001, 0.002))]
SPACE = f"""from sweeper.spaces import Space
SCHEDULE = dict(updates={UPDATES}, first_rung={RUNGS[0]}, rungs=1, eta={ETA}, n_rung={N}, n_selection={N},
                n_report={REPORT})
COMMON = dict(ema=0.99, latents={UPDATES * 64})
JOINT = dict(loss="joint", lr=0.008, warmup={WARMUP}, d_discriminator=8, lr_discriminator=0.002, alpha=[0.02, 0.05])
TEACHERS = Space(grids=[dict(d=list({TEACHERS}), d_discriminator=8, lr=[0.002, 0.004], lr_discriminator=[0.001, 0.002],
                             ema=0.99)], **SCHEDULE)
STUDENTS = Space(grids=[dict(d=list({WIDTHS}), loss="mse", lr=[0.004, 0.008], **COMMON),
                        dict(d=list({WIDTHS}), **JOINT, **COMMON)], **SCHEDULE)
"""


def gan_trainable(config: dict[str, Any]) -> None:
    """Train one GAN and report its FID at each rung."""
    import torch
    from dcgan import PlainDiscriminator, PlainGenerator, initialise
    from plain_tune import average_weights, image_batches, report
    from ray import tune
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator, discriminator = PlainGenerator(config["d"], 32, 1), PlainDiscriminator(8, 32, 1)
    initialise(generator)
    initialise(discriminator)
    average = torch.optim.swa_utils.AveragedModel(generator, multi_avg_fn=average_weights, use_buffers=True)
    optimizer = torch.optim.Adam(generator.parameters(), lr=config["lr"], betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config["lr_discriminator"], betas=(0.5, 0.999))
    batches, bce = image_batches(config["images"]), nn.functional.binary_cross_entropy_with_logits
    for update in range(1, UPDATES + 1):
        fake = generator(torch.randn(64, 100))
        on_real, on_fake = discriminator(next(batches)), discriminator(fake.detach())
        loss_d = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        logits = discriminator(fake)
        loss = bce(logits, torch.ones_like(logits))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(generator)
        if update in RUNGS:
            if update == UPDATES:
                torch.save(average.module.state_dict(), Path(config["out"]) / f"{config['name']}.pt")
            tune.report({"fid": report(average, config, N)[0], "updates": update})


def best_of(train: Any, trials: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Run the trials of one role and d under Tune's ASHA. Return the one with the lowest final FID."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    results = tune.Tuner(
        tune.with_resources(lambda config: train(config["trial"]), {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            scheduler=ASHAScheduler(
                time_attr="updates",
                metric="fid",
                mode="min",
                max_t=UPDATES,
                grace_period=RUNGS[0],
                reduction_factor=ETA,
            )
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    assert not results.errors, results.errors
    finished = [result for result in results if result.metrics and result.metrics["updates"] == UPDATES]
    best = min(finished, key=lambda result: result.metrics["fid"])
    return {**best.config["trial"], "fid": best.metrics["fid"]}


def run_script(folder: Path, classifier: Path, real: Path) -> float:
    """Do the whole job, and save the best generator of each role and d. Return seconds, without the start of Ray."""
    import torch
    from dcgan import PlainGenerator
    from plain_tune import report
    from safetensors.torch import save_file

    from sweeper.execution.tune import session

    out = folder / "out"
    out.mkdir(exist_ok=True)
    common = {"classifier": str(classifier), "real": str(real), "images": str(folder / "images"), "out": str(out)}
    show_modules_to_workers()
    with session(SLOTS):
        begun = time.monotonic()
        save_digits(folder / "images")
        best = {}
        for d in TEACHERS:
            trials = [{"d": d, "name": f"gan-{d}-{n}", **common, **gan} for n, gan in enumerate(GANS)]
            best[f"gan-{d}"] = best_of(gan_trainable, trials, folder)
        teacher = min((best[f"gan-{d}"] for d in TEACHERS), key=lambda trial: float(trial["fid"]))
        save_file(torch.load(out / f"{teacher['name']}.pt", weights_only=True), out / "teacher.safetensors")
        common |= {"teacher": str(out / "teacher.safetensors"), "teacher_d": teacher["d"], "updates": UPDATES}
        common |= {"rungs": list(RUNGS), "warmup": WARMUP}
        for d in WIDTHS:
            trials = [{"d": d, "name": f"student-{d}-{n}", **c, **common} for n, c in enumerate(CONFIGURATIONS)]
            best[f"student-{d}"] = best_of(trainable, trials, folder)
        for trial in best.values():
            network = PlainGenerator(trial["d"], 32, 1)
            network.load_state_dict(torch.load(out / f"{trial['name']}.pt", weights_only=True))
            report(network.eval(), common, REPORT)
        seconds = time.monotonic() - begun
    (folder / "best.json").write_text(json.dumps(best))
    return seconds


def run_sweeper(folder: Path, store: Path) -> float:
    """Do the whole job by three commands. Return their seconds."""
    sweeper = str(Path(sys.executable).with_name("sweeper"))
    run = ["--store", str(store), "--slots", str(SLOTS), "--wandb", "disabled", "--space", str(folder / "space.py")]
    begun = time.monotonic()
    for words in (
        ["run", "teachers", "--dataset", "mnist5k", *run],
        ["run", "students", "--teacher", "best", *run],
        ["table", "--store", str(store)],
    ):
        subprocess.run([sweeper, *words], check=True, capture_output=True)
    return time.monotonic() - begun


def compare(folder: Path, store: Path) -> None:
    """Print FID and IS of the best of each role and d by one scorer, on the report latents."""
    import torch

    from sweeper.execution.job import scorer_of
    from sweeper.results.comparison import Comparison
    from sweeper.store import Store
    from trainables.networks import build
    from trainables.shapes import GeneratorShape

    opened = Store(store)
    scorer = scorer_of("mnist5k", 32, "classifier", opened.root)
    table = Comparison.read(opened, None, None).table
    best = json.loads((folder / "best.json").read_text())
    assert table.teacher is not None
    entries = {f"gan-{table.teacher.d}": table.teacher}
    for row in table.rows:
        entries |= {
            f"{kind}-{row.d}": entry for kind, entry in (("gan", row.control), ("student", row.student)) if entry
        }
    print("\n| | script FID | sweeper FID | script IS | sweeper IS |\n|---|--:|--:|--:|--:|")
    for name, trial in best.items():
        plain = build(GeneratorShape("dcgan", trial["d"], 32, 1))
        plain.load_state_dict(torch.load(folder / "out" / f"{trial['name']}.pt", weights_only=True))
        theirs, ours = scorer(plain.eval(), "report", REPORT), entries[name].scores
        cells = [
            f"{theirs[score]['mean']:.2f} | {mean['mean']:.2f}" for score in ("fid", "is") if (mean := ours[score])
        ]
        print(f"| {name.replace('-', ', d = ')} | {' | '.join(cells)} |")


def training_seconds(store: Path) -> float:
    """Return the seconds of all training loops of sweeper's trials, by their records."""
    from sweeper.store import Store

    opened = Store(store)
    return sum(r.seconds for m in opened.sweeps() for name in m.members for r in opened.require(name).rungs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="working folder; resumes the work that it has")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        store, timings = folder / "runs", folder / "seconds.json"
        seconds: dict[str, float] = json.loads(timings.read_text()) if timings.exists() else {}
        (folder / "space.py").write_text(SPACE)
        if "sweeper" not in seconds:
            if store.exists():
                sys.exit(f"{folder} has a part of sweeper's sweeps without their time; delete it")
            seconds["sweeper"] = run_sweeper(folder, store)
            timings.write_text(json.dumps(seconds))
        if "script" not in seconds:
            from sweeper.execution.job import scorer_of
            from sweeper.store import Store

            scores = Store(store).scores
            reference = scorer_of("mnist5k", 32, "classifier", store).reference.statistics[84]
            np.savez(folder / "real.npz", mean=reference.mean, covariance=reference.covariance)
            classifier = next(scores.glob("classifier-*.safetensors"))
            seconds["script"] = run_script(folder, classifier, folder / "real.npz")
            timings.write_text(json.dumps(seconds))
        training = training_seconds(store) / SLOTS
        print("| the whole job | seconds |\n|---|--:|")
        print(f"| script with Tune's ASHA | {seconds['script']:,.0f} |")
        print(f"| sweeper | {seconds['sweeper']:,.0f} |")
        print(f"| of which training loops | {training:,.0f} |")
        print(f"| ratio | {seconds['script'] / seconds['sweeper']:.1f} |")
        print(f"| limit of the ratio, if everything else took no time | {seconds['script'] / training:.1f} |")
        compare(folder, store)


if __name__ == "__main__":
    main()

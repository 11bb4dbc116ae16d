"""The families of the fuzz. To add one, write a function from a random generator to a Case under `@family`."""

import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.case import STORE, Case, family
from tests.fuzz.values import JSON, NUMBERS, TEXTS, damaged, replaced

RECORDS = sorted(path.relative_to(STORE) for path in STORE.rglob("*.json"))
# Commands that read a whole store and train nothing.
LOOKS = [
    ["status"],
    ["status", "--trial", "2565dfbf828b"],
    ["table"],
    *(["table", "--format", style] for style in ("md", "csv", "latex", "json")),
    ["simulate", "--name", "mnist5k-teachers"],
    ["plan", "students", "--gpu-type", "A100", "--set", "latents=64"],
    ["run", "students", "--set", "d=1.5"],
    ["export", "--trial", "nothing"],
    ["wandb", "report", "--name", "none"],
    ["clean"],
]


@family(cases=700)
def json_of_a_store(rng: random.Random) -> Case:
    """One JSON file of the store is damaged. Commands that do not read it may succeed."""
    file = rng.choice(RECORDS)
    content = damaged((STORE / file).read_text(), rng)
    return Case(rng.choice(LOOKS), lambda work: _write(work / "runs" / file, content), garbage=False)


@family(cases=150)
def something_else_in_the_place_of_a_file(rng: random.Random) -> Case:
    sidecars = [Path(p) for p in ("shares.json", "memory.json", "datasets/known/mnist5k.json", "driver.claim")]
    sidecars += [Path("live/mnist5k-students.json"), Path("datasets/mnist5k-32.json"), Path("sweeps/x.json")]
    file = rng.choice([*RECORDS, *sidecars])
    state = rng.getrandbits(32)
    words = rng.choice(LOOKS)
    return Case(words, lambda work: replaced(work / "runs" / file, random.Random(state))(), garbage=False)


@family(cases=150)
def sidecars(rng: random.Random) -> Case:
    """A JSON file that other modules than the store read is wrong."""
    known: dict[str, Any] = {"name": "mnist5k", "content": "1a2b3c4d"}
    facts = {"name": "mnist5k", "hash": "a1698b43d3eb", "metric": "is", "features": "classifier", "classes": ["0", "1"]}
    plan = ["plan", "teachers", "--dataset", "mnist5k", "--gpu-type", "A100", "--set", "d=2"]
    files: dict[str, tuple[Any, list[str]]] = {
        "shares.json": ({"d=2": 0.5}, plan),
        "memory.json": ({"A100": {"d=2": 1e9}}, plan),
        "datasets/known/old.json": (known, ["table", "--dataset", "old"]),
        "datasets/known/celeba.json": ({**known, "name": "celeba.1a2b"}, ["table", "--dataset", "celeba"]),
        "datasets/photos-1a-32.json": (facts, ["plan", "teachers", "--dataset", "photos-1a", "--gpu-type", "A100"]),
        "live/mnist5k-students.json": ({"driver": "process 1", "running": {"a": 1.0}, "failures": ["x"]}, ["status"]),
    }
    file = rng.choice(list(files))
    record, words = files[file]
    content = damaged(json.dumps(record), rng)

    def prepare(work: Path) -> None:
        _write(work / "runs" / file, content)
        if file == "datasets/photos-1a-32.json":
            _write(work / "runs" / "datasets/known/photos-1a.json", b'{"name": "photos-1a"}')

    return Case(words, prepare, garbage=False)


@family(cases=120)
def transfers(rng: random.Random) -> Case:
    """The other side of a transfer has a damaged file, or something else in its place."""
    file = rng.choice(
        [*RECORDS, Path("transfers.json"), Path("transfers.json"), Path("store.json"), Path("shares.json")]
    )
    entry = {"files": {"store.json": [1, 2, "a" * 64, 3]}, "agreed": {"/a": {"store.json": "b" * 64}}}
    text = (STORE / file).read_text() if file in RECORDS else json.dumps(entry)
    content, state, is_file = damaged(text, rng), rng.getrandbits(32), rng.random() < 0.7

    def prepare(work: Path) -> None:
        shutil.copytree(STORE, work / "there")
        _write(work / "there" / file, content)
        if not is_file:
            replaced(work / "there" / file, random.Random(state))()

    return Case(["store", rng.choice(["push", "pull"]), "there"], prepare, garbage=False, output="there")


VARIABLES = ["COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "LANG", "LC_ALL", "TZ", "RAY_ADDRESS", "TMPDIR"]
VARIABLES += ["SWEEPER_CACHE", "WANDB_MODE", "WANDB_BASE_URL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LOCAL_RANK"]


@family(cases=100)
def environments(rng: random.Random) -> Case:
    """Variables of the environment have odd values. Many are valid somewhere."""
    odd = [text for text in (*TEXTS, *NUMBERS) if "\udcff" not in text and len(text) < 1000]
    given = {name: rng.choice(odd) for name in rng.sample(VARIABLES, k=rng.choice([1, 2, 4]))}
    run = ["run", "teachers", "--dataset", "none"]  # which does not exist
    return Case(rng.choice([*LOOKS, run]), garbage=False, environment=given)


OPTIONS: dict[str, tuple[list[str], dict[str, Sequence[str]]]] = {
    "run": (
        ["run", "teachers", "--dataset", "none"],  # which does not exist, so that nothing is trained
        {
            **dict.fromkeys(("--space", "--set", "--teacher", "--precision", "--features", "--name", "--store"), TEXTS),
            **dict.fromkeys(("--data-root", "--wandb", "--plugin", "--address"), TEXTS),
            **dict.fromkeys(("--eta", "--rungs", "--slots"), NUMBERS),
        },
    ),
    "plan": (
        ["plan", "teachers", "--dataset", "mnist5k", "--gpu-type", "A100", "--set", "d=2"],
        {
            **dict.fromkeys(("--space", "--set", "--precision", "--name", "--store", "--gpu-type", "--plugin"), TEXTS),
            **dict.fromkeys(("--eta", "--rungs", "--slots", "--gpus", "--price"), NUMBERS),
            **dict.fromkeys(("--throughputs", "--data-root", "--dataset"), TEXTS),
        },
    ),
    "simulate": (
        ["simulate", "--name", "mnist5k-teachers"],
        {
            **dict.fromkeys(("--curves", "--name", "--store", "--plugin"), TEXTS),
            **dict.fromkeys(("--eta", "--first-rung", "--rungs", "--updates", "--slots"), NUMBERS),
            "--orders": [number for number in NUMBERS if number != "1000"],
        },
    ),
    "status": (["status"], dict.fromkeys(("--store", "--trial", "--plugin"), TEXTS)),
    "table": (
        ["table"],
        {
            **dict.fromkeys(("--dataset", "--name", "--store", "--format", "--plugin", "--runtime", "--device"), TEXTS),
            **dict.fromkeys(("--max-ms", "--max-bytes", "--threads", "--batch"), NUMBERS),
        },
    ),
    "report": (["report", "--name", "none"], dict.fromkeys(("--dataset", "--store", "-o"), TEXTS)),
    "export": (
        ["export"],
        {
            **dict.fromkeys(("--trial", "--name", "--store", "--format", "--license", "--device"), TEXTS),
            **dict.fromkeys(("--to-folder", "--d", "--threads", "--batch"), NUMBERS),
        },
    ),
    "score": (
        ["score", "none", "--against", "mnist5k"],
        {**dict.fromkeys(("--against", "--features", "--dims", "--store", "--data-root"), TEXTS), "--n": NUMBERS},
    ),
}


@family(cases=600)
def option_values(rng: random.Random) -> Case:
    """One or two options have a wrong value. Many values are valid somewhere, so success is no violation."""
    words, options = OPTIONS[rng.choice(list(OPTIONS))]
    given = list(words)
    for name in rng.sample(list(options), k=rng.choice([1, 1, 2])):
        given += [name, rng.choice(options[name])]
    return Case(given, garbage=False)


KEYS = [
    *(
        "d",
        "lr",
        "seed",
        "alpha",
        "loss",
        "objective",
        "batch_size",
        "updates",
        "first_rung",
        "eta",
        "rungs",
        "confirm",
    ),
    *("n_rung", "n_report", "warmup", "latents", "clip", "ema", "compile", "threads", "precision", "family", "beta"),
    *("image_size", "d_discriminator", "lr_discriminator", "n_critic", "discriminator_start", "loss_features"),
    *("max_trials", "role", "plugin", "revision", "channels", "nothing", "", "d ", "__class__"),
]


@family(cases=200)
def assignments(rng: random.Random) -> Case:
    """--set with random keys and values."""
    words = ["plan", rng.choice(["teachers", "students"]), "--gpu-type", "A100"]
    words += ["--dataset", "mnist5k"] if words[1] == "teachers" else ["--set", "latents=64"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        values = ",".join(rng.choice([*NUMBERS, *TEXTS]) for _ in range(rng.choice([1, 1, 2, 5])))
        words += ["--set", f"{rng.choice(KEYS)}={values}"]
    return Case(words, garbage=False)


VALUES = [
    *(
        "1",
        "-1",
        "0",
        "1.5",
        "10**30",
        "10**400",
        "float('nan')",
        "float('inf')",
        "'x'",
        "''",
        "'\\ud800'",
        "None",
        "True",
    ),
    *(
        "[]",
        "[1, 2]",
        "[[1]]",
        "(1,)",
        "{}",
        "{'a': 1}",
        "{1}",
        "range(3)",
        "iter([1])",
        "itertools.count()",
        "object()",
    ),
    *(
        "lambda: 1",
        "b'x'",
        "complex(1)",
        "Space",
        "[None]",
        "['x', 2]",
        "[True]",
        "Ugly()",
        "'a' * 10**6",
        "[2] * 10**5",
    ),
    *("list(range(1, 10**6))", "(x for x in [1])", "numpy.arange(3)", "numpy.float64(0.1)"),
]
HEAD = """import itertools, sys
import numpy
from sweeper.spaces import Space

class Ugly:
    def __repr__(self):
        raise RuntimeError("no repr")

"""
BODIES = [
    *(
        "sys.exit(0)",
        "sys.exit()",
        "sys.exit('x')",
        "raise SystemExit(3)",
        "raise KeyError",
        "raise ValueError('a\\nb\\nc\\nd')",
    ),
    *(
        "1/0",
        "TEACHERS = None",
        "TEACHERS = [1]",
        "TEACHERS = Space",
        "def f(:",
        "import no_such_module",
        "x = " + "(" * 500,
    ),
    *("def f(): f()\nf()", "class T: pass\nTEACHERS = T()", "TEACHERS = Space()", "TEACHERS = Space(grids=[{}])"),
    *("print('noise')", "raise BaseException('x')", "raise GeneratorExit", "assert False", "TEACHERS = Space(1, 2)"),
]


@family(cases=300)
def space_files(rng: random.Random) -> Case:
    """A search space of the user's own is wrong, or a grid is too large."""
    kind = rng.randrange(8)
    content = b""
    if kind == 0:
        content = (HEAD + rng.choice(BODIES)).encode()
    elif kind == 1:
        encodings = ["# é\n".encode("latin-1"), b"\xff\xfe", b"\x00", rng.randbytes(50), "x = 1".encode("utf-16")]
        content = rng.choice(encodings)
    elif kind < 7:
        settings = {"grids": "[{'d': [1, 2], 'lr': 0.1}]", "updates": "90", "first_rung": "10"}
        if rng.random() < 0.5:
            names = [*settings, "eta", "rungs", "confirm", "n_rung", "n_report", "max_trials", "nothing"]
            settings[rng.choice(names)] = rng.choice(VALUES)
        else:
            fields = {"d": "[1, 2]", **{rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.choice([1, 2]))}}
            grid = ", ".join(f"{key!r}: {value}" for key, value in fields.items())
            settings["grids"] = rng.choice([f"[{{{grid}}}]", f"({{{grid}}},)", f"{{{grid}}}"])
        arguments = ", ".join(f"{key}={value}" for key, value in settings.items())
        content = f"{HEAD}TEACHERS = Space({arguments})".encode()
    state = rng.getrandbits(32)

    def prepare(work: Path) -> None:
        _write(work / "mine.py", content)
        if kind == 7:
            replaced(work / "mine.py", random.Random(state))()

    words = ["plan", "teachers", "--dataset", "mnist5k", "--gpu-type", "A100", "--space", "mine.py"]
    return Case(words, prepare, garbage=kind in (0, 1, 7))


@family(cases=150)
def grids_that_are_too_large(rng: random.Random) -> Case:
    lengths = [rng.randrange(2, 3000) for _ in range(4)]
    while lengths[0] * lengths[1] * lengths[2] * lengths[3] <= 100_000:
        lengths[0] *= 10
    seeds, d, lr, batch = lengths
    lists = {"seed": f"range({seeds})", "d": f"range(1, {d + 1})", "batch_size": f"range(2, {batch + 2})"}
    grid = ", ".join(f"{name!r}: list({values})" for name, values in lists.items())
    grid += f", 'lr': [0.1 / n for n in range(1, {lr + 1})]"
    text = f"{HEAD}TEACHERS = Space(grids=[{{{grid}}}], updates=9, first_rung=3)"
    words = ["plan", "teachers", "--dataset", "mnist5k", "--gpu-type", "A100", "--space", "mine.py"]
    return Case(words, lambda work: _write(work / "mine.py", text.encode()))


@family(cases=250)
def learning_curves(rng: random.Random) -> Case:
    """A line of a file of curves is wrong, or the file is none."""
    lines = []
    for number in range(rng.randrange(1, 5)):
        points = [[updates, 100.0 / updates + number] for updates in (1, 3, 9, 27)]
        lines.append({"stratum": "2", "trial": str(number), "seconds_per_update": 1.0, "points": points, "share": 1})
    texts = [json.dumps(line).encode() for line in lines]
    wrong = rng.randrange(len(lines))
    texts[wrong] = damaged(json.dumps(lines[wrong]), rng)
    if rng.random() < 0.3:
        changed = {**lines[wrong], rng.choice(list(lines[wrong])): rng.choice(JSON)}
        texts[wrong] = json.dumps(changed).encode()
    state, is_file = rng.getrandbits(32), rng.random() < 0.9
    words = ["simulate", "--curves", "curves.jsonl"]
    words += rng.choice([[], ["--json"], ["--slots", "0.5"], ["--eta", "1000000"], ["--orders", "3"], ["--rungs", "0"]])
    words += rng.choice([[], [], ["--updates", "1000000000"], ["--first-rung", "1"], ["--updates", "1"]])

    def prepare(work: Path) -> None:
        _write(work / "curves.jsonl", b"\n".join(texts))
        if not is_file:
            replaced(work / "curves.jsonl", random.Random(state))()

    return Case(words, prepare, garbage=not is_file)


@family(cases=100)
def plug_ins(rng: random.Random) -> Case:
    """A plug-in or a table of throughputs is wrong, or something else than a file."""
    bodies = [f"import sys\n{body}" for body in BODIES if not any(word in body for word in ("TEACHERS", "print"))]
    bodies.append(
        "from trainables.datasets import dataset\n@dataset(channels=1, metric='x', features='y')\ndef z(): ..."
    )
    tables = ["[A100]\nteraflops = 'x'", "A100 = 3", "[A100]", "[", "[A100]\nteraflops = inf", "\x00", "[B]\nx = 1"]
    option, name = rng.choice([("--plugin", "mine.py"), ("--throughputs", "mine.toml")])
    content = rng.choice(bodies if option == "--plugin" else tables).encode()
    state, is_file = rng.getrandbits(32), rng.random() < 0.7

    def prepare(work: Path) -> None:
        _write(work / name, content)
        if not is_file:
            replaced(work / name, random.Random(state))()

    words = ["plan", "teachers", "--dataset", "mnist5k", "--gpu-type", "A100", "--set", "d=2", option, name]
    return Case(words, prepare, garbage=is_file)


@family(cases=80)
def outputs_in_the_place_of_the_store(rng: random.Random) -> Case:
    """A page or an export would replace or join the store's own files."""
    places = [
        *map(str, RECORDS),
        "driver.claim",
        "new.html",
        "sweeps/new.json",
        "trials",
        "trials/new",
        "",
        "datasets/x.html",
    ]
    place = os.path.join("runs", rng.choice(places))
    words = rng.choice([["report", "-o", place], ["export", "--trial", "2565dfbf828b", "-o", place]])
    return Case(words)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

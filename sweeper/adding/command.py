"""`sweeper teacher add`: check a generator, copy it into the store, and score it as teachers are scored."""

import dataclasses
import hashlib
import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sweeper.added import SAMPLE_SHEET
from sweeper.adding.measuring import check_images, check_repeats, measured_law, measured_range
from sweeper.adding.pairs import chunks, read_images, read_latents
from sweeper.adding.torch_source import Counts, convert_module, convert_program
from sweeper.execution.generators import IMAGES, ONNX, Z, added_images, score_images
from sweeper.execution.samples import SAMPLES, save_samples
from sweeper.records import AddedTeacher
from sweeper.request import default_side, say
from sweeper.session import progress
from sweeper.spaces import load_space
from sweeper.store import Store
from sweeper.terminal.dashboard import time_left
from trainables.dataset_identity import identify
from trainables.errors import UserError
from trainables.files import file_hash, is_abandoned, owner_mark, replacing
from trainables.images import Images, describe, prepare
from trainables.latents import latents
from trainables.onnx_generator import OnnxGenerator, arithmetic, write_onnx
from trainables.own_images import prepare_own
from trainables.reading import MAX_NAME, is_name
from trainables.scores.protocol import REPORT_SETS
from trainables.scores.scorer import Scorer
from trainables.shapes import LatentLaw
from trainables.spec import IMAGE_SIZES
from trainables.teacher_images import PICTURES, TeacherImages, for_students, to_pixels
from trainables.tensors import write_images

SPACE = "added"  # the search space of its students
_LOOKED_AT = 64  # images from which the range is read


@dataclass(frozen=True, kw_only=True)
class AddRequest:
    """The options of `sweeper teacher add`."""

    source: str  # a file, a folder, or MODULE:FUNCTION
    name: str | None
    dataset: str | None  # None: its own images are the reference of its scores
    weights: Path | None  # of MODULE:FUNCTION
    latent_size: int | None  # of MODULE:FUNCTION
    latent_law: str | None
    latent_bound: float | None
    value_range: str | None
    label: int | None
    features: str | None
    n: int | None  # images per score
    store: Path
    data_root: Path
    download: bool
    command: str


@dataclass(frozen=True)
class _Generator:
    """What was named: its files in a folder, and what is known about it."""

    kind: str
    source: str  # hash of what was named
    law: LatentLaw
    low: float
    high: float
    shape: tuple[int, int, int]  # [C, H, W] of its images
    counts: tuple[int | None, int | None]  # parameters, multiply-accumulates
    pairs: int


def add(request: AddRequest) -> AddedTeacher:
    """Add a teacher to the store. Nothing of it stays if anything is wrong. Raises UserError."""
    store, name = Store(request.store), _name(request)
    with tempfile.TemporaryDirectory(prefix="sweeper-add-") as temporary:
        generator = _read(request, name, Path(temporary))
        with store.lock():
            return _added(request, name, generator, Path(temporary), store)


def _name(request: AddRequest) -> str:
    path = Path(request.source)
    guess = request.source.partition(":")[0].rpartition(".")[2] if _is_reference(request.source) else path.stem
    name = request.name or "".join(c if c.isalnum() or c in "._-" else "-" for c in guess)
    if not is_name(name) or name == "best":
        raise UserError(
            f"--name {name}: use at most {MAX_NAME} letters, digits, '.', '_' and '-', not best; try --name big"
        )
    return name


def _is_reference(source: str) -> bool:
    """Return whether a source is MODULE:FUNCTION."""
    return ":" in source and not Path(source).exists()


def _read(request: AddRequest, name: str, folder: Path) -> _Generator:
    """Check what was named, and write the generator into a folder. Pairs stay where they are."""
    source = Path(os.path.expanduser(request.source))
    if request.weights is not None and not _is_reference(request.source):
        raise UserError(f"--weights {request.weights} is for MODULE:FUNCTION; leave it out")
    if source.is_dir():
        return _read_pairs(request, source)
    counts: Counts | None = None
    if _is_reference(request.source):
        if request.weights is None or request.latent_size is None:
            missing = (
                "--weights FILE.safetensors, its saved state_dict" if request.weights is None else "--latent-size N"
            )
            raise UserError(f"{request.source} needs {missing}")
        counts = convert_module(request.source, request.weights, request.latent_size, request.label, folder / ONNX)
        kind, content = "torch", file_hash(request.weights)
    elif not source.is_file():
        what = "is neither a file nor a folder" if source.exists() else "does not exist"
        raise UserError(f"{source} {what}; name an .onnx or .pt2 file, a folder of pairs, or MODULE:FUNCTION")
    elif source.suffix == ".pt2":
        counts = convert_program(source, request.label, folder / ONNX)
        kind, content = "torch", file_hash(source)
    else:
        write_onnx(folder / ONNX, source)
        kind, content = "onnx", file_hash(folder / ONNX)
    generator = OnnxGenerator(folder / ONNX, request.label, shown=request.source)
    generator.check()
    if request.latent_size not in (None, generator.latent_size):
        raise UserError(f"--latent-size {request.latent_size}: {source} takes z of {generator.latent_size} numbers")
    law = measured_law(request.latent_law, request.latent_bound, generator.latent_size, None)
    z = latents("range", 0, _LOOKED_AT, law)
    images = generator(z)
    check_images(request.source, images, IMAGE_SIZES)
    check_repeats(request.source, generator, z, images)
    low, high = measured_range(request.value_range, images)
    known = (counts.parameters, counts.macs) if counts else arithmetic(folder / ONNX)
    return _Generator(kind, content, law, low, high, _shape(images), known, 0)


def _shape(images: np.ndarray) -> tuple[int, int, int]:
    _, channels, height, width = images.shape
    return channels, height, width


def _read_pairs(request: AddRequest, folder: Path) -> _Generator:
    if request.label is not None:
        raise UserError(f"--label {request.label}: pairs have no class to choose; leave it out")
    z = read_latents(folder)
    images = read_images(folder, len(z))
    if request.latent_size not in (None, z.shape[1]):
        raise UserError(f"--latent-size {request.latent_size}: {folder / Z} has {z.shape[1]} numbers per row")
    law = measured_law(request.latent_law, request.latent_bound, z.shape[1], z)
    if len(z) < 4 * PICTURES:
        raise UserError(f"{folder} has {len(z)} pairs; a teacher needs at least {4 * PICTURES}")
    first = next(chunks(images))
    check_images(str(folder), first, IMAGE_SIZES)
    low, high = measured_range(request.value_range, first)
    content = hashlib.sha256(z.tobytes())
    for chunk in chunks(images):
        content.update(to_pixels(chunk, low, high).tobytes())
    return _Generator("pairs", content.hexdigest()[:12], law, low, high, _shape(first), (None, None), len(z))


def _added(request: AddRequest, name: str, found: _Generator, folder: Path, store: Store) -> AddedTeacher:
    """Write the files, the record and the samples into a folder of the store, and then give it its name."""
    (store.root / "teachers").mkdir(exist_ok=True)
    for left in (store.root / "teachers").glob(".*"):
        if is_abandoned(left.name):  # of a command that was killed
            shutil.rmtree(left, ignore_errors=True)
    prefix = f".{name}.{owner_mark()}"
    with tempfile.TemporaryDirectory(dir=store.root / "teachers", prefix=prefix) as temporary:
        staged = Path(temporary) / name
        staged.mkdir()
        teacher = _record(request, name, found, store)
        if (old := store.teachers.find(name)) is not None:
            if (old.id, old.dataset) != (teacher.id, teacher.dataset):
                raise UserError(f"{store.root} has another teacher {name} already; give this one another --name")
            say(f"{name} is in {store.root} already")
            return old
        _write_files(request, found, folder, staged)
        files = {path.name: file_hash(path) for path in sorted(staged.iterdir())}
        teacher = dataclasses.replace(teacher, files=files)
        images = added_images(teacher, staged, default_side(teacher.image_size))
        data = _data(request, teacher, images, Path(temporary), store)
        scorer = Scorer(data, store.scores, teacher.features)
        metric = data.metric if scorer.real["is"] is not None else "fid"
        say(f"scoring {name}: {teacher.n['report']:,} images × {REPORT_SETS} sets, and {teacher.n['selection']:,}")
        scores = score_images(images, scorer, teacher.n, lambda seconds: say(time_left(seconds)))
        teacher = dataclasses.replace(teacher, metric=metric, scores=[scores])
        save_samples(staged / SAMPLE_SHEET, images.images("picture", 0, SAMPLES))
        if teacher.own:
            for path in (Path(temporary) / "datasets").rglob("*.*"):
                target = store.datasets / path.relative_to(Path(temporary) / "datasets")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
        store.teachers.place(staged, teacher)
    _tell(teacher, store, request)
    return teacher


def _record(request: AddRequest, name: str, found: _Generator, store: Store) -> AddedTeacher:
    """Return the record without files and scores. Raises UserError for features or a number of images that it lacks."""
    space, channels = load_space(SPACE, "student", None), found.shape[0]
    own, most = 0, space.n_report if request.n is None else request.n
    if request.dataset is None and found.pairs:
        own = min(most, (found.pairs - PICTURES) // 2)
    elif request.dataset is None:
        own = most
    if found.pairs and (left := for_students(found.pairs, own)) < most:
        if request.n is not None:
            raise UserError(f"--n {most}: it has {left} pairs to score; leave --n out, or add --n {left}")
        most = left
    n = {"rung": min(space.n_rung, most), "selection": min(space.n_selection, most), "report": most}
    dataset, side = f"{name.replace('.', '_')}-{found.source[:8]}", default_side(found.shape[1])
    if request.dataset is not None:
        dataset = identify(request.dataset, store.datasets, request.data_root, request.download)
        colours, features = describe(dataset, side, store.datasets, Path(os.path.expanduser(request.dataset)))
        if colours != channels:
            raise UserError(
                f"{request.source} makes images of {channels} channels, and {request.dataset} has {colours}"
            )
    elif request.features == "classifier":
        raise UserError("--features classifier needs a data set with classes; add --dataset, or --features imagenet")
    else:
        features = "inception"
    parameters, macs = found.counts
    return AddedTeacher(
        name=name,
        source=found.source,
        kind=found.kind,
        files={},
        latent_size=found.law.size,
        latent_law=found.law.name,
        latent_bound=found.law.bound,
        low=found.low,
        high=found.high,
        label=request.label,
        channels=channels,
        image_size=found.shape[1],
        parameters=parameters,
        macs=macs,
        pairs=found.pairs,
        dataset=dataset,
        own=own,
        metric="fid",
        features=request.features or features,
        n=n,
        scores=[],
        command=request.command,
    )


def _write_files(request: AddRequest, found: _Generator, folder: Path, staged: Path) -> None:
    if not found.pairs:
        shutil.move(folder / ONNX, staged / ONNX)
        return
    source = Path(os.path.expanduser(request.source))
    z = read_latents(source)
    with replacing(staged / Z) as temporary, open(temporary, "wb") as file:
        np.save(file, z)
    parts = (to_pixels(chunk, found.low, found.high) for chunk in chunks(read_images(source, len(z))))
    write_images(staged / IMAGES, (found.pairs, *found.shape), parts)


def _data(request: AddRequest, teacher: AddedTeacher, images: TeacherImages, folder: Path, store: Store) -> Images:
    """Return the data set that the teacher is scored against: real images, or its own, in a folder."""
    side = default_side(teacher.image_size)
    if request.dataset is None:
        return prepare_own(
            teacher.dataset, side, folder / "datasets", images, teacher.own, teacher.channels, teacher.features
        )
    with progress(teacher.dataset) as tell:
        return prepare(
            teacher.dataset,
            side,
            store.datasets,
            folder=Path(os.path.expanduser(request.dataset)),
            data_root=request.data_root,
            download=request.download,
            tell=partial(tell, "decoded"),
        )


def _tell(teacher: AddedTeacher, store: Store, request: AddRequest) -> None:
    """Print what was added, and the next command."""
    fid = teacher.scores[0].report["fid"]
    size = f"{teacher.channels}×{teacher.image_size}×{teacher.image_size}"
    counts = "parameters and multiply-accumulates unknown"
    if teacher.parameters is not None:
        macs = "unknown" if teacher.macs is None else f"{teacher.macs / 1e6:,.1f} million"
        counts = f"{teacher.parameters:,} parameters, {macs} multiply-accumulates"
    against = f"{teacher.own:,} images of its own" if teacher.own else teacher.dataset
    say(f"{teacher.name}: {teacher.kind}, z of {teacher.law} → {size}; {counts}")
    say(f"  FID {fid['mean']:.2f} against {against}; {fid['protocol']}")
    say(f"  samples: {store.teachers.folder(teacher.name) / SAMPLE_SHEET}")
    option = "" if request.store == Path("runs") else f" --store {shlex.quote(str(request.store))}"
    say((f"{teacher.name} is a teacher", "green"), f"; next: `sweeper run students --teacher {teacher.name}{option}`")

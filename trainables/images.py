"""Decode a data set once into one uint8 array [n, channels, size, size], which all trials memory-map."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from trainables.cpus import usable_cpus
from trainables.dataset_identity import registered_name, remember
from trainables.datasets import DATASETS, METRICS, Source
from trainables.decoding import image_files, is_grey, open_images, to_square
from trainables.errors import DiskError, SpoiledError, UserError
from trainables.files import file_hash, replacing, reserve, write_json
from trainables.locks import made_once
from trainables.notes import note
from trainables.reading import STRICT, Name, one_of, read_record
from trainables.tensors import map_array, set_aside

CHUNK = 256  # images between two records of progress


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The JSON file beside a prepared array."""

    name: Name
    hash: Name
    metric: Annotated[str, one_of(*METRICS)]
    features: Name
    classes: list[str] | None
    labels_hash: Name | None = None  # None without classes, and in the files of an older version
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class _Progress:
    """The JSON file beside an array that is being decoded."""

    shape: list[int]
    images: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Images(Facts):
    """A prepared data set. `pixels`: memory-mapped uint8 [n, channels, size, size]; `labels`: int64 [n] or None."""

    path: Path

    @property
    def pixels(self) -> np.ndarray:
        return map_array(self.path, np.uint8, 4)

    @property
    def labels(self) -> np.ndarray | None:
        return np.array(map_array(_labels_path(self.path), np.int64, 1)) if self.classes else None

    @property
    def labelled_hash(self) -> str:
        """The hash of images and labels: equal images in corrected classes have another one."""
        return f"{self.hash}-{_hash(self.labels)}"

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        return int(self.pixels.shape[2])


def describe(name: str, size: int, cache: Path, folder: Path | None) -> tuple[int, str]:
    """Return the number of channels and the default features for FID, without decoding the set."""
    if (registered := registered_name(name)) in DATASETS:
        return DATASETS[registered].channels, DATASETS[registered].features
    if (cache / f"{name}-{size}.json").exists():
        images = prepare(name, size, cache)
        return images.channels, images.features
    _, classes, channels = _scan_folder(_require_folder(folder, name, size))
    return channels, _default_features(classes)


def decoded_bytes(name: str, size: int, cache: Path) -> int:
    """Return the size of the decoded array in bytes; 0 before it is decoded."""
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
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Images:
    """Load a set from `cache`, decoding it first if needed. An interrupted decoding resumes.

    name: the identity from `identify`. folder: the path, if the set is a folder of images. tell: progress callback,
    called with (images done, images in total).
    A damaged array is decoded again.
    Raises UserError for an image that cannot be read, EnvironmentUserError for a set that is not under data_root.
    """
    path = cache / f"{name}-{size}.npy"
    record = path.with_suffix(".json")
    facts = read_record(record, Facts)
    if facts is not None and _is_damaged(Images(path=path, **asdict(facts)), size):
        facts = None
    with made_once(record) as needed:
        if needed:
            facts = _decode(name, size, path, folder, data_root, download, tell)
            remember(name, cache, folder, data_root)
    facts = facts or read_record(record, Facts)
    assert facts is not None
    return Images(path=path, **asdict(facts))


def _is_damaged(images: Images, size: int) -> bool:
    """Return whether a set's arrays are damaged; set them aside then. They are hashed if newer than their record."""
    path, record = images.path, images.path.with_suffix(".json")
    try:
        n, channels, *sides = images.pixels.shape
        if n < 2 or channels not in (1, 3) or sides != [size, size]:
            raise SpoiledError(path, f"is damaged: it has the shape {list(images.pixels.shape)}")
        labels = images.labels
        if labels is not None and (
            len(labels) != n or not 0 <= labels.min() <= labels.max() < len(images.classes or ())
        ):
            raise SpoiledError(_labels_path(path), "is damaged: it has not one class for each image")
        if labels is not None and images.labels_hash not in (None, _hash(labels)):
            raise SpoiledError(_labels_path(path), "is not the file that was recorded")
        if path.stat().st_mtime_ns > record.stat().st_mtime_ns and file_hash(path) != images.hash:
            raise SpoiledError(path, "is not the file that was recorded")
    except SpoiledError as error:
        note(f"{set_aside(error)}; {images.name} is decoded again")
        record.unlink(missing_ok=True)
        return True
    return False


def _decode(
    name: str,
    size: int,
    path: Path,
    folder: Path | None,
    data_root: Path,
    download: bool,
    tell: Callable[[int, int], None],
) -> Facts:
    if (registered := registered_name(name)) in DATASETS:
        dataset = DATASETS[registered]
        source, classes, channels = dataset.load(data_root, download), None, dataset.channels
        metric, features = dataset.metric, dataset.features
        if dataset.folder is not None and name == registered:
            raise UserError(
                f"{name}: its loader reads no file in {data_root / dataset.folder}; correct `folder` in its @dataset"
            )
        if source.labels is not None:
            classes = [str(label) for label in range(int(source.labels.max()) + 1)]
    else:
        source, classes, channels = _scan_folder(_require_folder(folder, name, size))
        metric, features = "fid", _default_features(classes)
    if len(source.images) < 2:
        raise UserError(f"images in {folder or name}: {len(source.images)}; a GAN needs more than one")
    _decode_images(path, source.images, (len(source.images), channels, size, size), tell)
    if source.labels is not None:
        with replacing(_labels_path(path)) as temporary, open(temporary, "wb") as file:
            np.save(file, source.labels.astype(np.int64))
    labels = None if source.labels is None else _hash(source.labels.astype(np.int64))
    facts = Facts(
        name=name, hash=file_hash(path), metric=metric, features=features, classes=classes, labels_hash=labels
    )
    write_json(path.with_suffix(".json"), asdict(facts))
    return facts


def _decode_images(
    path: Path, images: Sequence[Any], shape: tuple[int, int, int, int], tell: Callable[[int, int], None]
) -> None:
    """Decode images on all CPUs into an array of this shape at `path`, resuming from a partial file."""
    partial, progress = path.with_suffix(".partial.npy"), path.with_suffix(".partial.json")
    earlier = read_record(progress, _Progress) if partial.exists() else None
    first = earlier.images if earlier and earlier.shape == list(shape) else 0
    if first:
        try:
            map_array(partial, np.uint8, 4)
        except SpoiledError as error:
            note(f"{set_aside(error)}; its images are decoded again")
            first = 0
    if not first:
        _create_array(partial, shape)
    array = np.lib.format.open_memmap(partial, mode="r+")

    def decode(start: int) -> None:
        end = min(start + CHUNK, len(images))
        for index, image in zip(range(start, end), open_images(images, start, end), strict=True):
            array[index] = to_square(image, shape[2], shape[1])

    try:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            starts = range(first, len(images), CHUNK)
            for start, _ in zip(starts, pool.map(decode, starts), strict=True):
                array.flush()
                done = min(start + CHUNK, len(images))
                write_json(progress, {"shape": list(shape), "images": done})
                tell(done, len(images))
    except DiskError:  # what is decoded stays, and the next command goes on
        raise
    except UserError:  # an image cannot be read; once it is replaced, the folder has another identity
        partial.unlink()
        progress.unlink(missing_ok=True)
        raise
    partial.replace(path)
    progress.unlink()


def _create_array(path: Path, shape: tuple[int, ...]) -> None:
    """Create a .npy file of uint8 with its whole size on the disk. If that is full, leave no file. Raises DiskError."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    try:
        reserve(path, path.stat().st_size)
    except DiskError:
        path.unlink()
        raise


def _require_folder(folder: Path | None, name: str, size: int) -> Path:
    if folder is None:
        raise UserError(f"{name} is not decoded at {size}×{size} yet; name its folder with --dataset")
    return folder


def _default_features(classes: list[str] | None) -> str:
    return "classifier" if classes else "inception"


def _scan_folder(folder: Path) -> tuple[Source, list[str] | None, int]:
    """Return images, classes and channels of a folder.

    The subfolders are classes if there are two or more and no image lies outside them.
    """
    files = image_files(folder)
    paths = [file.relative_to(folder).parts for file in files]
    classes = sorted({parts[0] for parts in paths if len(parts) > 1})
    labelled = len(classes) > 1 and all(len(parts) > 1 for parts in paths)
    labels = np.array([classes.index(parts[0]) for parts in paths]) if labelled else None
    grey = all(is_grey(file) for file in files)
    return Source(files, labels), classes if labelled else None, 1 if grey else 3


def _hash(labels: np.ndarray | None) -> str:
    assert labels is not None
    return hashlib.sha256(labels.tobytes()).hexdigest()[:12]


def _labels_path(path: Path) -> Path:
    return path.with_name(path.stem + "-labels.npy")

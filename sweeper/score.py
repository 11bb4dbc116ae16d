"""`sweeper score`: score folders of images against a folder or a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from sweeper.store import Store, dump
from trainables.dataset_identity import identify
from trainables.datasets import DATASETS
from trainables.decoding import image_files, image_size
from trainables.errors import UserError
from trainables.images import Images, prepare
from trainables.scores.protocol import Score, comparable

NAMES = ("fid", "kid", "is", "sharpness")
_DIGITS = {"fid": 3, "kid": 6, "is": 3, "sharpness": 1}


@dataclass(frozen=True)
class ScoreRequest:
    """The options of `sweeper score`."""

    samples: list[Path]  # folders of images
    against: str  # a folder of images, or the name of a data set
    features: str | None
    dims: str | None  # feature dimensions of FID, comma-separated; None: all of the network's
    n: int | None  # images per folder; None: all of them
    as_json: bool
    store: Path
    data_root: Path
    download: bool


def run(request: ScoreRequest) -> None:
    """Print the scores of each folder. Raises UserError if the folders' scores cannot be compared."""
    for folder in request.samples:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name a folder of images")
    dimensions = _dimensions(request.dims)
    store, real = Store(request.store), Path(request.against)
    is_folder = request.against not in DATASETS and real.is_dir()
    images = None if is_folder and request.features != "classifier" else _prepare_images(request, store, is_folder)

    # These import torch, which is slow. Check the request first.
    from trainables.scores.comparing import image_set, score
    from trainables.scores.loading import download_weights, load_features

    name = request.features or (images.features if images else "inception")
    if request.download:
        download_weights([name])
    network = load_features(name, images, store.scores)
    reference = image_set(real if is_folder or images is None else images)
    cache = None if is_folder else store.scores
    sets = [image_set(folder, request.n) for folder in request.samples]
    results = [(samples.name, score(samples, reference, network, dims=dimensions, cache=cache)) for samples in sets]
    comparable(scores["fid"] for _, scores in results)
    if request.as_json:
        entries = [_json_entry(folder, scores) for folder, scores in results]
        print(dump({"schema": 1, **entries[0]} if len(entries) == 1 else {"schema": 1, "scores": entries}))
    else:
        _show(results, request.against)


def _json_entry(folder: str, scores: dict[str, Score]) -> dict[str, Any]:
    entry: dict[str, Any] = {"images": folder, "n": scores["fid"]["n"], "protocol": scores["fid"]["protocol"]}
    entry |= {name: scores.get(name) for name in NAMES}
    by_dims = {name.removeprefix("fid-"): value for name, value in scores.items() if name.startswith("fid-")}
    return entry | ({"fid_by_dims": by_dims} if by_dims else {})


def _show(results: list[tuple[str, dict[str, Score]]], against: str) -> None:
    say = Console(highlight=False, soft_wrap=True).print
    for folder, scores in results:
        say(f"[bold]{escape(str(folder))}[/bold] against {escape(str(against))}")
        for name, value in scores.items():
            digits = _DIGITS[name.split("-")[0]]
            spread = f" ±{value['std']:.{digits}f}" if value["std"] is not None else ""
            shown, label = f"{value['mean']:.{digits}f}{spread}", name.upper() if name != "sharpness" else name
            say(f"  {label:<10}{shown:>24}  n={value['n']:,}  [dim]{escape(value['protocol'])}[/dim]")


def _prepare_images(request: ScoreRequest, store: Store, is_folder: bool) -> Images:
    """Return the data set at the samples' size; for a folder, the images that its classifier is trained on."""
    name = identify(request.against, store.datasets, request.data_root, request.download)
    size = 32 if is_folder else _size(request.samples)
    store.create()
    folder = Path(request.against) if is_folder else None
    return prepare(name, size, store.datasets, folder=folder, data_root=request.data_root, download=request.download)


def _size(samples: list[Path]) -> int:
    """Return the side of the samples in pixels. Raises UserError if they are not square or differ in size."""
    sizes = {image_size(file) for folder in samples for file in image_files(folder)[:50]}
    if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
        raise UserError(f"images of {sizes} cannot be scored against a data set; make them square and of one size")
    return next(iter(sizes))[0]


def _dimensions(dims: str | None) -> list[int]:
    try:
        return [int(word) for word in dims.split(",")] if dims else []
    except ValueError:
        raise UserError(f"--dims {dims}: not whole numbers; try --dims 2048 or --dims 64,2048") from None

"""Score one set of images against another: folders, data sets, arrays and tensors."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainables.decoding import folder_batches, image_files
from trainables.errors import UserError
from trainables.images import Images
from trainables.rendering import to_uint8
from trainables.scores.features import Features
from trainables.scores.on_device import make_tally
from trainables.scores.protocol import Score, protocol
from trainables.scores.scorer import batches
from trainables.scores.tally import Reference


@dataclass(frozen=True)
class ImageSet:
    """n images that can be read repeatedly. hash: of their content."""

    name: str
    n: int
    hash: str
    read: Callable[[], Iterator[np.ndarray]]  # yields uint8 batches [N, C, H, W] of one size each


def image_set(source: Path | Images | np.ndarray | torch.Tensor, n: int | None = None) -> ImageSet:
    """Return the images of a folder (at their original sizes), of a prepared set, or of an array or tensor.

    source: an array or tensor is uint8 [n, C, H, W], or floats in [-1, 1]. n: use only the first n.
    Raises UserError for a folder without images, for NaN or infinite values, and for fewer than n images.
    """
    if isinstance(source, Path):
        files = image_files(source)[:n]
        _check_count(str(source), len(files), n)
        content = hashlib.sha256()
        for file in files:
            content.update(file.read_bytes())
        return ImageSet(str(source), len(files), content.hexdigest()[:12], lambda: folder_batches(files))
    if isinstance(source, Images):
        pixels, name, digest = source.pixels[:n], source.name, source.hash if n is None else f"{source.hash}-{n}"
    else:
        pixels, name = _as_uint8(source)[:n], "images"
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]
    _check_count(name, len(pixels), n)
    return ImageSet(name, len(pixels), digest, lambda: batches(pixels))


def score(
    samples: ImageSet, against: ImageSet, features: Features, *, dims: Sequence[int] = (), cache: Path | None = None
) -> dict[str, Score]:
    """Return fid, kid, is (if the features have classes) and sharpness of `samples`.

    dims: the dimensions of the features to use; by default those of the network. With several, fid and kid use the
    largest, and fid-D is added for each; all come from one forward pass. cache: a folder for the statistics of
    `against`.
    """
    tally = make_tally(features, samples.n, dims).add_all(samples.read())
    real = make_tally(features, against.n, tally.dims)
    if cache is None:
        reference = Reference.of(real.add_all(against.read()))
    else:
        dims_name = "-".join(map(str, real.dims))
        path = cache / f"real-{against.hash}-{features.name}-{dims_name}.safetensors"
        reference = Reference.cached(path, real, against.read())

    def as_score(mean: float, d: int, std: float | None = None) -> Score:
        name = protocol(features, d, against.hash, "images", samples.n)
        return Score(mean=mean, std=std, n=samples.n, protocol=name)

    top = max(tally.dims)
    value, error = tally.kid(reference, top)
    scores = {"fid": as_score(tally.fid(reference, top), top), "kid": as_score(value, top, error)}
    if len(tally.dims) > 1:
        scores |= {f"fid-{d}": as_score(tally.fid(reference, d), d) for d in tally.dims}
    if tally.inception_score.n:
        scores["is"] = as_score(tally.inception_score.value, top)
    return scores | {"sharpness": as_score(tally.sharpness, top)}


def _as_uint8(images: np.ndarray | torch.Tensor) -> np.ndarray:
    tensor = torch.as_tensor(images)
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3):
        raise UserError(f"images have shape {list(tensor.shape)}; give [n, 1 or 3, height, width]")
    if tensor.dtype != torch.uint8:
        if not tensor.is_floating_point():
            raise UserError(f"images have type {tensor.dtype}; give uint8, or floats in [-1, 1]")
        if not bool(tensor.isfinite().all()):
            raise UserError("images contain NaN or infinite values; a diverged generator cannot be scored")
        tensor = to_uint8(tensor)
    return tensor.cpu().numpy()


def _check_count(name: str, count: int, n: int | None) -> None:
    if n is not None and count < n:
        raise UserError(f"{name} has {count} images, fewer than n={n}; give a smaller --n")

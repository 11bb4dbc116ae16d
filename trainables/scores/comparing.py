"""Scores of any images against any others: folders, data sets, arrays and tensors."""

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
from trainables.scores.protocol import Score, protocol
from trainables.scores.scorer import batches
from trainables.scores.tally import Reference, Tally


@dataclass(frozen=True)
class ImageSet:
    """n images that can be read again and again. hash: of their content."""

    name: str
    n: int
    hash: str
    read: Callable[[], Iterator[np.ndarray]]  # uint8 batches [N, C, H, W]; all of one batch have one size


def image_set(source: Path | Images | np.ndarray | torch.Tensor, n: int | None = None) -> ImageSet:
    """A folder (read at the images' own sizes), a prepared set, or images: uint8 [n, C, H, W], or floats in [-1, 1].

    n: take the first n alone. Raises UserError for a folder without images, for NaN, and for fewer than n images.
    """
    if isinstance(source, Path):
        files = image_files(source)[:n]
        _enough(str(source), len(files), n)
        content = hashlib.sha256()
        for file in files:
            content.update(file.read_bytes())
        return ImageSet(str(source), len(files), content.hexdigest()[:12], lambda: folder_batches(files))
    if isinstance(source, Images):
        pixels, name, digest = source.pixels[:n], source.name, source.hash if n is None else f"{source.hash}-{n}"
    else:
        pixels, name = _as_uint8(source)[:n], "images"
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]
    _enough(name, len(pixels), n)
    return ImageSet(name, len(pixels), digest, lambda: batches(pixels))


def score(
    samples: ImageSet, against: ImageSet, features: Features, *, dims: Sequence[int] = (), cache: Path | None = None
) -> dict[str, Score]:
    """fid, kid, is (where there are classes) and sharpness of `samples`, and fid-D for each of several dims.

    dims: the features' dimensions to use; by default the network's own. With several, fid and kid are of the largest,
    and all come from one forward pass. cache: a folder where the statistics of `against` are kept.
    """
    tally = Tally(features, samples.n, dims).add_all(samples.read())
    real = Tally(features, against.n, tally.dims)
    if cache is None:
        reference = Reference.of(real.add_all(against.read()))
    else:
        kept = "-".join(map(str, real.dims))
        path = cache / f"real-{against.hash}-{features.name}-{kept}.safetensors"
        reference = Reference.cached(path, real, against.read())

    def of(mean: float, d: int, std: float | None = None) -> Score:
        named = protocol(features, d, against.hash, "images", samples.n)
        return Score(mean=mean, std=std, n=samples.n, protocol=named)

    top = max(tally.dims)
    value, error = tally.kid(reference, top)
    scores = {"fid": of(tally.fid(reference, top), top), "kid": of(value, top, error)}
    if len(tally.dims) > 1:
        scores |= {f"fid-{d}": of(tally.fid(reference, d), d) for d in tally.dims}
    if tally.inception_score.n:
        scores["is"] = of(tally.inception_score.value, top)
    return scores | {"sharpness": of(tally.sharpness, top)}


def _as_uint8(images: np.ndarray | torch.Tensor) -> np.ndarray:
    tensor = torch.as_tensor(images)
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3):
        raise UserError(f"images of shape {list(tensor.shape)}: give [n, 1 or 3, height, width]")
    if tensor.dtype != torch.uint8:
        if not tensor.is_floating_point():
            raise UserError(f"images of {tensor.dtype}: give uint8, or floats in [-1, 1]")
        if not bool(tensor.isfinite().all()):
            raise UserError("the images hold NaN or infinite values; a diverged generator has no score")
        tensor = to_uint8(tensor)
    return tensor.cpu().numpy()


def _enough(name: str, found: int, n: int | None) -> None:
    if n is not None and found < n:
        raise UserError(f"{name} has {found} images, fewer than n={n}; give a smaller --n")

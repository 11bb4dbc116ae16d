"""Statistics of a set of images for all scores, collected in one pass. Memory does not grow with n."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from torch import nn

from trainables.errors import SpoiledError, UserError
from trainables.latents import Order
from trainables.locks import made_once
from trainables.notes import note
from trainables.rendering import render
from trainables.scores.features import Features
from trainables.scores.fid import Moments, RealStatistics, fid_of_features, fid_of_moments
from trainables.scores.inception_score import InceptionScore
from trainables.scores.kid import SAMPLE, kid, within
from trainables.scores.sharpness import sharpness
from trainables.tensors import check_finite, read_tensors, set_aside, write_tensors

PART_SECONDS = 30.0  # between two parts of a long computation that are saved


class Tally:
    """Statistics of n images, added in batches of any size."""

    def __init__(self, features: Features, n: int, dims: Sequence[int] = ()) -> None:
        """dims: the dimensions of the features to use; by default those of the network. Raises UserError for n < 2."""
        if n < 2:
            raise UserError(f"a score needs at least 2 images, not {n}; add images")
        self.features, self.n, self.dims = features, n, tuple(dims) or (features.dims,)
        self.moments = {d: Moments(d) for d in self.dims}
        self.inception_score = InceptionScore()
        self.sharpness = 0.0
        self._added = 0
        # KID uses a fixed random sample of at most SAMPLE images.
        self._in_sample = np.zeros(n, dtype=bool)
        self._in_sample[Order("kid", n).batch(0, min(n, SAMPLE))] = True
        self._sample: dict[int, list[np.ndarray]] = {d: [] for d in self.dims}

    def add(self, images: np.ndarray) -> Tally:
        """Add uint8 images [N, C, H, W] and return self. Raises UserError for images below 3×3 and for missing dims."""
        self._check_size(images.shape)
        activations = self.features(images)
        self._check_dims(activations.features)
        in_sample = self._in_sample[self._added : self._added + len(images)]
        for d in self.dims:
            self.moments[d].add(activations.features[d])
            self._sample[d].append(activations.features[d][in_sample])
        if activations.logits is not None:
            self.inception_score.add(activations.logits)
        self.sharpness += float(sharpness(images).sum()) / self.n
        self._added += len(images)
        return self

    def add_rendered(self, generator: nn.Module, z: np.ndarray) -> Tally:
        """Add the generator's images of latents z [N, 100] and return self. Raises NotFiniteError."""
        return self.add(render(generator, z))

    def _check_size(self, shape: Sequence[int]) -> None:
        if min(shape[2:]) < 3:
            raise UserError(f"images of {shape[3]}×{shape[2]} are too small to score; give at least 3×3")

    def _check_dims(self, available: Iterable[int]) -> None:
        unknown = set(self.dims) - set(available)
        if unknown:
            names = ", ".join(map(str, available))
            raise UserError(f"dims={min(unknown)}: {self.features.name} has no such features; it has {names}")

    def add_all(self, batches: Iterable[np.ndarray]) -> Tally:
        for batch in batches:
            self.add(batch)
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs to go on, by name."""
        score = self.inception_score
        arrays = {"numbers": np.array([self._added, self.sharpness, score.n, score.negative_entropy])}
        arrays["marginal"] = np.atleast_1d(np.asarray(score.marginal, dtype=np.float64))
        for d in self.dims:
            arrays |= {f"{name}/{d}": array for name, array in self.moments[d].state().items()}
            arrays[f"sample/{d}"] = self.sample(d)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> int:
        """Go on from a state, bit for bit. Return how many images it has. Raises KeyError or ValueError if it is wrong.

        Images are added in the same batches as before.
        """
        added, sharp, scored, entropy = map(float, arrays["numbers"])
        sums = {d: [arrays[f"{name}/{d}"] for name in ("sum", "outer", "sample")] for d in self.dims}
        if any((total.shape, outer.shape) != ((d,), (d, d)) for d, (total, outer, _) in sums.items()):
            raise ValueError("it has sums of other shapes")
        self._added, self.sharpness, score = int(added), sharp, self.inception_score
        score.n, score.negative_entropy, score.marginal = int(scored), entropy, arrays["marginal"]
        for d, (total, outer, sample) in sums.items():
            self.moments[d].restore(self._added, total, outer)
            self._add_sample(d, sample)
        return self._added

    def _add_sample(self, dims: int, features: np.ndarray) -> None:
        self._sample[dims].append(features)

    def sample(self, dims: int) -> np.ndarray:
        """Return features [min(n, SAMPLE), dims]."""
        return np.concatenate(self._sample[dims])

    def fid(self, real: Reference, dims: int) -> float:
        """Return FID over all n images (Heusel et al., arXiv 1706.08500)."""
        statistics = real.statistics[dims]
        if self.n <= min(dims, SAMPLE):
            return fid_of_features(self.sample(dims), statistics)
        return fid_of_moments(self.moments[dims].mean, self.moments[dims].covariance, statistics)

    def kid(self, real: Reference, dims: int) -> tuple[float, float]:
        """Return KID and its standard error over at most SAMPLE images per set."""
        return kid(self.sample(dims), real.samples[dims], real.within(dims))


@dataclass(frozen=True)
class Reference:
    """Statistics and samples of the real images by dimension, and their own scores."""

    statistics: dict[int, RealStatistics]
    samples: dict[int, np.ndarray]
    n: int
    sharpness: float
    inception_score: float | None
    _within: dict[int, np.ndarray] = field(default_factory=dict)

    def within(self, dims: int) -> np.ndarray:
        """Return the part of KID that depends on the real images alone, computed once."""
        if dims not in self._within:
            self._within[dims] = within(self.samples[dims])
        return self._within[dims]

    @classmethod
    def of(cls, tally: Tally) -> Reference:
        return cls(
            statistics={d: RealStatistics.of(tally.moments[d]) for d in tally.dims},
            samples={d: tally.sample(d) for d in tally.dims},
            n=tally.n,
            sharpness=tally.sharpness,
            inception_score=tally.inception_score.value if tally.inception_score.n else None,
        )

    @classmethod
    def cached(
        cls,
        path: Path,
        tally: Tally,
        batches: Iterable[np.ndarray],
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> Reference:
        """Load a reference from `path`, or compute it by adding `batches` to `tally` and save it there.

        An interrupted computation resumes from its last part. A damaged file is set aside, and made again. tell: called
        with (images done, images in total).
        """
        if path.exists():
            try:
                return cls._load(path, tally)
            except SpoiledError as error:
                note(f"{set_aside(error)}; the statistics are computed again")
        with made_once(path) as needed:
            if needed:
                with threadpool_limits(1, "blas"):  # the sums do not depend on the number of threads
                    reference = cls.of(_add_in_parts(tally, batches, path.with_suffix(".partial.safetensors"), tell))
                real_is = np.nan if reference.inception_score is None else reference.inception_score
                arrays = {"facts": np.array([reference.n, reference.sharpness, real_is])}
                for d, statistics in reference.statistics.items():
                    parts = {"mean": statistics.mean, "covariance": statistics.covariance, "root": statistics.root}
                    arrays |= {f"{name}/{d}": array for name, array in parts.items()}
                    arrays[f"sample/{d}"] = reference.samples[d]
                write_tensors(path, arrays)
                path.with_suffix(".partial.safetensors").unlink(missing_ok=True)
        return cls._load(path, tally)

    @classmethod
    def _load(cls, path: Path, tally: Tally) -> Reference:
        arrays, _ = read_tensors(path)
        shapes: dict[str, tuple[int, ...]] = {"facts": (3,)}
        for d in tally.dims:
            shapes |= {f"mean/{d}": (d,), f"covariance/{d}": (d, d), f"root/{d}": (d, d)}
            shapes |= {f"sample/{d}": (min(tally.n, SAMPLE), d)}
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise SpoiledError(path, "is damaged: its statistics have other names or shapes")
        n, sharp, real_is = arrays["facts"]
        check_finite(path, {**arrays, "facts": arrays["facts"][:2]})  # without classes there is no IS
        return cls(
            statistics={
                d: RealStatistics(arrays[f"mean/{d}"], arrays[f"covariance/{d}"], arrays[f"root/{d}"])
                for d in tally.dims
            },
            samples={d: arrays[f"sample/{d}"] for d in tally.dims},
            n=int(n),
            sharpness=float(sharp),
            inception_score=None if np.isnan(real_is) else float(real_is),
        )


def _add_in_parts(tally: Tally, batches: Iterable[np.ndarray], part: Path, tell: Callable[[int, int], None]) -> Tally:
    """Add all batches. Save the state now and then at `part`, and begin with what is there."""
    before = 0
    if part.exists():
        try:
            before = tally.restore(read_tensors(part)[0])
        except (SpoiledError, KeyError, ValueError) as error:
            part.unlink()
            note(f"{part} is damaged ({error}); the statistics begin anew")
    seen, saved = 0, time.monotonic()
    for batch in batches:
        seen += len(batch)
        if seen <= before:
            continue
        tally.add(batch)
        tell(seen, tally.n)
        if time.monotonic() - saved > PART_SECONDS:
            write_tensors(part, tally.state())
            saved = time.monotonic()
    return tally

"""Everything that scores need of a set of images, gathered in one pass; memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from trainables.errors import UserError
from trainables.files import replacing
from trainables.latents import Order
from trainables.scores.features import Features
from trainables.scores.fid import Moments, RealStatistics, fid_of_features, fid_of_moments
from trainables.scores.inception_score import InceptionScore
from trainables.scores.kid import SAMPLE, kid
from trainables.scores.sharpness import sharpness


class Tally:
    """Fed with n uint8 images [N, C, H, W], in batches of any size. Raises UserError for fewer than 2 images."""

    def __init__(self, features: Features, n: int, dims: Sequence[int] = ()) -> None:
        """dims: of the features' dimensions, those to keep; by default the network's own."""
        if n < 2:
            raise UserError(f"a score needs at least 2 images, and here is {n}; add images")
        self.features, self.n, self.dims = features, n, tuple(dims) or (features.dims,)
        self.moments = {d: Moments(d) for d in self.dims}
        self.inception_score = InceptionScore()
        self.sharpness = 0.0
        self._seen = 0
        # Few images are kept whole; of many a fixed random part, which KID is computed on.
        self._kept = np.zeros(n, dtype=bool)
        self._kept[Order("kid", n).batch(0, min(n, SAMPLE))] = True
        self._sample: dict[int, list[np.ndarray]] = {d: [] for d in self.dims}

    def add(self, images: np.ndarray) -> Tally:
        if min(images.shape[2:]) < 3:
            raise UserError(f"images of {images.shape[3]}×{images.shape[2]} are too small to score; give at least 3×3")
        found = self.features(images)
        unknown = set(self.dims) - set(found.features)
        if unknown:
            known = ", ".join(map(str, found.features))
            raise UserError(f"dims={min(unknown)}: {self.features.name} has no such features; it has {known}")
        kept = self._kept[self._seen : self._seen + len(images)]
        for d in self.dims:
            self.moments[d].add(found.features[d])
            self._sample[d].append(found.features[d][kept])
        if found.logits is not None:
            self.inception_score.add(found.logits)
        self.sharpness += float(sharpness(images).sum()) / self.n
        self._seen += len(images)
        return self

    def add_all(self, batches: Iterable[np.ndarray]) -> Tally:
        for batch in batches:
            self.add(batch)
        return self

    def sample(self, dims: int) -> np.ndarray:
        """Features [min(n, SAMPLE), dims]."""
        return np.concatenate(self._sample[dims])

    def fid(self, real: Reference, dims: int) -> float:
        """Heusel et al.; all n images."""
        statistics = real.statistics[dims]
        if self.n <= min(dims, SAMPLE):
            return fid_of_features(self.sample(dims), statistics)
        return fid_of_moments(self.moments[dims].mean, self.moments[dims].covariance, statistics)

    def kid(self, real: Reference, dims: int) -> tuple[float, float]:
        """(KID, its standard error); at most SAMPLE images of each side."""
        return kid(self.sample(dims), real.samples[dims])


@dataclass(frozen=True)
class Reference:
    """What scores are computed against: by dimensions the real images' statistics and sample; their own scores."""

    statistics: dict[int, RealStatistics]
    samples: dict[int, np.ndarray]
    n: int
    sharpness: float
    inception_score: float | None

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
    def cached(cls, path: Path, tally: Tally, batches: Iterable[np.ndarray]) -> Reference:
        """Found at `path`, or computed by feeding `batches` to `tally` and kept there."""
        if not path.exists():
            made = cls.of(tally.add_all(batches))
            real_is = np.nan if made.inception_score is None else made.inception_score
            arrays = {"facts": np.array([made.n, made.sharpness, real_is])}
            for d, statistics in made.statistics.items():
                parts = {"mean": statistics.mean, "covariance": statistics.covariance, "root": statistics.root}
                arrays |= {f"{name}/{d}": array for name, array in parts.items()}
                arrays[f"sample/{d}"] = made.samples[d]
            with replacing(path) as temporary:
                save_file(arrays, temporary)
        arrays = load_file(path)
        n, sharp, real_is = arrays["facts"]
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

"""All scores of a generator against one set of real images."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from trainables.files import replacing
from trainables.images import Images
from trainables.latents import latents
from trainables.networks import Generator
from trainables.scores.features import Classifier, Features, features_of
from trainables.scores.fid import Moments, RealStatistics, fid
from trainables.scores.inception_score import inception_score
from trainables.scores.protocol import Score, protocol, streams
from trainables.scores.sharpness import sharpness
from trainables.training import render


class Scorer:
    """Scores generators against one set of real images; made once per process and set."""

    def __init__(self, images: Images, cache: Path) -> None:
        """cache: where the classifier and the real statistics are kept. Raises EnvironmentUserError without weights."""
        self.images = images
        self.features: Features = features_of(images, cache)
        self._real = _real_statistics(images, self.features, cache)

    @property
    def real_is(self) -> float | None:
        """Inception Score of held-out real images: the most that a generator of this set can hope for."""
        return self.features.real_is if isinstance(self.features, Classifier) else None

    def protocol(self, purpose: str, n: int) -> str:
        return protocol(self.features.name, self.images.hash, purpose, n)

    def __call__(self, generator: Generator, purpose: str, n: int) -> dict[str, Score]:
        """fid, is (where there are classes) and sharpness of n images per set of latents.

        purpose: rung (what prunes), selection (what chooses) or report (what is printed: three sets).
        """
        sets = [self.of_images(render(generator, latents(stream, 0, n))) for stream in streams(purpose)]
        scores: dict[str, Score] = {}
        for name in sets[0]:
            found = [values[name] for values in sets]
            std = float(np.std(found, ddof=1)) if len(found) > 1 else None
            scores[name] = Score(mean=float(np.mean(found)), std=std, n=n, protocol=self.protocol(purpose, n))
        return scores

    def of_images(self, images: np.ndarray) -> dict[str, float]:
        """The same of any uint8 images [n, C, H, W]."""
        features, logits = self.features(images)
        values = {"fid": fid(features, self._real), "sharpness": sharpness(images)}
        if logits is not None:
            values["is"] = inception_score(logits)
        return values


def _real_statistics(images: Images, features: Features, cache: Path) -> RealStatistics:
    path = cache / f"real-{images.hash}-{features.name}.safetensors"
    if not path.exists():
        moments, pixels = Moments(features.dims), images.pixels
        for start in range(0, len(pixels), 1000):
            moments.add(features(pixels[start : start + 1000])[0])
        real = RealStatistics.of(moments)
        with replacing(path) as temporary:
            save_file({"mean": real.mean, "covariance": real.covariance, "root": real.root}, temporary)
    return RealStatistics(**load_file(path))

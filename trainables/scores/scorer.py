"""All scores of a sweep's generators against its set of real images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from trainables.images import Images
from trainables.latents import latents
from trainables.rendering import render
from trainables.scores.classifier import Classifier
from trainables.scores.features import Features
from trainables.scores.loading import load_features
from trainables.scores.protocol import Score, protocol, streams
from trainables.scores.tally import Reference, Tally

BATCH = 1_000


class Scorer:
    """Made once per process and set."""

    def __init__(self, images: Images, cache: Path, features: str = "") -> None:
        """features: a network's name, by default the set's. cache: for the classifier and the real images' statistics.
        Raises EnvironmentUserError without weights."""
        self.images = images
        self.features: Features = load_features(features or images.features, images, cache)
        pixels = images.pixels
        path = cache / f"real-{images.hash}-{self.features.name}.safetensors"
        self.reference = Reference.cached(path, Tally(self.features, len(pixels)), batches(pixels))

    @property
    def real(self) -> dict[str, float | None]:
        """The real images' own scores. IS is that of the part that the classifier has not seen."""
        held_out = self.features.real_is if isinstance(self.features, Classifier) else self.reference.inception_score
        return {"is": held_out, "sharpness": self.reference.sharpness}

    def protocol(self, purpose: str, n: int) -> str:
        return protocol(self.features, self.features.dims, self.images.hash, purpose, n, len(streams(purpose)))

    def __call__(self, generator: nn.Module, purpose: str, n: int) -> dict[str, Score]:
        """fid, is (where there are classes) and sharpness of n images per set of latents; kid of what is printed.

        purpose: rung (what prunes), selection (what chooses) or report (what is printed: three sets).
        Raises NotFiniteError when the generator's images are not.
        """
        values: dict[str, list[float]] = {}
        for stream in streams(purpose):
            tally = Tally(self.features, n)
            for start in range(0, n, BATCH):
                tally.add(render(generator, latents(stream, start, min(BATCH, n - start))))
            values.setdefault("fid", []).append(tally.fid(self.reference, self.features.dims))
            values.setdefault("sharpness", []).append(tally.sharpness)
            if tally.inception_score.n:
                values.setdefault("is", []).append(tally.inception_score.value)
            if purpose == "report":
                values.setdefault("kid", []).append(tally.kid(self.reference, self.features.dims)[0])
        scores: dict[str, Score] = {}
        for name, found in values.items():
            std = float(np.std(found, ddof=1)) if len(found) > 1 else None
            scores[name] = Score(mean=float(np.mean(found)), std=std, n=n, protocol=self.protocol(purpose, n))
        return scores


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), BATCH):
        yield pixels[start : start + BATCH]

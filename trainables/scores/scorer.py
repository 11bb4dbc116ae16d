"""Score the generators of a sweep against its real images."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import nn

from trainables.images import Images
from trainables.latents import PAPER, latents
from trainables.scores.classifier import Classifier
from trainables.scores.features import Features
from trainables.scores.loading import load_features
from trainables.scores.on_device import make_tally
from trainables.scores.protocol import Score, protocol, streams
from trainables.scores.tally import Reference
from trainables.shapes import LatentLaw
from trainables.teacher_images import TeacherImages

BATCH = 1_000  # images that are rendered or read at a time


class Scorer:
    """Scores of generators against one set of real images. Create one per process and set."""

    def __init__(
        self,
        images: Images,
        cache: Path,
        features: str = "",
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """features: the name of a network; by default that of the set. cache: a folder for the classifier and the
        statistics of the real images. tell: called with (real images done, in total) while the statistics are computed.
        Raises EnvironmentUserError without weights.
        """
        self.images = images
        self.features: Features = load_features(features or images.features, images, cache)
        pixels = images.pixels
        path = cache / f"real-{images.hash}-{self.features.name}.safetensors"
        self.reference = Reference.cached(path, make_tally(self.features, len(pixels)), batches(pixels), tell)

    @property
    def real(self) -> dict[str, float | None]:
        """The scores of the real images. A classifier's IS and accuracy are of images that it was not trained on."""
        sharpness = self.reference.sharpness
        if isinstance(self.features, Classifier):
            return {"is": self.features.real_is, "accuracy": self.features.accuracy, "sharpness": sharpness}
        return {"is": self.reference.inception_score, "sharpness": sharpness}

    def protocol(self, purpose: str, n: int) -> str:
        return protocol(self.features, self.features.dims, self.images.hash, purpose, n, len(streams(purpose)))

    def __call__(
        self, generator: nn.Module | TeacherImages, purpose: str, n: int, law: LatentLaw = PAPER
    ) -> dict[str, Score]:
        """Return fid, is (if the features have classes) and sharpness of n images per set of latents; kid in a report.

        purpose: rung (for pruning), selection, or report (three sets of latents). law: of a network's latents.
        Raises NotFiniteError if an image of a network is NaN or infinite.
        """
        values: dict[str, list[float]] = {}
        for stream in streams(purpose):
            tally = make_tally(self.features, n)
            for start in range(0, n, BATCH):
                count = min(BATCH, n - start)
                if isinstance(generator, TeacherImages):
                    tally.add(generator.images(stream, start, count))
                else:
                    tally.add_rendered(generator, latents(stream, start, count, law))
            values.setdefault("fid", []).append(tally.fid(self.reference, self.features.dims))
            values.setdefault("sharpness", []).append(tally.sharpness)
            if tally.inception_score.n:
                values.setdefault("is", []).append(tally.inception_score.value)
            if purpose == "report":
                values.setdefault("kid", []).append(tally.kid(self.reference, self.features.dims)[0])
        scores: dict[str, Score] = {}
        for name, per_set in values.items():
            std = float(np.std(per_set, ddof=1)) if len(per_set) > 1 else None
            scores[name] = Score(mean=float(np.mean(per_set)), std=std, n=n, protocol=self.protocol(purpose, n))
        return scores


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), BATCH):
        yield pixels[start : start + BATCH]

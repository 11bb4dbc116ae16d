"""A teacher as its students know it: latents, and its images of them."""

from collections.abc import Callable

import numpy as np

from trainables.latents import PAPER, Order, latents
from trainables.shapes import LatentLaw

PICTURES = 32  # pairs that are kept for pictures: students do not train on them


class TeacherImages:
    """The images of a generator, area-averaged to a side where that is smaller than its own."""

    def __init__(
        self, render: Callable[[np.ndarray], np.ndarray], law: LatentLaw = PAPER, side: int | None = None
    ) -> None:
        """render: latents [N, law.size] → uint8 images [N, C, H, H]. side: a divisor of H; None: H."""
        self.law, self.side, self._render = law, side, render

    def render(self, z: np.ndarray) -> np.ndarray:
        """Return the images of latents [N, law.size]: uint8 [N, C, side, side]."""
        return averaged(self._render(z), self.side)

    def latents(self, stream: str, first: int, count: int) -> np.ndarray:
        """Return latents `first` … `first + count - 1` of a stream: float32 [count, law.size]."""
        return latents(stream, first, count, self.law)

    def images(self, stream: str, first: int, count: int) -> np.ndarray:
        """Return the images of the same: uint8 [count, C, side, side]."""
        return self.render(self.latents(stream, first, count))


class PairsError(Exception):
    """Pairs have no images of other latents."""


class PairImages(TeacherImages):
    """Pairs of latents and images that a generator made elsewhere. Nothing can be rendered from other latents.

    The first PICTURES pairs are for pictures. The next `own` ones are the stream "reference". Students train on the
    others in their order, as the stream "bank". Every other stream is an order of them.
    """

    def __init__(self, z: np.ndarray, images: np.ndarray, law: LatentLaw, own: int, side: int | None = None) -> None:
        """z: float32 [n, law.size]. images: uint8 [n, C, H, H]. own: pairs that stand for real images, or 0."""
        super().__init__(self._refuse, law, side)
        self._z, self._images, self._own = z, images, own
        self.count = for_students(len(z), own)

    @staticmethod
    def _refuse(z: np.ndarray) -> np.ndarray:
        raise PairsError

    def latents(self, stream: str, first: int, count: int) -> np.ndarray:
        return np.asarray(self._z[self._rows(stream, first, count)])

    def images(self, stream: str, first: int, count: int) -> np.ndarray:
        return averaged(np.asarray(self._images[self._rows(stream, first, count)]), self.side)

    def _rows(self, stream: str, first: int, count: int) -> np.ndarray:
        positions = np.arange(first, first + count)
        if stream == "picture":
            return positions % PICTURES
        if stream == "reference":
            return PICTURES + positions % self._own
        if stream != "bank":
            positions = Order(f"pairs/{stream}", self.count).batch(0, first + count)[first:]
        return PICTURES + self._own + positions % self.count


def for_students(pairs: int, own: int) -> int:
    """Return how many of a number of pairs students train on. own: those that stand for real images."""
    return pairs - PICTURES - own


def averaged(images: np.ndarray, side: int | None) -> np.ndarray:
    """Return uint8 images [N, C, H, H] averaged over squares of pixels to [N, C, side, side]."""
    count, channels, own, _ = images.shape
    if side is None or side == own:
        return images
    square = own // side
    sums = images.reshape(count, channels, side, square, side, square).sum(axis=(3, 5), dtype=np.uint32)
    return np.asarray(np.rint(sums / square**2), dtype=np.uint8)


def to_pixels(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Convert images in [low, high] to uint8, by rounding and clamping as trainables.rendering does."""
    scaled = (images.astype(np.float32) - low) * np.float32(255 / (high - low))
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)

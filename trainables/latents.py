"""Counter-based randomness: each draw is a pure function of (stream, index), on any machine and after any restart.

There is no state to save in a checkpoint. Streams with different names are independent, so the latents for pruning
(`rung`), selection (`selection`), the report (`report/0` …), distillation (`bank`) and GAN training (`training/SEED`)
are disjoint by construction.
"""

import hashlib
from functools import lru_cache

import numpy as np

from trainables.shapes import LatentLaw

PAPER = LatentLaw()
_BLOCK = 1024


def _generator(stream: str, block: int) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key, counter=block << 128))


@lru_cache(maxsize=4)  # consecutive small batches lie in one block
def _block(stream: str, block: int, law: LatentLaw) -> np.ndarray:
    random, shape = _generator(stream, block), (_BLOCK, law.size)
    if law.name == "uniform":
        return random.uniform(-1, 1, shape).astype(np.float32)
    z = random.standard_normal(shape, dtype=np.float32)
    if law.bound is not None:
        while (outside := np.abs(z) > law.bound).any():
            z[outside] = random.standard_normal(np.count_nonzero(outside), dtype=np.float32)
    return z


def latents(stream: str, first: int, count: int, law: LatentLaw = PAPER) -> np.ndarray:
    """Return latents `first` … `first + count - 1` of a stream: float32 [count, law.size]."""
    if count == 0:
        return np.empty((0, law.size), dtype=np.float32)
    blocks = range(first // _BLOCK, (first + count - 1) // _BLOCK + 1)
    parts = [_block(stream, b, law)[max(0, first - b * _BLOCK) : first + count - b * _BLOCK] for b in blocks]
    return np.concatenate(parts)


def seed_of(stream: str) -> int:
    """Return a 63-bit seed for the random generator of a library."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little") >> 1


class Order:
    """An endless order of `size` items. Each epoch is a permutation that depends only on (stream, epoch)."""

    def __init__(self, stream: str, size: int) -> None:
        self.stream, self.size = stream, size
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def batch(self, index: int, batch_size: int) -> np.ndarray:
        """Return the item numbers of batch `index`: int64 [batch_size]. A batch may span two epochs or more."""
        positions = np.arange(index * batch_size, (index + 1) * batch_size)
        epochs, offsets = positions // self.size, positions % self.size
        items = np.empty(batch_size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            in_epoch = epochs == epoch
            items[in_epoch] = self._epoch_order(epoch)[offsets[in_epoch]]
        return items

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, _generator(self.stream, epoch).permutation(self.size)
        return self._permutation

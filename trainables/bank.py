"""The teacher's images by latent index: made once by whichever trial comes first, memory-mapped by the rest."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainables.files import replacing
from trainables.latents import latents

STREAM = "bank"


class Bank:
    """Latents 0 … count-1 and the teacher's uint8 images of them.

    z: float32 [count, 100]; images: uint8 [count, C, H, W], memory-mapped.
    """

    def __init__(self, folder: Path, count: int, render: Callable[[np.ndarray], np.ndarray]) -> None:
        """folder: this teacher's own. render: latents [N, 100] → uint8 images [N, C, H, W]; called only if needed."""
        self.z = latents(STREAM, 0, count)
        path = folder / f"{count}.npy"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                with replacing(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, render(self.z))
        self.images = np.load(path, mmap_mode="r")

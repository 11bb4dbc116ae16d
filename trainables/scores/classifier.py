"""A classifier trained on the labels of the data set: logits for the Inception Score, 84 features for FID and KID."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.errors import SpoiledError, UserError
from trainables.files import file_hash, replacing, write_json
from trainables.images import Images
from trainables.latents import Order, seed_of
from trainables.locks import made_once
from trainables.notes import note
from trainables.scores.features import TorchFeatures
from trainables.scores.inception_score import InceptionScore
from trainables.tensors import read_file, read_tensors, set_aside

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
    """A trained LeNet. accuracy, real_is, recall (the mean over classes): measured on held-out real images."""

    def __init__(
        self, network: LeNet, channels: int, name: str, accuracy: float, real_is: float, recall: float
    ) -> None:
        super().__init__(network, name, 84, "averaged to 32×32, [-1, 1]", batch_size=500)
        self.channels, self.accuracy, self.real_is, self.recall = channels, accuracy, real_is, recall

    def forward(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
        if images.shape[1] != self.channels:
            grey = images.float().mul(images.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32).view(1, 3, 1, 1))
            images = images.expand(-1, 3, -1, -1) if self.channels == 3 else grey.sum(1, keepdim=True)
        features, logits = self.network(images)
        return {self.dims: features}, logits


def classifier(images: Images, cache: Path) -> Classifier:
    """Load the classifier of a labelled set from `cache`, training it first if needed. A damaged one is trained again.

    Raises UserError if it has learned nothing: features of such a network compare nothing.
    """
    assert images.classes is not None
    path = cache / f"classifier-{images.labelled_hash}.safetensors"
    record = path.with_suffix(".json")
    if not record.exists():
        _adopt(images, cache / f"classifier-{images.hash}.safetensors", path)
    if record.exists():
        try:
            return _checked(_load(images, path), images)
        except SpoiledError as error:
            note(f"{set_aside(error)}; the classifier is trained again")
            record.unlink(missing_ok=True)
    network = LeNet(images.channels, len(images.classes))
    with made_once(record) as needed:
        if needed:
            facts = _fit(network, images)
            with replacing(path) as temporary:
                save_file(network.state_dict(), temporary)
            write_json(record, {"name": f"classifier-{file_hash(path)}", **facts})
    return _checked(_load(images, path), images)


def _load(images: Images, path: Path) -> Classifier:
    """Raises SpoiledError if a file is missing or damaged, or not that of these classes."""
    record = path.with_suffix(".json")
    try:
        facts = json.loads(read_file(record))
        name, numbers = str(facts["name"]), [float(facts[key]) for key in ("accuracy", "real_is")]
        recall = float(facts.get("recall", numbers[0]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SpoiledError(record, "is damaged: it is not the record of a classifier") from None
    network = LeNet(images.channels, len(images.classes or ()))
    arrays, _ = read_tensors(path, like=network.state_dict(), recorded=name.removeprefix("classifier-"))
    network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return Classifier(network, images.channels, name, numbers[0], numbers[1], recall)


def _adopt(images: Images, older: Path, path: Path) -> None:
    """Take over the classifier of an older version, which had no labels in its name, if it is of these labels.

    Scores of a store that was made before stay comparable. Its accuracy on these labels tells whether it is theirs.
    """
    if not older.with_suffix(".json").exists():
        return
    try:
        found = _load(images, older)
    except SpoiledError:
        return
    assert images.labels is not None
    test, _ = _split(len(images.labels))
    if _measure(found.network, images.pixels, images.labels, test)["accuracy"] != found.accuracy:
        return
    for suffix in (".safetensors", ".json"):
        with replacing(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(older.with_suffix(suffix).read_bytes())


def _checked(found: Classifier, images: Images) -> Classifier:
    """Return the classifier. Raises UserError if it knows the classes hardly better than chance."""
    chance = 1 / len(images.classes or ())
    least = min(2 * chance, (1 + chance) / 2)  # of two classes no network can know twice as many as chance
    if not found.recall >= least:
        raise UserError(
            f"the classifier of {images.name} has learned nothing: it recognises {found.recall:.0%} of a class's "
            f"held-out images, and chance is {chance:.0%}; correct the classes, or use --features imagenet"
        )
    return found


def _split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the held-out images and of those that the classifier is trained on."""
    shuffled = Order("classifier/split", count).batch(0, count)
    n_test = max(1, int(count * HELD_OUT))
    return shuffled[:n_test], shuffled[n_test:]


@torch.inference_mode()
def _measure(network: nn.Module, pixels: np.ndarray, labels: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Return accuracy, recall (the mean over classes, which is chance for a constant answer) and IS of images."""
    device = next(network.parameters()).device
    logits = np.concatenate(
        [network(torch.from_numpy(pixels[batch]).to(device))[1].cpu().numpy() for batch in np.array_split(test, 10)]
    )
    right = logits.argmax(axis=1) == labels[test]
    recall = np.mean([right[labels[test] == label].mean() for label in np.unique(labels[test])])
    return {"accuracy": float(right.mean()), "recall": float(recall), "real_is": InceptionScore().add(logits).value}


def _fit(network: LeNet, images: Images, epochs: int = 12, batch_size: int = 64) -> dict[str, float]:
    """Train with Adam and a one-cycle schedule, deterministically. Return what `_measure` does on held-out images."""
    pixels, labels = images.pixels, images.labels
    assert labels is not None
    test, training = _split(len(labels))
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
    measured = _measure(network, pixels, labels, test)
    torch.set_num_threads(threads)
    return measured

"""The classifier in its cache: keyed by images and labels, trained again if damaged, refused if it learned nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainables.test_tensors import instead
from trainables import notes
from trainables.dataset_identity import identify
from trainables.errors import UserError
from trainables.images import Images, prepare
from trainables.scores import classifier as module
from trainables.scores.classifier import classifier
from trainables.scores.scorer import Scorer


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(notes, "notes", [])
    return notes.notes


def folder_of(root: Path, classes: int, *, shuffled: bool = False, per_class: int = 20) -> Images:
    """Return a prepared folder of classes of one grey level each. shuffled: the classes say nothing."""
    random = np.random.default_rng(0)
    levels = np.repeat(np.arange(classes), per_class)
    labels = random.permutation(levels) if shuffled else levels
    folder = root / "photos"
    for number, (level, label) in enumerate(zip(levels, labels, strict=True)):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        pixels = 255 * level // classes + random.integers(0, 9, (32, 32))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{label}" / f"{number:03}.png")
    return prepare(identify(str(folder), root / "cache"), 32, root / "cache", folder=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Images, Path]:
    root = tmp_path_factory.mktemp("trained")
    images = folder_of(root, 2)
    Scorer(images, root / "scores")
    return images, root


@pytest.fixture
def cached(trained: tuple[Images, Path], tmp_path: Path) -> tuple[Images, Path]:
    """Return a prepared set and its folder of scores: a copy for each test."""
    images, root = trained
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return prepare(images.name, 32, tmp_path / "cache"), tmp_path / "scores"


@pytest.mark.parametrize("kind", ["classifier-*.safetensors", "classifier-*.json", "real-*.safetensors"])
@pytest.mark.parametrize("what", ["half of it", "a pipe"])
def test_a_damaged_file_is_made_again_and_said_once(
    kind: str, what: str, cached: tuple[Images, Path], said: list[str]
) -> None:
    images, cache = cached
    before = Scorer(images, cache)
    (path,) = cache.glob(kind)
    instead(path, what)
    for _ in range(2):
        again = Scorer(images, cache)
        assert (again.features.name, again.real) == (before.features.name, before.real)
        assert np.array_equal(again.reference.statistics[84].mean, before.reference.statistics[84].mean)
    (note,) = said
    assert str(path) in note
    assert note.endswith(("the classifier is trained again", "the statistics are computed again"))


def test_replaced_weights_are_not_taken_for_the_classifier(cached: tuple[Images, Path], said: list[str]) -> None:
    images, cache = cached
    before = classifier(images, cache)
    (path,) = cache.glob("classifier-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert classifier(images, cache).name == before.name
    assert "is not the file that was recorded" in said[0]


def relabelled(images: Images, labels: np.ndarray, classes: list[str]) -> Images:
    """Return a set of the same images in other classes."""
    path = images.path.with_name("corrected-32.npy")
    shutil.copy(images.path, path)
    np.save(path.with_name("corrected-32-labels.npy"), labels.astype(np.int64))
    facts = json.loads(images.path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(
        json.dumps(facts | {"name": "corrected", "classes": classes, "labels_hash": None})
    )
    return prepare("corrected", 32, path.parent)


def test_corrected_labels_give_another_classifier(cached: tuple[Images, Path]) -> None:
    images, cache = cached
    assert images.labels is not None
    corrected = relabelled(images, 1 - images.labels, ["a", "b"])
    assert corrected.hash == images.hash
    assert classifier(corrected, cache).name != classifier(images, cache).name


def test_another_number_of_classes_gives_another_classifier(cached: tuple[Images, Path]) -> None:
    images, cache = cached
    assert images.labels is not None
    third = images.labels.copy()
    third[:5] = 2
    assert classifier(relabelled(images, third, ["a", "b", "c"]), cache).network.head.out_features == 3


def test_the_classifier_of_an_older_store_is_taken_over_for_its_own_labels_alone(
    cached: tuple[Images, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache = cached
    name = classifier(images, cache).name
    for path in list(cache.glob("classifier-*")):
        path.rename(path.with_name(f"classifier-{images.hash}{path.suffix}"))
    assert images.labels is not None
    corrected = relabelled(images, 1 - images.labels, ["a", "b"])
    assert classifier(corrected, cache).name != name
    monkeypatch.setattr(module, "_fit", None)
    assert classifier(images, cache).name == name


def test_a_classifier_that_has_learned_nothing_stops_the_command(tmp_path: Path) -> None:
    images = folder_of(tmp_path, 4, shuffled=True)
    for _ in range(2):  # trained, and from the cache
        with pytest.raises(UserError, match=r"learned nothing: .* chance is 25%; .*--features imagenet"):
            classifier(images, tmp_path / "scores")


def test_always_answering_the_largest_class_is_learning_nothing(
    cached: tuple[Images, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache = cached
    found = classifier(images, cache)
    assert found.recall == 1
    found.recall = 0.5
    with pytest.raises(UserError, match="chance is 50%"):
        module._checked(found, images)


def test_the_accuracy_is_among_the_scores_of_the_real_images(cached: tuple[Images, Path]) -> None:
    assert Scorer(*cached).real["accuracy"] == 1

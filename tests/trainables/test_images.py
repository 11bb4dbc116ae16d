"""Images: any set becomes one uint8 array; an unreadable image is named."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests import faults
from tests.trainables.test_tensors import KINDS, instead
from trainables import dataset_identity, images, notes
from trainables.dataset_identity import identify, registered_name
from trainables.datasets import DATASETS
from trainables.decoding import folder_batches, image_files, open_images, to_square
from trainables.errors import EnvironmentUserError, UserError
from trainables.files import file_hash, write_json
from trainables.images import Images, prepare


def test_the_digits_are_5000_in_10_classes_padded_to_32(digits: Images) -> None:
    assert digits.pixels.shape == (5000, 1, 32, 32)
    assert digits.pixels.dtype == np.uint8
    assert digits.labels is not None
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert digits.pixels[:, :, :2].max() == 0  # the padding
    assert digits.pixels.max() == 255


def test_a_set_is_decoded_once(tmp_path: Path, digits: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digits.path.stat().st_mtime_ns
    monkeypatch.delitem(DATASETS, "mnist5k")  # loading again would fail
    assert prepare("mnist5k", 32, digits.path.parent).hash == digits.hash
    assert digits.path.stat().st_mtime_ns == before


def test_pixels_are_memory_mapped_read_only(digits: Images) -> None:
    with pytest.raises(ValueError, match="read-only"):
        digits.pixels[0, 0, 0, 0] = 1


def test_subfolders_are_classes_and_sizes_may_differ(colour_folder: Path, tmp_path: Path) -> None:
    name = identify(str(colour_folder), tmp_path / "cache")
    images = prepare(name, 32, tmp_path / "cache", folder=colour_folder)
    assert images.pixels.shape == (60, 3, 32, 32)
    assert images.classes == ["class0", "class1"]
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 30 + [1] * 30
    assert images.features == "classifier"
    # Class 0 is red and class 1 blue, so this checks the order of channels and of labels.
    means = images.pixels.mean(axis=(2, 3))
    assert means[0].argmax() == 0
    assert means[59].argmax() == 2


def test_a_folder_without_classes_is_scored_by_inception(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(tmp_path / "flat" / f"{name}.png")
    images = prepare(identify(str(tmp_path / "flat"), tmp_path), 32, tmp_path, folder=tmp_path / "flat")
    assert (images.classes, images.features, images.metric) == (None, "inception", "fid")


def test_greyscale_images_have_one_channel(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for name in ("a", "b"):
        Image.new("L", (40, 50), 7).save(tmp_path / "grey" / f"{name}.png")
    images = prepare(identify(str(tmp_path / "grey"), tmp_path), 64, tmp_path, folder=tmp_path / "grey")
    assert images.pixels.shape == (2, 1, 64, 64)
    assert (images.pixels == 7).all()


def test_the_identity_of_a_folder_depends_on_its_content(colour_folder: Path, tmp_path: Path) -> None:
    before = identify(str(colour_folder), tmp_path)
    assert identify(str(colour_folder), tmp_path) == before
    Image.new("RGB", (9, 9)).save(colour_folder / "class0" / "new.png")
    assert identify(str(colour_folder), tmp_path) != before


def test_a_truncated_image_is_named_and_nothing_is_left_behind(colour_folder: Path, tmp_path: Path) -> None:
    broken = colour_folder / "class1" / "5.png"
    broken.write_bytes(broken.read_bytes()[:200])
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"
    with pytest.raises(UserError, match=r"5\.png cannot be read"):
        prepare(name, 32, cache, folder=colour_folder)
    assert [path.suffix for path in cache.glob("*")] == [".lock"]


def test_a_prepared_folder_is_identified_without_reading_its_files(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = identify(str(colour_folder), tmp_path / "cache")
    prepare(name, 32, tmp_path / "cache", folder=colour_folder)
    hashed: list[Path] = []
    monkeypatch.setattr(dataset_identity, "file_hash", lambda path: hashed.append(path) or "0")
    assert identify(str(colour_folder), tmp_path / "cache") == name
    assert not hashed
    image = next((colour_folder / "class0").glob("*.png"))
    os.utime(image, (1, 1))
    assert identify(str(colour_folder), tmp_path / "cache") != name
    assert len(hashed) == 60


def test_images_that_swap_their_classes_with_equal_sizes_and_times_are_another_set(tmp_path: Path) -> None:
    """As in a folder that came out of an archive: the times are whole seconds, and these files have one size."""
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    for name, level in (("a", 10), ("b", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (32, 32), level + number).save(folder / name / f"{number}.pgm")
            os.utime(folder / name / f"{number}.pgm", (1, 1))
    before = prepare(identify(str(folder), cache), 32, cache, folder=folder)
    (folder / "a" / "0.pgm").rename(tmp_path / "0.pgm")
    (folder / "b" / "0.pgm").rename(folder / "a" / "0.pgm")
    (tmp_path / "0.pgm").rename(folder / "b" / "0.pgm")
    after = prepare(identify(str(folder), cache), 32, cache, folder=folder)
    assert after.name != before.name
    assert after.labelled_hash != before.labelled_hash
    assert identify(before.name, cache) == before.name, "what was trained on the older set stays"


def test_a_label_file_that_keeps_its_size_and_time_is_another_set(tmp_path: Path) -> None:
    save_mnist(tmp_path, 9)
    cache, file = tmp_path / "cache", tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    before = prepare(identify("mnist", cache, tmp_path), 32, cache, data_root=tmp_path)
    content, times = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = prepare(identify("mnist", cache, tmp_path), 32, cache, data_root=tmp_path)
    assert after.name != before.name
    assert after.labelled_hash != before.labelled_hash


def test_an_interrupted_decoding_resumes(colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CHUNK", 10)
    name, whole = identify(str(colour_folder), tmp_path), prepare("photos", 32, tmp_path / "a", folder=colour_folder)

    def interrupt(done: int, total: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(name, 32, tmp_path / "b", folder=colour_folder, tell=interrupt)
    progress: list[int] = []
    resumed = prepare(name, 32, tmp_path / "b", folder=colour_folder, tell=lambda done, total: progress.append(done))
    assert progress == [40, 50, 60]
    assert np.array_equal(resumed.pixels, whole.pixels)
    assert not list((tmp_path / "b").glob("*partial*"))


PREPARE = """
import sys
from pathlib import Path
from trainables.images import prepare
print(prepare("photos", 32, Path(sys.argv[1]), folder=Path(sys.argv[2])).hash)
"""


def test_commands_that_prepare_a_set_at_once_do_not_disturb_each_other(colour_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "cache"), str(colour_folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    hashes = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert set(hashes) == {f"{prepare('photos', 32, tmp_path / 'a', folder=colour_folder).hash}\n"}


def test_a_file_beside_a_folder_is_not_changed(colour_folder: Path, tmp_path: Path) -> None:
    annotations = tmp_path / "photos.json"
    annotations.write_text("precious")
    name = identify(str(colour_folder), tmp_path / "cache")
    assert name.startswith("photos-")
    prepare(name, 32, tmp_path / "cache", folder=colour_folder)
    assert identify(name, tmp_path / "cache") == name
    assert annotations.read_text() == "precious"


def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number in range(2):
        pixels = np.full((40, 40), 0x8000, dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{number}.png")
    images = prepare(identify(str(tmp_path / "deep"), tmp_path), 32, tmp_path / "cache", folder=tmp_path / "deep")
    assert images.pixels.shape == (2, 1, 32, 32)
    assert (images.pixels == 0x80).all()


def test_a_folder_with_one_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "one" / "a.png")
    with pytest.raises(UserError, match="one: 1; a GAN needs more than one"):
        prepare(identify(str(tmp_path / "one"), tmp_path), 32, tmp_path / "cache", folder=tmp_path / "one")


def save_turned(path: Path) -> None:
    """Write a picture whose upper half is white, and whose EXIF says that a camera was turned by 90°."""
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(path, exif=exif, quality=100)


def test_a_turned_photo_is_decoded_upright_and_its_folder_is_another_set(tmp_path: Path) -> None:
    folder, cache = tmp_path / "turned", tmp_path / "cache"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        save_turned(folder / name)
    name = identify(str(folder), cache)
    pixels = prepare(name, 32, cache, folder=folder).pixels[0]
    assert pixels[:, :, 20:].min() > 200, "the right half is white"
    assert pixels[:, :, :12].max() < 50
    digests = "".join(f"{path.name}\0{file_hash(path)}\n" for path in sorted(folder.iterdir()))
    assert name != f"turned-{hashlib.sha256(digests.encode()).hexdigest()[:8]}", "that of a version that ignored EXIF"


def test_a_folder_without_turned_photos_keeps_its_identity(colour_folder: Path, tmp_path: Path) -> None:
    paths = sorted(colour_folder.glob("*/*.png"))
    digests = "".join(f"{path.relative_to(colour_folder)}\0{file_hash(path)}\n" for path in paths)
    expected = f"photos-{hashlib.sha256(digests.encode()).hexdigest()[:8]}"
    assert identify(str(colour_folder), tmp_path / "cache") == expected


def test_a_copied_folder_is_read_once(colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    name = identify(str(colour_folder), cache)
    prepare(name, 32, cache, folder=colour_folder)
    shutil.copytree(colour_folder, tmp_path / "copy" / "photos")
    hashed: list[Path] = []
    monkeypatch.setattr(dataset_identity, "file_hash", lambda path: hashed.append(path) or file_hash(path))
    for _ in range(3):
        assert identify(str(tmp_path / "copy" / "photos"), cache) == name
    assert len(hashed) == 60


def test_listing_costs_at_most_one_stat_a_file(colour_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    for function in ("stat", "lstat"):
        real = getattr(os, function)
        monkeypatch.setattr(os, function, lambda *a, real=real, **b: calls.append(a) or real(*a, **b))
    assert len(image_files(colour_folder)) == 60
    assert len(calls) < 10


def test_links_are_followed(colour_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for number in range(2):
        (tmp_path / "linked" / f"class{number}").symlink_to(colour_folder / f"class{number}")
    images = prepare("linked", 32, tmp_path / "cache", folder=tmp_path / "linked")
    assert images.pixels.shape[0] == 60
    assert images.classes == ["class0", "class1"]


def place_loop(folder: Path) -> None:
    (folder / "class1" / "again").symlink_to(folder)


def place_link_to_nothing(folder: Path) -> None:
    (folder / "class1" / "5.png").unlink()
    (folder / "class1" / "5.png").symlink_to("gone.png")


def place_fifo(folder: Path) -> None:
    os.mkfifo(folder / "class1" / "fifo.png")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (place_loop, "class1/again is a link to a folder above it"),
        (place_link_to_nothing, r"class1/5\.png is a link to nothing"),
        (place_fifo, r"class1/fifo\.png is not a regular file"),
    ],
)
def test_what_would_be_left_out_stops_the_command(
    place: Callable[[Path], None], message: str, colour_folder: Path, tmp_path: Path
) -> None:
    place(colour_folder)
    with pytest.raises(UserError, match=message):
        identify(str(colour_folder), tmp_path / "cache")


def test_a_class_folder_whose_files_are_of_another_kind_stops_the_command(colour_folder: Path, tmp_path: Path) -> None:
    """Its class would be missing in silence. Empty and hidden folders are no classes."""
    for name in ("empty", ".hidden", "class2"):
        (colour_folder / name).mkdir()
    (colour_folder / ".hidden" / "0.avif").write_bytes(b"")
    identify(str(colour_folder), tmp_path / "cache")
    (colour_folder / "class2" / "0.avif").write_bytes(b"")
    with pytest.raises(UserError, match=r"class2 has files, and none of them is an image \(.*\.png.*\); convert them"):
        identify(str(colour_folder), tmp_path / "cache")


def test_a_class_folder_that_cannot_be_read_stops_the_command(colour_folder: Path, tmp_path: Path) -> None:
    """Root can read every folder."""
    line = r"class1 cannot be read \(Permission denied\); correct its permissions"
    refused = faults.failing(os, "scandir", errno.EACCES, when=lambda path: path.endswith("class1"))
    with refused, pytest.raises(UserError, match=line):
        identify(str(colour_folder), tmp_path / "cache")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I", "I;16"])
def test_images_of_every_mode_are_decoded(mode: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new(mode, (50, 40)).save(tmp_path / f"{name}.tiff")
    pixels = [to_square(image, 32, channels) for image in open_images(image_files(tmp_path)) for channels in (1, 3)]
    assert [p.shape for p in pixels] == [(1, 32, 32), (3, 32, 32)] * 2
    assert all(len(batch) == 2 for batch in folder_batches(image_files(tmp_path)))


def save_header(path: Path, side: int) -> None:
    """Write the beginning of a PNG of that many pixels a side."""
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    path.write_bytes(header + zlib.crc32(header[12:]).to_bytes(4, "big") + b"\0\0\0\x01IDAT")


def test_a_decompression_bomb_is_one_line(tmp_path: Path) -> None:
    save_header(tmp_path / "bomb.png", 60_000)
    with pytest.raises(UserError, match=r"bomb\.png cannot be read .*exceeds limit"):
        identify(str(tmp_path), tmp_path / "cache")


def test_what_pillow_thinks_of_an_image_is_not_printed(tmp_path: Path) -> None:
    save_header(tmp_path / "large.png", 10_000)  # Pillow warns of a bomb
    code = "import pathlib, sys; from trainables import decoding; print(decoding.image_size(pathlib.Path(sys.argv[1])))"
    for before, printed in (("import warnings; warnings.filterwarnings = lambda *a, **b: None; ", True), ("", False)):
        command = [sys.executable, "-c", before + code, str(tmp_path / "large.png")]
        warning = {**os.environ, "PYTHONWARNINGS": "default"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=warning)
        assert ("Warning" in done.stderr) == printed, done.stderr


def test_names_that_are_not_text_and_very_long_ones(tmp_path: Path) -> None:
    folder = tmp_path / ("photos" * 40)
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
        shutil.copy(tmp_path / "image.png", os.fsencode(folder) + b"/\xff\n%d.png" % number)
    name = identify(str(folder), tmp_path / "cache")
    assert len(name) < 120
    assert len(prepare(name, 32, tmp_path / "cache", folder=folder).pixels) == 2


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        identify(str(tmp_path), tmp_path)


def test_an_unknown_name_lists_the_registered_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nmist' is unknown.*mnist5k"):
        identify("nmist", tmp_path)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"mnist5k"}))
def test_a_missing_set_names_the_options(name: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUserError, match="--data-root, or add --download"):
        prepare(name, 32, tmp_path, data_root=tmp_path)


def save_mnist(data_root: Path, level: int) -> None:
    """Write small raw files of MNIST in torchvision's layout."""
    raw = data_root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 3), ("t10k", 2)):
        pixels = np.full((n, 28, 28), level, dtype=np.uint8)
        header = (2051).to_bytes(4, "big") + n.to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (2049).to_bytes(4, "big") + n.to_bytes(4, "big") + bytes(range(n))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def test_torchvision_s_layout_is_read(tmp_path: Path) -> None:
    save_mnist(tmp_path, 9)
    images = prepare(identify("mnist", tmp_path, tmp_path), 32, tmp_path / "cache", data_root=tmp_path)
    assert images.pixels.shape == (3, 1, 32, 32)
    assert images.pixels[0, 0, 16, 16] == 9


def test_a_registered_set_with_other_files_is_another_set(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    save_mnist(tmp_path, 9)
    first = identify("mnist", cache, tmp_path)
    assert first.startswith("mnist.")
    assert registered_name(first) == "mnist"
    prepare(first, 32, cache, data_root=tmp_path)
    assert identify("mnist", cache, tmp_path) == identify("mnist", cache) == identify(first, cache) == first
    save_mnist(tmp_path, 90)
    second = identify("mnist", cache, tmp_path)
    assert second != first
    assert prepare(second, 32, cache, data_root=tmp_path).pixels[0, 0, 16, 16] == 90
    assert prepare(first, 32, cache).pixels[0, 0, 16, 16] == 9


def test_a_set_of_a_store_without_recorded_content_keeps_its_name(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    save_mnist(tmp_path, 9)
    write_json(cache / "known" / "mnist.json", {"name": "mnist"})
    assert identify("mnist", cache, tmp_path) == "mnist"


def test_28_by_28_is_padded_with_the_colour_of_its_corner() -> None:
    image = Image.new("RGB", (28, 28), (250, 245, 230))
    image.paste((0, 0, 0), (10, 10, 18, 18))
    pixels = to_square(image, 32, 3)
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0, 0].tolist() == pixels[:, 31, 31].tolist() == [250, 245, 230]
    assert pixels[:, 12, 12].tolist() == [0, 0, 0]


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("suffix", [".npy", "-labels.npy"])
def test_a_damaged_array_is_decoded_again_and_said_once(
    what: str, suffix: str, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "notes", [])
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"
    before = prepare(name, 32, cache, folder=colour_folder)
    pixels, path = before.pixels.copy(), cache / f"{name}-32{suffix}"
    instead(path, what)
    for _ in range(2):
        again = prepare(name, 32, cache, folder=colour_folder)
        assert again == before
        assert np.array_equal(again.pixels, pixels)
        assert np.array_equal(again.labels, np.repeat([0, 1], 30))
    (note,) = notes.notes
    assert str(path) in note
    assert note.endswith(f"{name} is decoded again")


def test_labels_that_are_not_those_of_the_images_are_read_again(colour_folder: Path, tmp_path: Path) -> None:
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"
    prepare(name, 32, cache, folder=colour_folder)
    for wrong in (np.zeros(7, dtype=np.int64), np.full(60, 9), np.full(60, -1), np.repeat([1, 0], 30)):
        np.save(cache / f"{name}-32-labels.npy", wrong)
        assert np.array_equal(prepare(name, 32, cache, folder=colour_folder).labels, np.repeat([0, 1], 30))


def test_an_array_that_was_replaced_after_it_was_decoded_is_decoded_again(colour_folder: Path, tmp_path: Path) -> None:
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"
    before = prepare(name, 32, cache, folder=colour_folder)
    pixels = before.pixels.copy()
    np.save(before.path, 255 - pixels)
    assert np.array_equal(prepare(name, 32, cache, folder=colour_folder).pixels, pixels)


def test_a_damaged_array_without_its_folder_is_an_error_that_asks_for_it(colour_folder: Path, tmp_path: Path) -> None:
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"
    prepare(name, 32, cache, folder=colour_folder).path.write_bytes(b"")
    with pytest.raises(UserError, match="is not decoded at 32×32 yet; name its folder with --dataset"):
        prepare(name, 32, cache)
    assert prepare(name, 32, cache, folder=colour_folder).pixels.shape == (60, 3, 32, 32)


def test_a_damaged_partial_array_is_decoded_from_the_start(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHUNK", 10)
    name, cache = identify(str(colour_folder), tmp_path / "cache"), tmp_path / "cache"

    def interrupt(done: int, total: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(name, 32, cache, folder=colour_folder, tell=interrupt)
    (cache / f"{name}-32.partial.npy").write_bytes(b"half")
    whole = prepare("photos", 32, tmp_path / "a", folder=colour_folder)
    assert np.array_equal(prepare(name, 32, cache, folder=colour_folder).pixels, whole.pixels)

"""A teacher's own images as a data set: the reference of scores where there are no real images."""

from dataclasses import asdict
from pathlib import Path

from trainables.dataset_identity import remember
from trainables.files import file_hash, write_json
from trainables.images import Facts, Images, prepare
from trainables.locks import made_once
from trainables.teacher_images import TeacherImages
from trainables.tensors import write_images

STREAM = "reference"  # of latents that nothing else uses
CHUNK = 256  # images at a time


def prepare_own(
    name: str, size: int, cache: Path, teacher: TeacherImages, count: int, channels: int, features: str
) -> Images:
    """Load a set of `count` images of a teacher from `cache`, rendering it first if needed. name: its identity."""
    path = cache / f"{name}-{size}.npy"
    with made_once(path.with_suffix(".json")) as needed:
        if needed:
            starts = range(0, count, CHUNK)
            images = (teacher.images(STREAM, start, min(CHUNK, count - start)) for start in starts)
            write_images(path, (count, channels, size, size), images)
            facts = Facts(name=name, hash=file_hash(path), metric="fid", features=features, classes=None)
            remember(name, cache, None, cache)
            write_json(path.with_suffix(".json"), asdict(facts))
    return prepare(name, size, cache)

"""Generators of the store: those that sweeper trained, and a student sweep's teacher as its images."""

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sweeper import weights
from sweeper.records import AddedTeacher, Manifest, Teacher, TeacherScores
from sweeper.store import Store
from trainables.errors import SpoiledError, UserError
from trainables.networks import build, memory_format
from trainables.onnx_generator import OnnxGenerator
from trainables.rendering import render
from trainables.scores.protocol import streams
from trainables.scores.scorer import Scorer
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.teacher_images import PairImages, TeacherImages, to_pixels
from trainables.tensors import check_finite, map_array, read_file, read_tensors

ONNX, Z, IMAGES = "generator.onnx", "z.npy", "images.npy"  # files of an added teacher


def load_generator(store: Store, signature: str, updates: int, recorded: str | None = None) -> nn.Module:
    """Load a finished trial's generator in eval mode.

    recorded: the hash of its weights; by default that of its newest final record at these updates.
    Raises UserError if its file is missing, damaged, or not the recorded one.
    """
    trial = store.require(signature)
    hashes = [final.weights for final in trial.finals if final.updates == updates]
    recorded = recorded or (hashes[-1] if hashes else None)
    return load_network(store, signature, "generator", trial.spec.generator, updates, recorded)


def load_network(
    store: Store,
    signature: str,
    name: str,
    shape: GeneratorShape | DiscriminatorShape,
    updates: int,
    recorded: str | None,
) -> nn.Module:
    """Load a network of a finished trial in eval mode. name: generator or discriminator. Raises UserError."""
    network, path = build(shape), store.weights(signature, name, updates)
    try:
        arrays, _ = read_tensors(path, like=network.state_dict(), recorded=recorded)
        if recorded is None:
            check_finite(path, arrays)
    except SpoiledError as error:
        raise weights.with_advice(store, signature, error) from None
    network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device).to(memory_format=memory_format(shape, device)).eval()


def teacher_images(store: Store, teacher: Teacher, side: int) -> TeacherImages:
    """Return the teacher's images at a side. A trained one's weights are loaded when an image is rendered.

    Raises UserError if a file is missing, damaged, or not the recorded one.
    """
    if teacher.sweep is None:
        return _added_images(store.root, teacher, side)

    def rendered(z: np.ndarray) -> np.ndarray:
        return render(load_generator(store, teacher.signature, teacher.updates, teacher.weights), z)

    return TeacherImages(rendered, store.require(teacher.signature).spec.law, side)


@lru_cache(maxsize=2)  # it keeps the generator's session
def _added_images(store_root: Path, teacher: Teacher, side: int) -> TeacherImages:
    store = Store(store_root)
    added = store.taught_by(teacher)
    assert isinstance(added, AddedTeacher)
    return added_images(added, store.teachers.folder(added.name), side)


def added_images(teacher: AddedTeacher, folder: Path, side: int) -> TeacherImages:
    """Return an added teacher's images at a side. folder: of its files. Raises UserError for a damaged file."""
    try:
        for name, recorded in teacher.files.items():
            read_file(folder / name, recorded)
        if teacher.pairs:
            z, images = map_array(folder / Z, np.float32, 2), map_array(folder / IMAGES, np.uint8, 4)
            return PairImages(z, images, teacher.law, teacher.own, side)
    except SpoiledError as error:
        raise UserError(f"{error}; restore it from a backup, or delete {folder} and add the teacher again") from None
    generator = OnnxGenerator(folder / ONNX, teacher.label, threads=torch.get_num_threads())
    return TeacherImages(lambda z: to_pixels(generator(z), teacher.low, teacher.high), teacher.law, side)


def score_images(
    images: TeacherImages, scorer: Scorer, n: dict[str, int], tell: Callable[[float], None]
) -> TeacherScores:
    """Score a teacher's images. Raises UserError for more images than its pairs.

    n: purpose → images per score. tell: takes an estimate of the seconds that are left, after the first score.
    """
    if isinstance(images, PairImages) and max(n.values()) > images.count:
        wanted = " ".join(f"--set n_{name}={images.count}" for name, count in n.items() if count > images.count)
        raise UserError(f"n_report={n['report']}: the teacher has {images.count} pairs to score; add {wanted}")
    scores, left = {}, {purpose: count * len(streams(purpose)) for purpose, count in n.items()}
    for purpose, count in sorted(n.items(), key=lambda item: left[item[0]]):
        begun = time.monotonic()
        scores[purpose] = scorer(images, purpose, count)
        scored = left.pop(purpose)
        if len(scores) == 1:
            tell((time.monotonic() - begun) * sum(left.values()) / scored)
    return TeacherScores(**scores)


def score_teacher(store: Store, sweep: Manifest, scorer: Scorer, tell: Callable[[float], None]) -> None:
    """Add the scores of a student sweep's teacher by the sweep's protocols to its record. Raises UserError.

    tell: as for `score_images`.
    """
    teacher = sweep.teacher
    assert teacher is not None
    known, images = store.taught_by(teacher), teacher_images(store, teacher, sweep.image_size)
    scores = score_images(images, scorer, sweep.n, tell)
    if isinstance(known, AddedTeacher):
        store.teachers.save(dataclasses.replace(known, scores=[*known.scores, scores]))
        return
    finals = [f for f in store.require(teacher.signature).finals if f.updates == teacher.updates]
    store.add(known, final=dataclasses.replace(finals[-1], selection=scores.selection, report=scores.report))

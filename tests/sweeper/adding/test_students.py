"""Students of a teacher that sweeper did not train."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sweeper.adding.command import add
from sweeper.execution import generators
from sweeper.execution.generators import teacher_images
from sweeper.execution.job import bank_of
from sweeper.execution.samples import load_samples
from sweeper.forecast.plan import PlanRequest
from sweeper.forecast.plan import run as plan
from sweeper.request import Request, resolve
from sweeper.results import choice, export, page
from sweeper.results.comparison import Comparison
from sweeper.results.table_text import as_text, caption, cells
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from tests.sweeper.adding.conftest import ALPHA, SHORT, request
from tests.sweeper.adding.generators import LATENTS, onnx_file, pairs_folder
from trainables.errors import UserError
from trainables.onnx_generator import OnnxGenerator
from trainables.teacher_images import averaged

Run = Callable[..., Sweep]


def test_the_record_has_what_can_be_read_from_the_file(added: Path) -> None:
    teacher = Store(added / "runs").teachers.find("big")
    assert teacher is not None
    size = LATENTS * 3 * 64 * 64
    assert (teacher.parameters, teacher.macs, teacher.latent_size) == (size, size, LATENTS)
    assert (teacher.low, teacher.high, teacher.channels, teacher.image_size) == (0, 1, 3, 64)
    assert len(load_samples(added / "runs" / "teachers" / "big" / "samples.png", 99)) == 32


def test_images_are_those_of_the_generator_and_averaged_for_smaller_students(added: Path) -> None:
    store = Store(added / "runs")
    teacher = store.teachers.find("big")
    assert teacher is not None
    whole, half = (teacher_images(store, teacher.pinned, side) for side in (64, 32))
    z = whole.latents("bank", 5, 3)
    expected = np.rint(OnnxGenerator(added / "big.onnx")(z) * 255)
    assert np.array_equal(whole.images("bank", 5, 3), expected)
    squares = expected.reshape(3, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.array_equal(half.images("bank", 5, 3), np.rint(squares))
    assert np.array_equal(averaged(whole.images("bank", 5, 3), 32), half.render(z))


def test_students_of_two_families_are_trained_shown_and_exported(added: Path, run_students: Run) -> None:
    sweep = run_students(added, *ALPHA, "family=dcgan,separable", teacher="big")
    assert sweep.finished()
    assert {record.spec.loss for record in sweep.records.values()} == {"mse", "joint", "imitation"}
    store = Store(added / "runs")
    comparison = Comparison.read(store, None, None)
    teacher, lines = comparison.table.teacher, cells(comparison.table)
    assert teacher is not None
    assert [line[0] for line in lines] == ["dcgan", "separable", "onnx"]
    assert comparison.table.rows[0].ratio == teacher.parameters / comparison.table.rows[0].parameters  # type: ignore[operator]
    assert [line[5] for line in lines[:2]] == ["none trained"] * 2
    assert "--set image_size=64 --set n_report=40 --set latent_size=6 --set latent_law=uniform" in caption(
        comparison.table
    )
    assert "teacher big" in as_text(comparison.table, "md")
    text = page.render_page(comparison, "sweeper report", {})
    assert "interpolation by the teacher, big" in text
    assert "which sweeper did not train" in text
    target = choice.find(store, comparison.table.rows[0].student.signature)  # type: ignore[union-attr]
    export.write(target, added / "out", export.FORMATS, images=0)
    subprocess.run([sys.executable, "load.py"], cwd=added / "out", check=True)
    with Image.open(added / "out" / "made.png") as picture:
        assert picture.size == (16 * 64, 64)


def test_a_smaller_student_is_compared_with_the_averaged_teacher(added: Path, photos: Path, run_students: Run) -> None:
    sweep = run_students(added, "loss=mse", "image_size=32", teacher="big", dataset=str(photos))
    teacher = Comparison.read(Store(added / "runs"), None, None).table.teacher
    assert teacher is not None
    score = teacher.scores["fid"]
    assert score is not None
    assert score["protocol"] == sweep.manifest.protocols["report"]
    assert {record.spec.image_size for record in sweep.records.values()} == {32}


def test_regularly_trained_gans_of_the_same_latents_and_protocol_are_the_controls(
    added: Path, photos: Path, run_students: Run
) -> None:
    regular = ["image_size=64", "latent_size=6", "latent_law=uniform", "n_rung=40", "n_selection=40", "n_report=40"]
    words = [word for word in SHORT if not word.startswith("latents")]
    for law in ("normal", "uniform"):
        fields = {"role": "teacher", "dataset": str(photos), "name": law}
        settings = [*words, *regular, "d_discriminator=1", "lr_discriminator=0.001", f"latent_law={law}"]
        run_students(added, **fields, assignments=settings)
    run_students(added, "loss=mse", teacher="big")
    comparison = Comparison.read(Store(added / "runs"), None, "big-students")
    assert comparison.controls is not None
    assert comparison.controls.manifest.name == "uniform"
    assert comparison.table.rows[0].control is not None
    assert comparison.table.no_controls is None


def test_students_of_pairs_train_on_the_pairs_themselves(tmp_path: Path, photos: Path, run_students: Run) -> None:
    folder = pairs_folder(tmp_path / "pairs")
    add(request(folder, tmp_path / "runs", dataset=str(photos)))
    with pytest.raises(UserError, match="latents=400: pairs has 368 pairs for students; add --set latents=368"):
        run_students(tmp_path, "loss=mse", "latents=400", teacher="pairs")
    sweep = run_students(tmp_path, "loss=mse", teacher="pairs")
    z, images = bank_of(sweep.manifest, Store(tmp_path / "runs"), 64)(np.array([0, 63]))
    assert np.array_equal(z, np.load(folder / "z.npy")[[32, 95]])  # 32 pairs are kept for pictures
    assert np.array_equal(images, np.load(folder / "images.npy")[[32, 95]])
    table = Comparison.read(Store(tmp_path / "runs"), None, None).table
    assert (table.teacher.parameters, table.rows[0].ratio) == (None, None)  # type: ignore[union-attr]
    assert "the teacher is 400 pairs" in caption(table)
    assert [line[2:4] for line in cells(table)][-1] == ["—", "—"]


def test_the_default_space_has_no_more_latents_than_there_are_pairs(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(request(pairs_folder(tmp_path / "pairs"), tmp_path / "runs", dataset=str(photos)))
    resolved = resolve(Request(role="student", store=tmp_path / "runs", teacher="pairs"))
    assert {spec.latents for spec in resolved.specs(channels=3)} == {368}
    assert "pairs has 368 pairs for students: latents=368" in capsys.readouterr().err
    with pytest.raises(UserError, match="loss=adversarial"):
        resolve(Request(role="student", store=tmp_path / "runs", teacher="pairs", assignments=["loss=adversarial"]))


def test_without_real_images_scores_are_against_the_teacher_s_own(tmp_path: Path, run_students: Run) -> None:
    onnx_file(tmp_path / "big.onnx")
    teacher = add(request(tmp_path / "big.onnx", tmp_path / "runs", latent_law="uniform", n=20))
    assert teacher.own == 20
    for loss, why in (("joint", "without a data set of real images"), ("perceptual", "no discriminator")):
        with pytest.raises(UserError, match=f"loss={loss}: big .*{why}"):
            run_students(tmp_path, f"loss={loss}", teacher="big")
    sweep = run_students(tmp_path, *ALPHA, teacher="big")
    assert {record.spec.loss for record in sweep.records.values()} == {"mse", "imitation"}
    table = Comparison.read(Store(tmp_path / "runs"), None, None).table
    assert table.no_controls == "no real images"
    assert "20 images of the teacher's own, of latents that nothing else uses" in caption(table)


def test_the_time_that_scoring_takes_is_said_after_the_first_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first score, of rungs, has 20 images and takes 2 s: 20 of a selection and 3 × 20 of a report are left."""
    clock = iter([0.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(generators, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    onnx_file(tmp_path / "big.onnx")
    add(request(tmp_path / "big.onnx", tmp_path / "runs", latent_law="uniform", n=20))
    assert re.findall("about .* left", capsys.readouterr().err) == ["about 8 s left"]


def test_the_same_generator_is_added_once_and_a_name_is_of_one_generator(added: Path, photos: Path) -> None:
    again = request(added / "big.onnx", added / "runs", dataset=str(photos), latent_law="uniform")
    assert add(again) == Store(added / "runs").teachers.find("big")
    onnx_file(added / "other.onnx", weight=0.5)
    with pytest.raises(UserError, match="has another teacher big already; give this one another --name"):
        add(dataclasses.replace(again, source=str(added / "other.onnx"), name="big"))


def test_a_changed_file_in_the_store_is_not_used(added: Path, run_students: Run) -> None:
    onnx_file(added / "runs" / "teachers" / "big" / "generator.onnx", weight=0.5)
    with pytest.raises(UserError, match=r"generator\.onnx is not the file that was recorded"):
        run_students(added, "loss=mse", teacher="big")


def test_only_sizes_that_average_to_whole_squares_are_students(added: Path) -> None:
    asked = Request(role="student", store=added / "runs", teacher="big", assignments=["image_size=128"])
    with pytest.raises(UserError, match="image_size=128: of the teacher's 64 students have 32, 64"):
        resolve(asked)


def test_the_plan_counts_the_teacher_s_forward_pass(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Request(role="student", store=added / "runs", teacher="big", assignments=["loss=mse", "d=1"])
    plan(PlanRequest(sweep=asked, gpus=1, gpu_type="A100", throughputs=None, price=None, as_json=False))
    assert "of this is for rendering the teacher's images" in capsys.readouterr().out

"""An exported generator, and its choice."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from sweeper.execution.generators import load_generator
from sweeper.execution.job import scorer_of
from sweeper.records import ONNX_FORMATS, Teacher
from sweeper.results import choice, export, onnx_file, rescoring
from sweeper.results.comparison import Comparison
from sweeper.results.latency import Conditions
from sweeper.results.lines import flat
from sweeper.store import Store
from tests import faults
from tests.conftest import Done
from tests.sweeper.stores import student, sweep, teacher, trial
from trainables.errors import NotYetError, UserError
from trainables.files import file_hash, owner_mark
from trainables.latents import latents
from trainables.rendering import render

FINAL = {"selection": (20.0, 8.0), "report": (21.0, 8.1)}


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the exported student of d = 1 in all formats, and seven samples."""
    folder = tmp_path_factory.mktemp("exported") / "mine"
    export.write(choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1), folder, export.FORMATS, 7)
    return folder


def spec_of(exported: Path) -> dict[str, Any]:
    return dict(json.loads((exported / "spec.json").read_text()))


def test_onnx_reproduces_torch_s_output_for_any_batch_size(exported: Path, finished: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "generator.onnx")
    manifest = Store(finished / "runs").sweep("mnist5k-students")
    assert manifest is not None
    generator = load_generator(Store(finished / "runs"), spec_of(exported)["signature"], manifest.updates).cpu()
    for count in (1, 3, 9):
        z = latents("any", 0, count)
        with torch.inference_mode():
            expected = generator(torch.from_numpy(z)).numpy()
        (images,) = session.run(None, {"z": z})
        assert images.shape == (count, 1, 32, 32)
        assert np.abs(images - expected).max() <= onnx_file.TOLERANCE
        assert np.abs(expected).max() > 0.01, "an output of zeros would pass"


def test_the_weights_equal_the_store_s_and_their_metadata_has_the_spec(exported: Path, finished: Path) -> None:
    spec = spec_of(exported)
    (original,) = (finished / "runs" / "trials" / spec["signature"]).glob("generator-*.safetensors")
    actual, expected = load_file(exported / "generator.safetensors"), load_file(original)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in actual)
    with safe_open(exported / "generator.safetensors", "pt") as file:
        assert json.loads(file.metadata()["spec"]) == spec


def test_the_script_requires_neither_sweeper_nor_torch(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "elsewhere")
    script = (folder / "load.py").read_text()
    assert len([line for line in script.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'sweeper', 'trainables'])); "
    program = blocked + f"import runpy; runpy.run_path({str(folder / 'load.py')!r})"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "made.png") as picture:
        assert picture.size == (16 * 32, 32)
        assert np.asarray(picture).std() > 0


@pytest.mark.parametrize("name", ["generator-fp16.onnx", "generator-int8.onnx"])
def test_the_script_takes_the_name_of_another_file(exported: Path, tmp_path: Path, name: str) -> None:
    subprocess.run([sys.executable, exported / "load.py", name], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "made.png") as picture:
        assert np.asarray(picture).std() > 0


def test_fewer_bits_are_scored_again_once_and_kept(
    exported: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison.read(Store(finished / "runs"), None, None)
    target, sweep = choice.choose(comparison, 1), comparison.manifest
    kept = {record.format: record for record in comparison.store.exports(target.spec.signature)}
    assert list(kept) == list(ONNX_FORMATS)
    scorer = scorer_of(sweep.dataset, sweep.image_size, sweep.features, comparison.store.root)
    for name, record in kept.items():
        file = exported / onnx_file.FILES[name]
        assert (record.file, record.bytes) == (file_hash(file), file.stat().st_size)
        if name == "onnx":
            assert record.report == target.final.report
        else:
            assert record.report == scorer(onnx_file.OnnxGenerator(file), "report", sweep.n["report"])
            assert record.report != target.final.report
    lines = [line["format"] for line in flat(comparison.table)]
    assert [name for name in lines if name] == list(ONNX_FORMATS)

    def fail(*_: object) -> None:
        raise AssertionError("it was scored before")

    monkeypatch.setattr(rescoring, "_report", fail)
    export.write(target, tmp_path / "again", ("onnx-int8",), 0)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "README.md",
        "export.json",
        "generator-int8.onnx",
        "load.py",
        "spec.json",
    ]


def test_a_refused_int8_model_leaves_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    monkeypatch.setattr(onnx_file, "_to_int8", lambda source, law, path, batch: path.write_bytes(b"no model"))
    with pytest.raises(UserError, match="onnx-int8: ONNX Runtime refuses the model"):
        export.write(target, tmp_path / "out", ("onnx", "onnx-int8"), 0)
    assert not list((tmp_path / "out").iterdir())


def test_a_batch_makes_static_files_and_a_script_that_uses_them(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path, ("onnx",), 0, batch=3, conditions=Conditions(batch=3))
    assert onnxruntime.InferenceSession(tmp_path / "generator.onnx").get_inputs()[0].shape == [3, 100]
    subprocess.run([sys.executable, tmp_path / "load.py"], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "made.png") as picture:
        assert picture.size == (18 * 32, 32)
    assert "exactly 3 images at a time" in (tmp_path / "README.md").read_text()


def test_samples_are_of_the_first_report_latents(exported: Path, finished: Path) -> None:
    files = sorted((exported / "samples").glob("*.png"))
    assert [file.name for file in files] == [f"{i}.png" for i in range(7)]
    store = Store(finished / "runs")
    manifest = store.sweep("mnist5k-students")
    assert manifest is not None
    generator = load_generator(store, spec_of(exported)["signature"], manifest.updates)
    expected = render(generator, latents("report/0", 0, 7))
    assert all((np.asarray(Image.open(f)) == pixels[0]).all() for f, pixels in zip(files, expected, strict=True))


def test_an_export_replaces_an_earlier_one_in_the_folder(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path, ("safetensors", "onnx"), 12)
    export.write(target, tmp_path, ("safetensors",), 3)
    expected = ["README.md", "export.json", "generator.safetensors", "samples", "spec.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == expected
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["0.png", "1.png", "2.png"]
    assert "onnx" not in (tmp_path / "README.md").read_text().lower()
    export.write(target, tmp_path, ("safetensors",), 0)
    assert not list((tmp_path / "samples").iterdir())


def test_an_export_replaces_only_what_an_export_wrote(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    own = tmp_path / "own"
    (own / "samples").mkdir(parents=True)
    (own / "samples" / "1.png").write_bytes(b"my picture")
    with pytest.raises(UserError, match="has files that no export wrote; name a new folder"):
        export.write(target, own, ("safetensors",), 3)
    assert [path.name for path in own.rglob("*") if path.is_file()] == ["1.png"]

    folder = tmp_path / "exported"
    export.write(target, folder, ("safetensors",), 3)
    (folder / "notes.txt").write_text("mine")
    export.write(target, folder, ("safetensors",), 1)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "README.md").write_text("my card")
    with pytest.raises(UserError, match=r"README\.md was changed after its export"):
        export.write(target, folder, ("safetensors",), 1)
    assert (folder / "README.md").read_text() == "my card"


def test_a_failed_export_leaves_the_earlier_one(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path, ("safetensors",), 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with faults.failing(export, "_write_samples", errno.ENOSPC), pytest.raises(OSError, match="No space"):
        export.write(target, tmp_path, ("safetensors",), 4)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_an_export_that_was_killed_while_it_replaced_another_can_be_repeated(
    moved: int, finished: Path, tmp_path: Path
) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path, ("safetensors",), 2)
    with faults.killed_after(Path, "replace", moved):
        export.write(target, tmp_path, ("safetensors",), 1)
    export.write(target, tmp_path, ("safetensors",), 1)
    expected = ["README.md", "export.json", "generator.safetensors", "samples", "spec.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == expected
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["0.png"]


def test_an_export_removes_what_a_killed_one_has_left(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = owner_mark().replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    (tmp_path / f".export-{name}abcdef").mkdir()
    export.write(target, tmp_path, ("safetensors",), 1)
    assert not list(tmp_path.glob(".export-*"))


def test_a_link_that_leads_nowhere_is_not_replaced(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    export.write(target, tmp_path, ("safetensors",), 1)
    (tmp_path / "samples" / "1.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"1\.png was not written by an export"):
        export.write(target, tmp_path, ("safetensors",), 2)
    assert (tmp_path / "samples" / "1.png").is_symlink()


def test_a_listing_may_not_name_files_elsewhere(finished: Path, tmp_path: Path) -> None:
    target = choice.choose(Comparison.read(Store(finished / "runs"), None, None), 1)
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / export.LISTING).write_text('{"../precious.txt": "x"}')
    with pytest.raises(UserError, match="not in its folder"):
        export.write(target, tmp_path / "folder", ("safetensors",), 0)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_the_card_states_scores_protocol_data_and_latency(exported: Path, finished: Path) -> None:
    card = (exported / "README.md").read_text()
    comparison = Comparison.read(Store(finished / "runs"), None, None)
    (student,) = [row.student for row in comparison.table.rows if row.student]
    for score in student.scores.values():
        assert score is not None
        assert f"{score['mean']:.2f} ± {score['std']:.2f}" in card
    protocol = comparison.manifest.protocols["report"]
    for expected in (protocol, "mnist5k", " ms per image (torch ", "onnxruntime ", "generator-int8.onnx |"):
        assert expected in card
    assert "{{" not in card
    data = ModelCard(card).data
    assert (data.license, data.pipeline_tag, data.datasets) == (
        "unknown",
        "unconditional-image-generation",
        ["ylecun/mnist"],
    )
    found = {result.metric_name: result for result in data.eval_results}
    assert found["FID"].metric_value == pytest.approx(student.scores["fid"]["mean"], abs=1e-4)
    assert found["FID, onnx-int8"].metric_args["protocol"] == protocol
    assert "|  |" not in card


def test_the_command_writes_into_a_folder_named_after_the_generator(
    finished: Path, sweeper: Any, tmp_path: Path
) -> None:
    words = ["--store", str(finished / "runs"), "--d", "1", "--format", "safetensors"]
    done: Done = sweeper("export", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / "exported" / "mnist5k-student-d1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "export.json",
        "generator.safetensors",
        "spec.json",
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with students of d = 2 outside the tolerance, of d = 4 within it (two seeds), and a pruned one."""
    store = Store(tmp_path)
    best = trial(store, teacher(16), 1.0, {"selection": (20.0, 9.0), "report": (21.0, 9.0)})
    sweep(store, "teacher", [best])
    finals = {(2, 0): 5.0, (4, 0): 8.7, (4, 1): 8.9}
    trials = [
        trial(store, student(d, seed=s), 9.0, {"selection": (20.0, i), "report": (21.0, i)})
        for (d, s), i in finals.items()
    ]
    pruned = trial(store, student(2, lr=0.5), 99.0)
    sweep(store, "student", [*trials, pruned], Teacher(best, 30, "w", "mnist5k-teachers", "best"))
    return store


def test_the_default_is_the_best_seed_of_the_limit_of_compression(store: Store) -> None:
    target = choice.choose(Comparison.read(store, None, None), None)
    assert (target.spec.d, target.spec.seed, target.name) == (4, 1, "mnist5k-student-d4")


def test_a_width_or_a_signature_selects_another(store: Store) -> None:
    comparison = Comparison.read(store, None, None)
    assert choice.choose(comparison, 2).spec == student(2, seed=0)
    assert choice.find(store, teacher(16).signature[:6]).name == "mnist5k-gan-d16"


def test_an_error_names_the_available_trials(store: Store) -> None:
    comparison = Comparison.read(store, None, None)
    with pytest.raises(UserError, match="--d 8: no student of this width has finished; finished: d=2, d=4"):
        choice.choose(comparison, 8)
    with pytest.raises(NotYetError, match="has not finished, it is pruned"):
        choice.find(store, student(2, lr=0.5).signature)
    with pytest.raises(UserError, match="--trial zzzz matches 0 trials"):
        choice.find(store, "zzzz")
    without = replace(comparison, table=replace(comparison.table, limit=None))
    with pytest.raises(UserError, match="no student is within the tolerance of the teacher; add --d 4"):
        choice.choose(without, None)


def test_a_trial_of_several_sweeps_is_found_by_its_signature(store: Store) -> None:
    manifest = store.sweep("mnist5k-students")
    assert manifest is not None
    sweep(store, "student", manifest.signatures[:1], manifest.teacher, name="again")
    assert choice.find(store, student(4, seed=1).signature).spec.seed == 1


def test_without_students_the_error_names_the_command_to_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep(store, "teacher", [trial(store, teacher(16), 1.0, FINAL)])
    with pytest.raises(NotYetError, match="run `sweeper run students --teacher best` first"):
        choice.choose(Comparison.read(store, None, None), None)


def test_an_export_calls_nobody_and_leaves_nothing_in_the_home_folder(
    finished: Path, sweeper: Callable[..., Done], tmp_path: Path
) -> None:
    """ONNX Runtime would write an id of the machine into the home folder, and look up the host of its maker."""
    home = tmp_path / "home"
    home.mkdir()
    clean = {"HOME": str(home), "XDG_CACHE_HOME": "", "PYTHONPROFILEIMPORTTIME": "1"}
    words = ["export", "--store", str(finished / "runs"), "--d", "1"]
    weights = sweeper(*words, "--format", "safetensors", "-o", str(tmp_path / "weights"), cwd=tmp_path, **clean)
    assert weights.code == 0, weights.err
    assert "onnxruntime" not in weights.err
    formats = ",".join(export.FORMATS)
    everything = sweeper(*words, "--format", formats, "-o", str(tmp_path / "all"), cwd=tmp_path, **clean)
    assert everything.code == 0, everything.err
    assert "onnxruntime" in everything.err
    assert not [path for path in home.rglob("*") if "Microsoft" in str(path) or "onnxruntime" in str(path)]

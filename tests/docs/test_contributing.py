"""The plug-in of CONTRIBUTING, word for word: train with its loss, family, data set and space; report; export."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sweeper.store import Store
from tests.conftest import Done

pytestmark = pytest.mark.long
PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = PAGE.read_text().partition("## Extending it")[2].partition("## Adding one")[0]
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (sweeper .+)$", SECTION, re.MULTILINE)]
Call = Callable[..., Done]


def plugin_text() -> str:
    """Return the page's blocks of Python as one file."""
    return "\n\n".join(re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sweeper: Call) -> Path:
    """Return a folder in which the page's commands have run. Starts Ray twice."""
    folder = tmp_path_factory.mktemp("contributing")
    (folder / "mine.py").write_text(plugin_text())
    for words in COMMANDS:
        if "SIGNATURE" in words:
            words = [word.replace("SIGNATURE", upsampling_student(folder, sweeper)) for word in words]
        done = sweeper(*words, cwd=folder)
        assert done.code == 0, done.err
    return folder


def upsampling_student(folder: Path, sweeper: Call) -> str:
    """Return the signature of the best student of the family upsampling."""
    return str(next(r["student"]["signature"] for r in table(folder, sweeper)["rows"] if r["family"] == "upsampling"))


def table(folder: Path, sweeper: Call) -> dict:  # type: ignore[type-arg]
    """Return the table as JSON."""
    done = sweeper("table", "--plugin", "mine.py", "--format", "json", cwd=folder)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_the_section_has_the_expected_commands() -> None:
    assert [words[0] for words in COMMANDS] == ["run", "run", "table", "report", "export"]


def test_the_family_is_in_the_table_with_its_own_parameter_count(folder: Path, sweeper: Call) -> None:
    rows = table(folder, sweeper)["rows"]
    sizes = {(row["family"], row["d"]): row["parameters"] for row in rows}
    assert sizes["dcgan", 2] == 13_487
    assert sizes["upsampling", 2] != sizes["dcgan", 2]
    printed = sweeper("table", "--plugin", "mine.py", "--format", "md", cwd=folder).out
    assert f"| upsampling | 2 | {sizes['upsampling', 2]:,} |" in printed


def test_the_loss_was_trained_at_every_shape(folder: Path, sweeper: Call) -> None:
    store = Store(folder / "runs")
    students = [m for m in store.sweeps() if m.role == "student"]
    records = [json.loads((folder / f"runs/trials/{s}/record.json").read_text()) for s in students[0].signatures]
    trained = {(r["spec"]["loss"], r["spec"].get("family", "dcgan")) for r in records if r["rungs"]}
    assert trained == {(loss, family) for loss in ("mse", "feature_match") for family in ("dcgan", "upsampling")}
    assert all(r["spec"]["plugin"].startswith("mine-") for r in records if r["spec"]["loss"] == "feature_match")
    assert students[0].plugins == [p.name for p in (folder / "runs" / "plugins").iterdir()]


def test_page_and_export_name_the_family(folder: Path) -> None:
    (page,) = (folder / "runs" / "reports").glob("*.html")
    assert "upsampling d=2" in page.read_text()
    (exported,) = (folder / "exported").iterdir()
    assert "upsampling" in (exported / "README.md").read_text()
    assert (exported / "generator.onnx").exists()


def test_without_the_plug_in_other_sweeps_are_listed_and_the_message_names_the_copy(
    folder: Path, sweeper: Call
) -> None:
    status = sweeper("status", cwd=folder)
    assert status.code == 0
    assert "-students" in status.out
    assert "add --plugin" in status.out
    done = sweeper("table", cwd=folder)
    assert (done.code, done.err.count("\n")) == (2, 1)
    copy = done.err.partition("--plugin ")[2].strip()
    assert Path(copy).read_text() == (folder / "mine.py").read_text()


def test_an_edited_plug_in_makes_new_trials(folder: Path, sweeper: Call) -> None:
    edited = folder / "edited" / "mine.py"
    edited.parent.mkdir(exist_ok=True)
    edited.write_text(plugin_text().replace("def stripes", "def other_stripes"))
    words = ["plan", "students", "--plugin", str(edited), "--space", str(edited), "--gpu-type", "A100", "--json"]
    done = sweeper(*words, cwd=folder)
    assert done.code == 0, done.err
    assert json.loads(done.out)["done_rungs"] < 8


def test_a_mistake_in_a_plug_in_is_one_line(tmp_path: Path, sweeper: Call) -> None:
    mistakes = {
        "typo.py": ("from trainables.objectives import loss\n@loss\ndef typo(fake, targte): ...", "takes 'targte'"),
        "taken.py": ("from trainables.objectives import loss\n@loss\ndef mse(fake): ...", "is registered by sweeper"),
        "broken.py": ("1 / 0", "ZeroDivisionError"),
    }
    for name, (text, message) in mistakes.items():
        (tmp_path / name).write_text(text)
        done = sweeper("status", "--plugin", name, cwd=tmp_path)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
    done = sweeper("status", "--plugin", "nowhere.py", cwd=tmp_path)
    assert "there is no such file" in done.err
    (tmp_path / "space.py").write_text("from trainables.objectives import loss\n@loss\ndef own(fake): ...")
    done = sweeper("run", "teachers", "--dataset", "mnist5k", "--space", "space.py", cwd=tmp_path)
    assert "name that file with --plugin, too" in done.err


def test_the_exported_network_needs_no_plug_in(folder: Path) -> None:
    import onnxruntime

    (exported,) = (folder / "exported").iterdir()
    session = onnxruntime.InferenceSession(exported / "generator.onnx", providers=["CPUExecutionProvider"])
    images = session.run(None, {"z": torch.randn(3, 100).numpy()})[0]
    assert images.shape == (3, 1, 32, 32)

"""The command line: exit codes, one line per mistake, nothing half-written, help in panels, completion."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from sweeper import __version__, choices
from sweeper.cli import app
from sweeper.request import Request
from sweeper.results import export, table_text
from tests.conftest import TINY, Done
from trainables.files import write_json
from trainables.spec import PRECISIONS, ROLES

Call = Callable[..., Done]


def mistake(done: Done, code: int, *said: str) -> None:
    assert (done.code, done.out) == (code, ""), done
    assert len(done.err.strip().splitlines()) == 1, done.err
    for text in said:
        assert text in done.err


def written(store: Path) -> list[Path]:
    """Return what a command wrote into the folders of a store, apart from locks."""
    return [path for path in store.glob("*/*") if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "students"], 4, ["run `sweeper run teachers --dataset mnist5k` first"]),
        (["run", "teachers"], 2, ["needs a data set", "--dataset mnist5k"]),
        (["run", "teachers", "--dataset", "nmist"], 2, ["'nmist'", "mnist5k"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "d=3.5"], 2, ["d=3.5", "--set d=2,4,8"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "lr=abc"], 2, ["lr=abc", "--set lr="]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "widht=3"], 2, ["'widht'", "the keys are"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "batch_size=0"], 2, ["batch_size=0"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "image_size=32,64"], 2, ["one sweep per image_size"]),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "latent_size=8,9"], 2, ["one sweep per latent_size"]),
        (["run", "teachers", "--dataset", "mnist5k", "--space", "no.py"], 2, ["no.py"]),
        (["run", "teachers", "--dataset", "celeba"], 5, ["data", "--download"]),
        (["table"], 4, ["sweeper run teachers"]),
        (["run", "teachers", "--dataset", "mnist5k", "--name", "a/b"], 2, ["--name a/b"]),
        (
            ["run", "teachers", "--dataset", "mnist5k", "--store", "/proc/x"],
            2,
            ["/proc/x cannot be written", "--store"],
        ),
        (["run", "teachers", "--dataset", "mnist5k", "--set", "rungs=-1"], 2, ["rungs=-1"]),
        (["score", "nope", "--against", "mnist5k"], 2, ["nope is not a folder"]),
        (["run"], 2, ["'ROLE'", "teachers, students", "see `sweeper run --help`"]),
        (["run", "cats"], 2, ["'cats'", "see `sweeper run --help`"]),
        (["run", "teachers", "--eta", "1"], 2, ["'--eta'", "see `sweeper run --help`"]),
        (["wandb", "report", "--nmae", "x"], 2, ["--nmae", "see `sweeper wandb report --help`"]),
        (["run", "teachers", "--dataset", "a\nb"], 2, ["a\\nb", "cannot be printed"]),
        (["table", "--store", "\udcff"], 2, ["\\udcff", "cannot be printed"]),
        (["table", "--store", "a" * 5000], 2, ["File name too long"]),
        (["tabel"], 2, ["'tabel'", "'table'", "see `sweeper --help`"]),
    ],
)
def test_a_mistake_is_one_line_with_the_value_and_what_to_type(
    words: list[str], code: int, said: list[str], sweeper: Call, tmp_path: Path
) -> None:
    mistake(sweeper(*words, cwd=tmp_path), code, *said)
    assert not written(tmp_path / "runs"), "nothing half-written"


def test_alpha_outside_0_to_1_is_one_line(sweeper: Call, finished: Path) -> None:
    mistake(
        sweeper("run", "students", "--set", "alpha=2", "--name", "new", cwd=finished), 2, "alpha=2 is outside [0, 1]"
    )
    assert not (finished / "runs" / "sweeps" / "new.json").exists()


def test_an_empty_folder_and_a_broken_image_are_one_line(sweeper: Call, tmp_path: Path, colour_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    mistake(sweeper("run", "teachers", "--dataset", "empty", cwd=tmp_path), 2, "empty holds no image")
    broken = colour_folder / "class0" / "3.png"
    broken.write_bytes(broken.read_bytes()[:150])
    mistake(sweeper("run", "teachers", "--dataset", "photos", cwd=tmp_path), 2, "3.png cannot be read")
    assert not written(tmp_path / "runs"), "nothing half-written"
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_images_without_classes_name_the_weights_file(sweeper: Call, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    done = sweeper("run", "teachers", "--dataset", "flat", cwd=tmp_path, TORCH_HOME=str(tmp_path / "torch"))
    mistake(done, 5, str(tmp_path / "torch"), "pt_inception-2015-12-05-6726825d.pth")
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_a_store_of_another_version_is_one_line(sweeper: Call, tmp_path: Path) -> None:
    write_json(tmp_path / "runs" / "store.json", {"version": 99})
    for words in (["run", "teachers", "--dataset", "mnist5k"], ["table"], ["status"]):
        mistake(sweeper(*words, cwd=tmp_path), 2, "version 99", "--store")


def test_help_is_quick_and_imports_no_heavy_library(sweeper: Call, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert sweeper("--help", cwd=tmp_path).code == 0
    assert time.monotonic() - begun < 1.5  # a tenth of a second on an idle machine; other tests may run beside this one
    heavy = ("torch", "ray", "wandb", "pandas", "onnxruntime", "plotly")
    code = f"""
import sys
from sweeper.__main__ import main
sys.argv = ["sweeper", "--help"]
try:
    main()
finally:
    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_command_run_is_imported_without_torch_and_ray() -> None:
    code = "import sys, sweeper.run; print([m for m in ('torch', 'ray', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_printed(sweeper: Call, tmp_path: Path) -> None:
    assert sweeper("--version", cwd=tmp_path) == Done(0, f"sweeper {__version__}\n", "")


@pytest.mark.parametrize("words", [["--version"], ["run", "--help"], ["status"], ["table"], ["run", "cats"]])
def test_the_module_does_what_the_console_script_does(words: list[str], sweeper: Call, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweeper", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert Done(done.returncode, done.stdout, done.stderr) == sweeper(*words, cwd=tmp_path)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its name, groups included."""
    waiting: list[tuple[str, Any]] = [("sweeper", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [(f"{name} {word}", below) for word, below in getattr(command, "commands", {}).items()]


COMMANDS = dict(commands())
LEAVES = [name for name, command in COMMANDS.items() if not hasattr(command, "commands")]


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_is_in_a_panel_and_says_what_it_takes(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert parameter.rich_help_panel, parameter.name
        assert parameter.help.endswith("."), parameter.name
        assert parameter.metavar or parameter.is_flag, parameter.name
        for choice in parameter.type_descriptor.choices or ():
            assert choice.value in parameter.help


def test_every_command_is_in_a_panel() -> None:
    assert all(command.rich_help_panel for command in COMMANDS["sweeper"].commands.values())


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [80, 100])
def test_help_is_plain_text_that_fits_the_terminal(name: str, width: int) -> None:
    with COMMANDS[name].make_context(name, [], resilient_parsing=True, terminal_width=width) as context:
        lines = COMMANDS[name].get_help(context).splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(lines).isascii()
    assert "Options:" in lines  # --help at least


@pytest.mark.parametrize(
    ("offered", "registered"),
    [
        (choices.Role, [f"{role}s" for role in ROLES]),
        (choices.Precision, PRECISIONS),
        (choices.TableFormat, ["rich", *table_text.STYLES]),
        (choices.ExportFormat, export.FORMATS),
    ],
)
def test_the_choices_of_the_command_line_are_those_of_the_registry(
    offered: type[StrEnum], registered: list[str]
) -> None:
    assert [choice.value for choice in offered] == list(registered)


def test_defaults_of_the_command_line_are_those_of_a_request() -> None:
    given = Request(role="teacher")
    for parameter in COMMANDS["sweeper run"].params:
        if hasattr(given, parameter.name) and parameter.name not in ("role", "assignments"):
            assert parameter.default == getattr(given, parameter.name), parameter.name


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sweeper ", set(COMMANDS["sweeper"].commands)),
        ("sweeper run ", {"teachers", "students"}),
        ("sweeper run teachers --precision ", set(PRECISIONS)),
        ("sweeper table --fo", {"--format"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(
    typed: str, completed: set[str], sweeper: Call, tmp_path: Path
) -> None:
    word = str(len(typed.split(" ")) - 1)
    done = sweeper(cwd=tmp_path, _SWEEPER_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=word)
    assert set(done.out.split()) == completed


def test_the_completion_of_a_named_shell_is_shown(sweeper: Call, tmp_path: Path) -> None:
    undetected = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = sweeper("--show-completion", "bash", cwd=tmp_path, **undetected)
    assert (done.code, done.err) == (0, "")
    assert "_SWEEPER_COMPLETE=complete_bash" in done.out


@pytest.mark.parametrize("package", ["sweeper", "trainables", "search_spaces"])
def test_packages_are_marked_as_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


def test_a_space_of_one_s_own_is_used(sweeper: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sweeper.spaces import Space\nTEACHERS = Space(grids=[{'d': [1], 'lr': -1}], updates=1, first_rung=1)\n"
    )
    done = sweeper("run", "teachers", "--dataset", "mnist5k", "--space", "mine.py", *TINY, cwd=tmp_path)
    mistake(done, 2, "lr=-1")

"""What cannot be a teacher is one line, and nothing of it stays in the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.adding.command import add
from tests.sweeper.adding.conftest import request
from tests.sweeper.adding.generators import onnx_file, pairs_folder
from trainables.errors import UserError

Make = Callable[[Path], Path]
UNIFORM = {"latent_law": "uniform"}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no file": (lambda f: f / "big.onnx", UNIFORM, "does not exist; name an .onnx or .pt2 file"),
    "a device": (lambda f: Path("/dev/null"), UNIFORM, "/dev/null is neither a file nor a folder; name an .onnx"),
    "no model": (lambda f: written(f / "big.onnx", b"not a model"), UNIFORM, "is no ONNX file"),
    "no program": (lambda f: written(f / "big.pt2", b"not a program"), UNIFORM, "is no torch.export program"),
    "law": (lambda f: onnx_file(f / "big.onnx"), {}, "the law of its latents cannot be read; say --latent-law normal"),
    "bound": (lambda f: onnx_file(f / "big.onnx"), {"latent_law": "truncated"}, "--latent-bound is for truncated"),
    "batch": (lambda f: onnx_file(f / "big.onnx", batch=1), UNIFORM, "has a fixed batch of 1"),
    "outputs": (lambda f: onnx_file(f / "big.onnx", outputs=2), UNIFORM, r"has 2 outputs \(images, shaped\)"),
    "class": (lambda f: onnx_file(f / "big.onnx", label=True), UNIFORM, "takes a class as its input c; fix it"),
    "no class": (lambda f: onnx_file(f / "big.onnx"), {**UNIFORM, "label": 3}, "--label 3: .* takes no class"),
    "NaN": (lambda f: onnx_file(f / "big.onnx", last="Log"), UNIFORM, "NaN or infinite values"),
    "range": (lambda f: onnx_file(f / "big.onnx", last="Identity"), UNIFORM, "say their range with --range=-1,1"),
    "wrong range": (lambda f: onnx_file(f / "big.onnx"), {**UNIFORM, "value_range": "0,9"}, "--range 0,9: it is one"),
    "z": (lambda f: onnx_file(f / "big.onnx"), {**UNIFORM, "latent_size": 7}, "--latent-size 7: .* takes z of 6"),
    "side": (lambda f: onnx_file(f / "big.onnx", side=28), UNIFORM, "images of 28×28; students learn from square ones"),
    "channels": (lambda f: onnx_file(f / "big.onnx", channels=4), UNIFORM, "makes images of 4 channels"),
    "counts": (
        lambda f: pairs_folder(f / "pairs", z=np.zeros((9, 4), dtype=np.float32)), UNIFORM,
        "has 9 latents in z.npy and 400 images",
    ),
    "no z": (lambda f: f / "empty", UNIFORM, "z.npy is missing; a folder of pairs has"),
    "law of pairs": (
        lambda f: pairs_folder(f / "pairs", z=np.full((400, 4), 3, dtype=np.float32)), UNIFORM, "has 3, beyond ±1",
    ),
    "few pairs": (lambda f: pairs_folder(f / "pairs", count=100), UNIFORM, "has 100 pairs; a teacher needs at least"),
    "scored pairs": (lambda f: pairs_folder(f / "pairs"), {"n": 390}, "--n 390: it has 184 pairs to score"),
    "name": (lambda f: onnx_file(f / "big.onnx"), {**UNIFORM, "name": "best"}, "--name best: use at most"),
    "no weights": (lambda f: Path("package.module:make"), UNIFORM, "needs --weights FILE.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_teacher_is_one_line_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, changes, message = REFUSED[case]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as raised:
        add(request(make(tmp_path), tmp_path / "runs", **changes))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("runs/teachers/*"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "does not make a generator: RuntimeError: no GPU here"),
        ("exits", "does not make a generator: SystemExit: 3"),
        ("number", "makes a int; it must return a torch.nn.Module"),
        ("other", "--weights .* is not of this network: bias is unknown"),
        ("missing", "does not make a generator: AttributeError"),
    ],
)
def test_the_user_s_own_code_can_fail_in_one_line(
    function: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save_file

    code = "import sys, torch\ndef raises(): raise RuntimeError('no GPU\\nhere')\ndef exits(): sys.exit(3)\n"
    code += "def number(): return 3\ndef other(): return torch.nn.Linear(4, 2, bias=False)\n"
    (tmp_path / "my_generator.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_generator", raising=False)
    save_file(torch.nn.Linear(4, 2).state_dict(), tmp_path / "w.safetensors")
    changes = {**UNIFORM, "weights": tmp_path / "w.safetensors", "latent_size": 4}
    with pytest.raises(UserError, match=message):
        add(request(f"my_generator:{function}", tmp_path / "runs", **changes))
    assert not (tmp_path / "runs").exists()

"""ONNX files of every family: equal to torch in float32, near it in fewer bits, readable by old runtimes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sweeper.records import ONNX_FORMATS
from sweeper.results import onnx_file
from tests.sweeper.stores import teacher
from trainables.errors import UserError
from trainables.latents import latents
from trainables.networks import build
from trainables.shapes import FAMILIES


@pytest.fixture(scope="module", params=FAMILIES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of a generator of each family, by format."""
    spec, folder = teacher(4, family=request.param), tmp_path_factory.mktemp("written")
    paths = onnx_file.write(build(spec.generator), spec.generator, spec.law, folder, ONNX_FORMATS)
    assert onnx_file.difference(build(spec.generator), spec.generator, spec.law, paths["onnx"]) <= onnx_file.TOLERANCE
    return paths


def test_fewer_bits_are_near_float32_at_every_batch_size(written: dict[str, Path]) -> None:
    expected, z = onnx_file.OnnxGenerator(written["onnx"]), latents("any", 0, 3)
    for count in (1, 3):
        images = expected(torch.from_numpy(z[:count])).numpy()
        assert images.shape == (count, 1, 32, 32)
        for name, part in (("onnx-fp16", 0.02), ("onnx-int8", 0.3)):
            actual = onnx_file.OnnxGenerator(written[name])(torch.from_numpy(z[:count])).numpy()
            assert actual.dtype == np.float32
            assert 0 < np.abs(actual - images).max() <= part * np.abs(images).max(), name


def test_the_files_are_small_and_old_enough_and_name_no_file_of_this_machine(written: dict[str, Path]) -> None:
    for path in written.values():
        model = onnx.load(path)
        onnx.checker.check_model(model)
        assert (model.ir_version, {o.domain: o.version for o in model.opset_import}[""]) == (8, 18)
        assert b".py" not in path.read_bytes()
    assert written["onnx-fp16"].stat().st_size < 0.75 * written["onnx"].stat().st_size


def test_int8_quantises_the_first_layer_which_has_most_of_the_weights(tmp_path: Path) -> None:
    spec = teacher(4)
    paths = onnx_file.write(build(spec.generator), spec.generator, spec.law, tmp_path, ("onnx-int8",), batch=3)
    assert paths["onnx-int8"].stat().st_size < 0.35 * paths["onnx"].stat().st_size

    # The file takes three images at a time; as a generator it takes any number.
    one = onnx_file.open_session(paths["onnx"])
    assert one.get_inputs()[0].shape == [3, 100]
    z, fixed = torch.from_numpy(latents("any", 0, 4)), onnx_file.OnnxGenerator(paths["onnx"])
    with torch.inference_mode():
        expected = build(spec.generator).eval()(z)
    assert (fixed(z) - expected).abs().max() <= onnx_file.TOLERANCE


def test_a_model_that_the_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / onnx_file.FILES["onnx-int8"]
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"onnx-int8: ONNX Runtime refuses the model \(.*\); use --format onnx$"):
        onnx_file.open_session(path)
    with pytest.raises(UserError, match=r"onnx-fp16: ONNX Runtime cannot convert this generator \(.*\)"):
        onnx_file.convert(path, "onnx-fp16", teacher(1).law, tmp_path / "out.onnx")

"""Small generators that sweeper did not train, as files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LATENTS, SIDE = 6, 64


def onnx_file(
    path: Path,
    *,
    side: int = SIDE,
    channels: int = 3,
    batch: Any = "n",
    last: str = "Sigmoid",
    outputs: int = 1,
    label: bool = False,
    weight: float = 1.0,
) -> Path:
    """Write z [n, LATENTS] → one product and a non-linearity → images [n, channels, side, side]."""
    rng, size = np.random.default_rng(0), channels * side * side
    matrix = (weight * rng.standard_normal((LATENTS, size))).astype(np.float32)
    shape = np.array([-1, channels, side, side])
    nodes = [helper.make_node("MatMul", ["z", "w"], ["flat"])]
    flat = "flat"
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, LATENTS])]
    if label:
        inputs.append(helper.make_tensor_value_info("c", TensorProto.INT64, [batch]))
        nodes.append(helper.make_node("Cast", ["c"], ["number"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", ["number", "one"], ["column"]))
        nodes.append(helper.make_node("Add", ["flat", "column"], ["moved"]))
        flat = "moved"
    nodes.append(helper.make_node("Reshape", [flat, "shape"], ["shaped"]))
    nodes.append(helper.make_node(last, ["shaped"], ["images"]))
    made = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, channels, side, side])]
    if outputs == 2:
        made.append(helper.make_tensor_value_info("shaped", TensorProto.FLOAT, [batch, channels, side, side]))
    constants = {"w": matrix, "shape": shape, "one": np.array([1])}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, made, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def pairs_folder(folder: Path, count: int = 400, side: int = SIDE, **arrays: np.ndarray) -> Path:
    """Write z.npy, uniform, and images.npy of uint8; or other arrays under these names."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    z = rng.uniform(-1, 1, (count, 32)).astype(np.float32)
    images = ((z[:, :3, None, None] + 1) * 127).astype(np.uint8).repeat(side, 2).repeat(side, 3)
    for name, array in ({"z": z, "images": images} | arrays).items():
        np.save(folder / f"{name}.npy", array)
    return folder

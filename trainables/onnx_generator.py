"""A generator in an ONNX file: z [N, k] or [N, k, 1, 1] → images [N, C, H, W]. Reading it runs no code."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import UserError
from trainables.extras import require

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_LABEL_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_BATCH = 64  # images per run
_CONVOLUTIONS, _PRODUCTS = ("Conv", "ConvTranspose"), ("Gemm", "MatMul")


@dataclass(frozen=True)
class OnnxGenerator:
    """A generator. label: the class of all its images, if it has a second input, of integers [N]; else None."""

    path: Path
    label: int | None = None
    threads: int = field(default=1, kw_only=True)  # of a CPU
    shown: str = field(default="", kw_only=True)  # its name in messages; by default its path

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Return what it makes of latents [N, latent_size], in its own range. Raises UserError, also for NaN."""
        parts = [self._run(z[start : start + _BATCH]) for start in range(0, len(z), _BATCH)]
        return np.concatenate(parts)

    def __str__(self) -> str:
        return self.shown or str(self.path)

    @property
    def latent_size(self) -> int:
        return int(self._latent.shape[1])

    @cached_property
    def session(self) -> Any:
        """The session of ONNX Runtime, on a GPU if its package has one. Raises UserError for no model,
        EnvironmentUserError without the package.
        """
        require("onnx", "an added teacher")
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else its import writes a device id into HOME and looks up a host
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # its errors are raised, too
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=providers)
        except Exception as error:  # it raises types of its own
            raise UserError(f"{self} is no model that ONNX Runtime loads ({one_line(error)})") from None

    def check(self) -> None:
        """Raise UserError unless the inputs and the output are those of a generator with a free batch size."""
        latent, outputs, labels = self._latent, self.session.get_outputs(), self.session.get_inputs()[1:]
        if isinstance(latent.shape[0], int):
            raise UserError(f"{self} has a fixed batch of {latent.shape[0]}; export it with a free first dimension")
        if len(outputs) != 1:
            names = ", ".join(output.name for output in outputs)
            raise UserError(f"{self} has {len(outputs)} outputs ({names}); export it with its images alone")
        if labels and (len(labels) > 1 or labels[0].type not in _LABEL_TYPES or len(labels[0].shape) != 1):
            names = ", ".join(f"{i.name} {i.type} {i.shape}" for i in labels)
            raise UserError(f"{self} has more inputs than z ({names}); only one of integers [N] can be fixed")
        if labels and self.label is None:
            raise UserError(f"{self} takes a class as its input {labels[0].name}; fix it with --label N")
        if not labels and self.label is not None:
            raise UserError(f"--label {self.label}: {self} takes no class; leave it out")

    @property
    def _latent(self) -> Any:
        inputs = self.session.get_inputs()
        first = inputs[0] if inputs else None
        shape = list(first.shape) if first is not None else []
        if first is None or first.type not in _TYPES or len(shape) < 2 or set(shape[2:]) - {1}:
            found = f"{first.name} {first.type} {shape}" if first is not None else "none"
            raise UserError(f"{self} is no generator: its first input is {found}, not floats z [N, k]")
        if not isinstance(shape[1], int) or shape[1] < 1:
            raise UserError(f"{self}: the size of its latents is free; export it with z [N, k] for a number k")
        return first

    def _run(self, z: np.ndarray) -> np.ndarray:
        latent, labels = self._latent, self.session.get_inputs()[1:]
        shape = (len(z), *latent.shape[1:])
        if z.shape[1] != latent.shape[1]:
            raise UserError(f"{self} takes z of {latent.shape[1]} numbers, not of {z.shape[1]}")
        fed = {latent.name: z.reshape(shape).astype(_TYPES[latent.type])}
        if labels:
            fed[labels[0].name] = np.full(len(z), self.label, _LABEL_TYPES[labels[0].type])
        try:
            (images,) = self.session.run(None, fed)
        except Exception as error:
            raise UserError(f"{self} does not run on a batch of {len(z)} ({one_line(error)})") from None
        if not isinstance(images, np.ndarray) or images.ndim != 4 or len(images) != len(z):
            found = list(getattr(images, "shape", ()))
            raise UserError(f"{self} is no generator: of z {list(shape)} it makes {found}, not [N, C, H, W]")
        if not np.isfinite(images).all():
            raise UserError(f"{self} makes images with NaN or infinite values")
        return images


def write_onnx(path: Path, source: Path) -> None:
    """Copy a model into one file, with the weights that lie beside it. Raises UserError."""
    require("onnx", "an added teacher")
    import onnx

    try:
        bare = onnx.load(source, load_external_data=False)
        if not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in bare.graph.initializer):
            path.write_bytes(source.read_bytes())
            return
        onnx.save(onnx.load(source), path)
    except Exception as error:  # protobuf and onnx raise types of their own
        raise UserError(f"{source} is no ONNX file, or lacks the file of its weights ({one_line(error)})") from None


def arithmetic(path: Path) -> tuple[int, int | None]:
    """Return the numbers in the floating-point initialisers, and the multiply-accumulates of one image.

    Convolutions and matrix products are counted. None if a shape is not known without running the model.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    parameters = sum(prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in floats)
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]
    for dimension in graph.output[0].type.tensor_type.shape.dim:
        dimension.Clear()
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # the model is larger than protobuf's limit, or has operators of its own
        return parameters, None
    shapes = {v.name: _shape(v) for v in [*graph.value_info, *graph.input, *graph.output]} | weights
    counts = [_macs(node, shapes) for node in graph.node if node.op_type in (*_CONVOLUTIONS, *_PRODUCTS)]
    return parameters, sum(count for count in counts if count) if None not in counts else None


def _shape(value: Any) -> list[int]:
    """Return a value's shape; 0 for a dimension that is not known."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _macs(node: Any, shapes: dict[str, list[int]]) -> int | None:
    """Return the multiply-accumulates of a convolution or a matrix product. None if a shape is not known."""
    first, second, output = (shapes.get(name) for name in (*node.input[:2], node.output[0]))
    if not first or not second or not output or 0 in (*first, *second, *output):
        return None
    if node.op_type == "Conv":  # a weight is used once per position of the output
        return prod(second[1:]) * prod(output)
    if node.op_type == "ConvTranspose":  # and here of the input
        return prod(second[1:]) * prod(first)
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return int(prod(output) * first[0 if transposed else -1])


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text, shortened."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__

"""A generator as an ONNX file in float32, float16 or int8. ONNX Runtime makes the smaller ones, and runs all."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sweeper.records import ONNX_FORMATS
from trainables.bank import STREAM
from trainables.errors import EnvironmentUserError, UserError, printable
from trainables.files import replacing
from trainables.latents import latents
from trainables.networks import build
from trainables.shapes import GeneratorShape, LatentLaw

# Else the import of ONNX Runtime writes a device id into HOME and looks up a host.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

TOLERANCE = 1e-5  # largest difference of ONNX's float32 output from torch's, in [-1, 1]
OPSET, IR_VERSION = 18, 8  # of 2023; read by ONNX Runtime from 1.14 on
FILES = dict(zip(ONNX_FORMATS, ("generator.onnx", "generator-fp16.onnx", "generator-int8.onnx"), strict=True))
# What has weights. Other operations in int8 would add scales and rounding, and save nothing.
QUANTISED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_EXAMPLE, _CALIBRATION = 64, 256  # latents of the export and of the comparison with torch; of the calibration


def write(
    generator: nn.Module, shape: GeneratorShape, law: LatentLaw, folder: Path, formats: tuple[str, ...], batch: int = 0
) -> dict[str, Path]:
    """Write a generator in float32 and in these formats of ONNX_FORMATS. Return the paths by format.

    z [n, latent_size] → images [n, channels, side, side] in [-1, 1]; both are float32 in every format. batch: the only
    n that the files take; 0 for any n. Raises UserError if ONNX Runtime cannot convert the generator.
    """
    paths = {"onnx": folder / FILES["onnx"]}
    with replacing(paths["onnx"]) as temporary:
        _write_float32(generator, shape, law, temporary, batch)
    for name in formats:
        if name != "onnx":
            paths[name] = folder / FILES[name]
            with replacing(paths[name]) as temporary:
                convert(paths["onnx"], name, law, temporary, batch)
    return paths


def _write_float32(generator: nn.Module, shape: GeneratorShape, law: LatentLaw, path: Path, batch: int) -> None:
    import onnx

    plain = build(shape)
    plain.load_state_dict({key: value.cpu().contiguous() for key, value in generator.state_dict().items()})
    z = torch.from_numpy(latents("picture", 0, batch or _EXAMPLE, law))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code; the user cannot fix them
        torch.onnx.export(
            plain.eval(),
            (z,),
            path,
            input_names=["z"],
            output_names=["images"],
            dynamic_shapes=None if batch else ({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    _tidy(onnx.load(path), path)


def _tidy(model: Any, path: Path) -> None:
    """Save a model without what no runtime reads: torch's traces, which name files of this machine, unused opsets."""
    import onnx

    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(kept)
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def convert(source: Path, name: str, law: LatentLaw, path: Path, batch: int = 0) -> None:
    """Convert a float32 file to onnx-fp16 or onnx-int8. batch: as in `write`. Raises UserError if that fails.

    int8: weights per channel and activations per tensor, whose ranges are those on latents of the bank.
    """
    try:
        with _quiet():
            (_to_float16 if name == "onnx-fp16" else _to_int8)(source, law, path, batch)
    except Exception as error:  # the converters raise many kinds
        raise UserError(
            f"{name}: ONNX Runtime cannot convert this generator ({_first_line(error)}); use --format onnx"
        ) from None


def _to_float16(source: Path, law: LatentLaw, path: Path, batch: int) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxscript import ir

    converted = ir.from_proto(convert_float_to_float16(onnx.load(source), keep_io_types=True))
    converted.graph.sort()  # the converter puts its casts last, which not every runtime reads
    _tidy(ir.to_proto(converted), path)


def _to_int8(source: Path, law: LatentLaw, path: Path, batch: int) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        def __init__(self) -> None:
            count = batch or 32
            self.batches = iter([latents(STREAM, i, count, law) for i in range(0, _CALIBRATION, count)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            z = next(self.batches, None)
            return None if z is None else {"z": z}

    # First fold constants: the weight of a DCGAN's first layer is reshaped, and is quantised only as a constant.
    folded = path.with_name(f"{path.name}.folded")
    try:
        quant_pre_process(source, folded, skip_symbolic_shape=True)
        quantize_static(folded, path, Reader(), per_channel=True, op_types_to_quantize=QUANTISED)
    finally:
        folded.unlink(missing_ok=True)
    _tidy(onnx.load(path), path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs and warnings of the converters. The user cannot act on them."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def open_session(path: Path, device: str = "cpu", threads: int = 1) -> Any:
    """Return ONNX Runtime's session of a file. device: cpu or cuda.

    Raises UserError if ONNX Runtime refuses the model, EnvironmentUserError if it has no CUDA.
    """
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise EnvironmentUserError("this ONNX Runtime has no CUDA; install onnxruntime-gpu, or leave out --device")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # its errors have no common class
        name = next((name for name, file in FILES.items() if file == path.name), path.name)
        others = "safetensors" if name == "onnx" else "onnx"
        raise UserError(
            f"{name}: ONNX Runtime refuses the model ({_first_line(error)}); use --format {others}"
        ) from None


def _first_line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0][:200])


class OnnxGenerator(nn.Module):
    """An ONNX file as a generator: z [N, latent_size] → images [N, channels, side, side] in [-1, 1], on the CPU."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if ONNX Runtime refuses the model."""
        super().__init__()
        self.session = open_session(path)
        size = self.session.get_inputs()[0].shape[0]
        self.batch = size if isinstance(size, int) else None
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # from which `render` takes the device

    def forward(self, z: Tensor) -> Tensor:
        inputs, batch = z.numpy(), self.batch or len(z)
        outputs = []
        for start in range(0, len(inputs), batch):
            part = inputs[start : start + batch]
            padded = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
            outputs.append(self.session.run(None, {"z": padded})[0][: len(part)])
        return torch.from_numpy(np.concatenate(outputs))


@torch.inference_mode()
def difference(generator: nn.Module, shape: GeneratorShape, law: LatentLaw, path: Path) -> float:
    """Return the largest difference of an ONNX file's output from torch's, of one image, three and more at a time."""
    plain, exported = build(shape), OnnxGenerator(path)
    plain.load_state_dict({key: value.cpu().contiguous() for key, value in generator.state_dict().items()})
    plain.eval()
    z = torch.from_numpy(latents("picture", 0, _EXAMPLE, law))
    return max(float((exported(z[:n]) - plain(z[:n])).abs().max()) for n in (1, 3, _EXAMPLE))

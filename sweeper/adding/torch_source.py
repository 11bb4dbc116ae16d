"""Turn a generator of torch into ONNX: a torch.export program, or a module that the user's own code makes."""

import importlib
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.errors import SpoiledError, UserError
from trainables.extras import require
from trainables.onnx_generator import OnnxGenerator, one_line
from trainables.tensors import read_tensors

_TRIED = 4  # latents on which the ONNX file is compared with torch
TOLERANCE = 1e-3  # largest difference of the two, relative to the largest value


@dataclass(frozen=True)
class Counts:
    """Parameters, and multiply-accumulates of one image."""

    parameters: int
    macs: int


def convert_program(file: Path, label: int | None, path: Path) -> Counts:
    """Write the program of a .pt2 file to `path` as ONNX. Reading a program can run code: it is trusted.

    Raises UserError for another file, for a fixed batch, and for a program that ONNX cannot express.
    """
    try:
        program = torch.export.load(file)
    except Exception as error:  # of many types, for whatever is not a program
        raise UserError(f"{file} is no torch.export program ({one_line(error)})") from None
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    sizes: list[Any] = list(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else []  # free ones: SymInt
    if len(sizes) < 2 or not all(isinstance(size, int) for size in sizes[1:]):
        raise UserError(f"{file} is no generator: its first input is not z [N, k]")
    if isinstance(sizes[0], int):
        raise UserError(f"{file} has a fixed batch of {sizes[0]}; export it with a dynamic first dimension")
    _check_inputs(str(file), len(inputs), label)
    if (outputs := len(program.graph_signature.user_outputs)) != 1:
        raise UserError(f"{file} has {outputs} outputs; export it with its images alone")
    module = program.module()
    latents = torch.randn(_TRIED, *sizes[1:], generator=torch.Generator().manual_seed(0))
    parameters = sum(value.numel() for _, value in program.named_parameters())
    return _convert(str(file), program, module, parameters, _arguments(latents, label), None, path)


def convert_module(reference: str, weights: Path, latent_size: int, label: int | None, path: Path) -> Counts:
    """Write the module that MODULE:FUNCTION makes to `path` as ONNX, with the weights of a safetensors file.

    Raises UserError for code that raises, weights of another network, and a module that ONNX cannot express.
    """
    module_name, _, function = reference.partition(":")
    try:
        module = getattr(importlib.import_module(module_name), function)()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code can raise anything, SystemExit too
        raise UserError(f"{reference} does not make a generator: {one_line(error)}") from None
    if not isinstance(module, nn.Module):
        raise UserError(f"{reference} makes a {type(module).__name__}; it must return a torch.nn.Module")
    try:
        arrays, _ = read_tensors(weights, like=module.state_dict())
    except SpoiledError as error:
        raise UserError(f"--weights {error}") from None
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    module = module.cpu().eval().requires_grad_(False)
    latents = torch.randn(_TRIED, latent_size, generator=torch.Generator().manual_seed(0))
    arguments = _arguments(latents, label)
    batch = torch.export.Dim("n")
    parameters = sum(value.numel() for value in module.parameters())
    return _convert(reference, module, module, parameters, arguments, tuple({0: batch} for _ in arguments), path)


def _check_inputs(name: str, inputs: int, label: int | None) -> None:
    if inputs > 2:
        raise UserError(f"{name} has {inputs} inputs; only z, or z and a class, can be given")
    if inputs == 2 and label is None:
        raise UserError(f"{name} takes a class as its second input; fix it with --label N")
    if inputs == 1 and label is not None:
        raise UserError(f"--label {label}: {name} takes no class; leave it out")


def _arguments(latents: Tensor, label: int | None) -> tuple[Tensor, ...]:
    return (latents,) if label is None else (latents, torch.full((len(latents),), label))


def _convert(
    name: str,
    exported: Any,
    module: Callable[..., Any],
    parameters: int,
    arguments: tuple[Tensor, ...],
    dynamic: Any,
    path: Path,
) -> Counts:
    """Write ONNX, and compare it with torch. exported: what torch.onnx.export takes. module: the same as a function."""
    with torch.no_grad():
        try:
            with FlopCounterMode(display=False) as counter:
                images = module(*arguments)
        except Exception as error:
            shapes = ", ".join(str(list(argument.shape)) for argument in arguments)
            raise UserError(f"{name} does not run on inputs of {shapes} ({one_line(error)})") from None
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != len(arguments[0]):
        found = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"{name} is no generator: of z {list(arguments[0].shape)} it makes {found}, not [N, C, H, W]")
    require("onnx", "an added teacher")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")  # of torch's own code; the user cannot fix them
            torch.onnx.export(
                exported,
                arguments,
                path,
                input_names=["z", "label"][: len(arguments)],
                output_names=["images"],
                dynamic_shapes=dynamic,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise UserError(
            f"{name} cannot be exported to ONNX ({one_line(error)}); add a folder of pairs that it made instead"
        ) from None
    label = int(arguments[1][0]) if len(arguments) > 1 else None
    again = OnnxGenerator(path, label)(arguments[0].flatten(1).numpy())
    expected = images.numpy()
    scale = max(1e-6, float(np.abs(expected).max(initial=0, where=np.isfinite(expected))))
    if not np.abs(again - expected).max() <= TOLERANCE * scale:
        raise UserError(f"{name}: its ONNX makes other images than torch; add a folder of pairs that it made instead")
    return Counts(parameters, counter.get_total_flops() // 2 // len(arguments[0]))

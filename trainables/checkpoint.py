"""The checkpoint of a trial: one safetensors file, with the number of updates in its header."""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.files import replacing


class Stateful(Protocol):
    """An object with a small state of numbers, such as the gradient scaler of fp16."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


Parts = dict[str, nn.Module | Optimizer | Stateful]


def save(path: Path, parts: Parts, updates: int) -> None:
    """Write the state of each part under its name, and the number of updates done."""
    tensors: dict[str, Tensor] = {}
    metadata = {"updates": str(updates)}
    for name, part in parts.items():
        if not isinstance(part, nn.Module | Optimizer):
            metadata[name] = json.dumps(part.state_dict())
            continue
        state = part.state_dict()["state"] if isinstance(part, Optimizer) else {"": part.state_dict()}
        for key, values in state.items():
            for field, value in values.items():
                tensors[f"{name}/{key}/{field}"] = torch.as_tensor(value).contiguous()
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def updates(path: Path) -> int:
    """Return the number of updates of a checkpoint; 0 if the file does not exist."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return int(file.metadata()["updates"])


def load(path: Path, parts: Parts) -> int:
    """Restore `parts` from a checkpoint. Return its number of updates; 0 if the file does not exist."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    for name, part in parts.items():
        if not isinstance(part, nn.Module | Optimizer):
            if name in metadata:  # a checkpoint of an older version has one loss scale, that of the generator
                part.load_state_dict(json.loads(metadata[name]))
            continue
        state: dict[Any, dict[str, Tensor]] = {}
        for tensor_name, value in tensors.items():
            owner, key, field = tensor_name.split("/", 2)
            if owner == name:
                state.setdefault(key, {})[field] = value
        if isinstance(part, Optimizer):
            groups = part.state_dict()["param_groups"]
            part.load_state_dict({"state": {int(k): v for k, v in state.items()}, "param_groups": groups})
            _match_memory_layout(part)
        else:
            part.load_state_dict(state[""])
    return int(metadata["updates"])


def _match_memory_layout(optimizer: Optimizer) -> None:
    """Give the moments the memory layout of their parameters, as fused optimisers require."""
    for parameter, moments in optimizer.state.items():
        for field, value in moments.items():
            if value.shape == parameter.shape:
                moments[field] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

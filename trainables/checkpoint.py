"""The state of a trial on disk: one safetensors file, whose header carries how far it has come."""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.files import replacing


class Plain(Protocol):
    """What has a few numbers for a state, such as the scaler of fp16."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


Parts = dict[str, nn.Module | Optimizer | Plain]


def save(path: Path, parts: Parts, updates: int) -> None:
    """Write networks, optimisers and what is plain under their names."""
    tensors: dict[str, Tensor] = {}
    facts = {"updates": str(updates)}
    for name, part in parts.items():
        if not isinstance(part, nn.Module | Optimizer):
            facts[name] = json.dumps(part.state_dict())
            continue
        state = part.state_dict()["state"] if isinstance(part, Optimizer) else {"": part.state_dict()}
        for key, values in state.items():
            for field, value in values.items():
                tensors[f"{name}/{key}/{field}"] = torch.as_tensor(value).contiguous()
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=facts)


def updates(path: Path) -> int:
    """How far a checkpoint is; 0 where there is none."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return int(file.metadata()["updates"])


def load(path: Path, parts: Parts) -> int:
    """Read what `save` wrote into `parts`, if there is a checkpoint; returns how far it is."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    for name, part in parts.items():
        if not isinstance(part, nn.Module | Optimizer):
            part.load_state_dict(json.loads(facts[name]))
            continue
        state: dict[Any, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            owner, key, field = full.split("/", 2)
            if owner == name:
                state.setdefault(key, {})[field] = value
        if isinstance(part, Optimizer):
            groups = part.state_dict()["param_groups"]
            part.load_state_dict({"state": {int(k): v for k, v in state.items()}, "param_groups": groups})
            _lay_out_like_parameters(part)
        else:
            part.load_state_dict(state[""])
    return int(facts["updates"])


def _lay_out_like_parameters(optimizer: Optimizer) -> None:
    """A fused optimiser walks parameters and moments by address: they must lie alike in memory."""
    for parameter, moments in optimizer.state.items():
        for field, value in moments.items():
            if value.shape == parameter.shape:
                moments[field] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

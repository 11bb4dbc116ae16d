"""The checkpoints of a trial, so that it resumes after a kill and can be scored again at its earlier rungs.

Each is one safetensors file, named by its number of updates: checkpoint-rung-UPDATES.safetensors at a rung,
checkpoint-UPDATES.safetensors between two. Those of rungs stay. Of the others stay the newest two, so that there is
another one if the newest is damaged. The checksum is in the header: a file beside it could belong to another version.
"""

import json
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.errors import SpoiledError
from trainables.existence import exists
from trainables.notes import note
from trainables.tensors import read_tensors, set_aside, write_tensors


class Stateful(Protocol):
    """An object with a small state of numbers, such as the gradient scaler of fp16."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


Parts = dict[str, nn.Module | Optimizer | Stateful]


def save(path: Path, parts: Parts, updates: int, *, at_rung: bool) -> None:
    """Write the state of each part, unless the checkpoint of this rung exists. Delete what is no longer needed.

    path: FOLDER/checkpoint.safetensors; the number of updates is added to the name.
    """
    file = _file(path, updates, at_rung)
    if file.exists():
        return
    arrays: dict[str, np.ndarray] = {}
    metadata = {"updates": str(updates)}
    for name, part in parts.items():
        if not isinstance(part, nn.Module | Optimizer):
            metadata[name] = json.dumps(part.state_dict())
            continue
        state = part.state_dict()["state"] if isinstance(part, Optimizer) else {"": part.state_dict()}
        for key, values in state.items():
            for field, value in values.items():
                arrays[f"{name}/{key}/{field}"] = torch.as_tensor(value).detach().cpu().contiguous().numpy()
    write_tensors(file, arrays, metadata)
    before = [(file, is_rung) for number, file, is_rung in _files(path) if number <= updates]
    for file, is_rung in before[:-2]:
        if not is_rung:
            file.unlink(missing_ok=True)


def updates(path: Path) -> int:
    """Return the number of updates of the newest checkpoint; 0 if there is none."""
    return max((number for number, _, _ in _files(path)), default=0)


def load(path: Path, parts: Parts, at_most: int) -> int:
    """Restore `parts` from the newest readable checkpoint of at most so many updates. Return its updates, or 0.

    A damaged one is set aside as NAME.spoiled, with a note.
    """
    _rename_older_version(path)
    spoiled: list[str] = []
    found = 0
    for number, file, _ in reversed([entry for entry in _files(path) if entry[0] <= at_most]):
        try:
            arrays, metadata = read_tensors(file)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            _check(file, tensors, parts)
        except SpoiledError as error:
            spoiled.append(set_aside(error))
            continue
        _restore(parts, tensors, metadata)
        found = number
        break
    for reason in spoiled:
        note(f"{reason}; the trial goes on from {found} updates")
    return found


def _file(path: Path, updates: int, at_rung: bool) -> Path:
    return path.with_name(f"{path.stem}-{'rung-' if at_rung else ''}{updates}{path.suffix}")


def _files(path: Path) -> list[tuple[int, Path, bool]]:
    """Return (updates, file, whether it is of a rung), ascending.

    The folder is listed, so that checkpoints of another host are seen: it may have trained the trial a moment ago.
    """
    if not exists(path.parent):
        return []
    pattern = re.compile(rf"{re.escape(path.stem)}-(rung-)?([0-9]{{1,15}}){re.escape(path.suffix)}")
    names = [(pattern.fullmatch(file.name), file) for file in path.parent.glob(f"{path.stem}-*")]
    return sorted((int(match[2]), file, bool(match[1])) for match, file in names if match)


def _rename_older_version(path: Path) -> None:
    """Give a checkpoint of an older version, which kept one per trial, the name that it would have now."""
    if not path.exists():
        return
    try:
        _, metadata = read_tensors(path)
        updates = int(metadata["updates"])
    except SpoiledError as error:
        note(set_aside(error))
    except (KeyError, ValueError):
        note(set_aside(SpoiledError(path, "is damaged: it has no number of updates")))
    else:
        path.replace(_file(path, updates, at_rung=True))


def _check(file: Path, tensors: dict[str, Tensor], parts: Parts) -> None:
    """Raise SpoiledError if a tensor of a part is missing, or has another shape. Nothing is restored before."""
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            expected = {f"{name}//{key}": value for key, value in part.state_dict().items()}
            found = {key: value for key, value in tensors.items() if key.startswith(f"{name}/")}
            if expected.keys() != found.keys() or any(found[k].shape != v.shape for k, v in expected.items()):
                raise SpoiledError(file, f"is not of this trial: its {name} has another shape")
        elif isinstance(part, Optimizer):
            shapes = [value.shape for group in part.param_groups for value in group["params"]]
            for key, value in tensors.items():
                owner, index, _ = key.split("/", 2)
                if owner == name and value.ndim and value.shape != shapes[int(index)]:
                    raise SpoiledError(file, f"is not of this trial: its {name} has another shape")


def _restore(parts: Parts, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
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


def _match_memory_layout(optimizer: Optimizer) -> None:
    """Give the moments the memory layout of their parameters, as fused optimisers require."""
    for parameter, moments in optimizer.state.items():
        for field, value in moments.items():
            if value.shape == parameter.shape:
                moments[field] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

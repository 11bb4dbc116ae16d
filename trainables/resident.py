"""Images that are kept on a GPU once per process: the real ones and the teacher's, which many trials read."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from trainables.arithmetic import resident_limit

Tensors = tuple[Tensor, ...]
CHUNK = 2_048  # images per copy

_kept: OrderedDict[tuple[int, torch.device], Tensors] = OrderedDict()  # the least recently used first


def lives_on(device: torch.device) -> bool:
    """Return whether images are kept on the device. On CPU the page cache shares them between processes."""
    return device.type == "cuda"


def resident(
    owner: object, device: torch.device, size: int, make: Callable[[], Tensors], beside: Tensors = ()
) -> Tensors | None:
    """Return the owner's tensors on the device, made on the first call; None if they do not fit.

    size: their bytes. beside: tensors that the same trial uses already. The tensors of all owners take at most a
    quarter of the device: the least recently used are dropped first. They are also dropped with their owner.
    """
    limit = resident_limit(_device_bytes(device))
    if size + _bytes(beside) > limit:
        return None
    key = id(owner), device
    if key not in _kept:
        in_use = {id(tensor) for tensor in beside}
        for old in list(_kept):
            others = _bytes(tensor for tensors in _kept.values() for tensor in tensors)
            if others + size > limit and not any(id(tensor) in in_use for tensor in _kept[old]):
                del _kept[old]
        _kept[key] = make()
        weakref.finalize(owner, _kept.pop, key, None).atexit = False
    _kept.move_to_end(key)
    return _kept[key]


def copied(arrays: Iterable[np.ndarray], count: int, device: torch.device) -> Tensor:
    """Copy arrays of `count` items in all into one tensor on the device, a chunk at a time."""
    whole: Tensor | None = None
    filled = 0
    for array in arrays:
        for part in _chunks(array):
            if whole is None:
                whole = torch.empty((count, *part.shape[1:]), dtype=part.dtype, device=device)
            whole[filled : filled + len(part)] = part.to(device)
            filled += len(part)
    assert whole is not None
    return whole


def _chunks(array: np.ndarray) -> Iterator[Tensor]:
    for start in range(0, len(array), CHUNK):
        yield torch.tensor(array[start : start + CHUNK])  # a copy: a mapped file is read-only


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _device_bytes(device: torch.device) -> float:
    return float(torch.cuda.get_device_properties(device).total_memory)

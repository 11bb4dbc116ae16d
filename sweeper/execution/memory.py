"""The GPU memory of a process between jobs: measured, and released."""

import gc
from typing import Any

import torch

from trainables.arithmetic import CUDA_BYTES


def reset_peak() -> None:
    """Start to measure the memory of a job."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def release() -> dict[str, Any]:
    """Release the memory of a job that has ended. Return the GPU's name and the job's bytes, if it used a GPU.

    The process runs further jobs, and its neighbours on the GPU need what it does not use. Networks are collected
    first: Accelerate's wrapper of their forward makes them cycles.
    """
    if not torch.cuda.is_initialized():
        return {}
    size = max(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) + CUDA_BYTES
    gc.collect()
    torch.cuda.empty_cache()
    return {"gpu_name": torch.cuda.get_device_name(), "gpu_bytes": size}

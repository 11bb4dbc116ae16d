"""The arithmetic of float32 on a GPU: exact or TF32, and deterministic."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Compute float32 products exactly or in TF32 inside the block, with deterministic algorithms of cuDNN.

    Its benchmark chooses algorithms by their time, so that the bits would differ from run to run.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    previous = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = tf32
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = previous


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 and autocast inside the block, so that its results do not depend on how the network is trained."""
    with float32_products(False), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        yield

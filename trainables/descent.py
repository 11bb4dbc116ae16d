"""The precision of a training, and the steps of its optimisers."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.optim import Optimizer

from trainables.errors import EnvironmentUserError
from trainables.precision import float32_products
from trainables.spec import TrialSpec

P = ParamSpec("P")
R = TypeVar("R")
NEEDS_GPU = ("tf32", "fp16")
# Variables that make Accelerate distributed, or override its arguments. torchrun, Slurm and MPI set them for a job, and
# so for Ray's workers. A trial is one process.
_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "PMI_", "OMPI_", "MV2_", "MPI_")
_LAUNCHERS = (*_RANKS, "ACCELERATE_", "FSDP_", "FORK_LAUNCHED")


def in_its_precision(
    train: Callable[Concatenate[TrialSpec, P], Iterator[R]],
) -> Callable[Concatenate[TrialSpec, P], Iterator[R]]:
    """Decorate a generator function so that it runs in the precision of its spec, and its consumer does not.

    With tf32 matrix products and convolutions are in TF32. With every other precision float32 is exact.
    """

    @wraps(train)
    def guarded(spec: TrialSpec, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        trial = train(spec, *args, **kwargs)
        while True:
            with float32_products(spec.precision == "tf32"):
                try:
                    value = next(trial)
                except StopIteration:
                    return
            yield value

    return guarded


def make_accelerator(spec: TrialSpec) -> Accelerator:
    """Return an Accelerator for this process alone, in the spec's precision.

    Its state is per process, and one process trains several trials in turn, so that the state is reset.
    Raises EnvironmentUserError if the precision needs a GPU and none is visible.
    """
    if spec.precision in NEEDS_GPU and not torch.cuda.is_available():
        raise EnvironmentUserError(
            f"precision={spec.precision} needs a GPU, and none is visible; use --precision no or bf16"
        )
    AcceleratorState._reset_state(reset_partial_state=True)
    with _no_launcher():
        return Accelerator(mixed_precision="no" if spec.precision == "tf32" else spec.precision)


@contextmanager
def _no_launcher() -> Iterator[None]:
    """Remove a launcher's variables from the environment inside the block."""
    removed = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_LAUNCHERS)}
    try:
        yield
    finally:
        os.environ.update(removed)


class Descent:
    """A step of an optimiser on a loss.

    In fp16 each optimiser has its own loss scale. A scale that two optimisers share is updated after each step of both:
    it grows twice as often as it should, and an overflow of one network halves the scale of the other.
    """

    def __init__(self, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        self.optimizer, self.scaler = optimizer, scaler

    def __call__(self, loss: Tensor) -> None:
        if self.scaler is None:
            loss.backward()
            _step(self.optimizer)
            return
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


@torch.no_grad()
def _step(optimizer: Optimizer) -> None:
    """Step, and drop the gradients.

    On a CPU call only the kernel of torch's Adam: the rest of its step takes longer than that of a narrow network.
    """
    group = optimizer.param_groups[0]
    parameters = group["params"]
    if not _is_plain_adam(optimizer):
        optimizer.step()
        optimizer.zero_grad()
        return
    states = [optimizer.state[parameter] for parameter in parameters]
    steps, means, squares = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
    gradients = [parameter.grad for parameter in parameters]
    rate, (beta1, beta2) = group["lr"], group["betas"]
    _joined(steps, states).add_(1)
    torch._fused_adam_(
        parameters, gradients, means, squares, [], steps, lr=rate, beta1=beta1, beta2=beta2, weight_decay=0.0,
        eps=group["eps"], amsgrad=False, maximize=False,
    )  # fmt: skip
    for parameter in parameters:
        parameter.grad = None


def _joined(steps: list[Tensor], states: list[dict[str, Tensor]]) -> Tensor:
    """Return the tensor of which the counts of all steps are views. Make it, if the state is new or loaded."""
    joined = steps[0]._base
    if joined is None or any(step._base is not joined for step in steps):
        joined = torch.stack(steps)
        steps[:] = joined.unbind()
        for state, step in zip(states, steps, strict=True):
            state["step"] = step
    return joined


def _is_plain_adam(optimizer: Optimizer) -> bool:
    """Return whether the kernel alone is the step: Adam on a CPU without options, with state and gradients of all."""
    group = optimizer.param_groups[0]
    options = group.get("weight_decay"), group.get("amsgrad"), group.get("maximize"), len(optimizer.param_groups)
    if type(optimizer) is not torch.optim.Adam or options != (0, False, False, 1):
        return False
    parameters = group["params"]
    has_all = len(optimizer.state) == len(parameters) and all(p.grad is not None for p in parameters)
    return has_all and parameters[0].device.type == "cpu"  # the first step creates the state


def descent_of(spec: TrialSpec, optimizer: Optimizer, parts: dict[str, Any], suffix: str = "") -> Descent:
    """Return the step of an optimiser. Add the state to checkpoint to `parts`, under names that end with `suffix`."""
    scaler = torch.amp.GradScaler("cuda") if spec.precision == "fp16" else None
    parts[f"optimizer{suffix}"] = optimizer
    if scaler is not None:
        parts[f"scaler{suffix}"] = scaler
    return Descent(optimizer, scaler)

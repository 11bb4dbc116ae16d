"""narrow.py against torch's layers: gradients nearer to float64, images and statistics within float32's rounding."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from tests.trainables import built
from trainables import descent, narrow, networks
from trainables.latents import latents
from trainables.networks import is_narrow
from trainables.objectives import GAMES, LOSSES
from trainables.rendering import render
from trainables.shapes import DiscriminatorShape

WIDTHS = [1, 2, 3, 4, 6, 8]
SHAPES = [(32, 1), (32, 3), (64, 1), (64, 3)]
BATCH = 8

every_width_and_shape = pytest.mark.parametrize(
    ("d", "size", "channels"),
    [(d, size, channels) for d in WIDTHS for size, channels in SHAPES] + [(24, 32, 1), (16, 32, 3), (12, 64, 1)],
)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if narrow.py won at every width."""
    monkeypatch.setattr(networks, "is_narrow", lambda *arguments: True)


def alive(network: nn.Module, seed: int) -> Any:
    """With biases and running statistics that are not those of the beginning."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(0, 0.3, generator=random)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=random)
    return network


def plain(network: nn.Sequential, x: Tensor) -> Tensor:
    result: Tensor = nn.Sequential.forward(network, x)
    return result


def distance(found: Tensor, true: Tensor) -> float:
    """Relative, of the norm."""
    return float((found.double() - true).norm() / true.norm())


def compare(network: Any, x: Tensor, loss: Callable[[Tensor], Tensor]) -> list[tuple[float, float]]:
    """Distances to float64 of the gradients of the input and of every parameter: narrow.py's, and torch's layers'."""
    results = []
    for copy, forward, own in (
        (deepcopy(network).double(), plain, x.double()),
        (deepcopy(network), lambda net, own: net(own), x),
        (deepcopy(network), plain, x),
    ):
        leaf = own.clone().requires_grad_()
        results.append(torch.autograd.grad(loss(forward(copy, leaf.clone())), [leaf, *copy.parameters()]))
    true, ours, theirs = results
    assert all(a.shape == b.shape for a, b in zip(ours, theirs, strict=True))
    return [(distance(a, t), distance(b, t)) for t, a, b in zip(true, ours, theirs, strict=True)]


def unambiguous(make: Callable[[int], tuple[Any, Tensor]]) -> tuple[Any, Tensor]:
    """A network and an input of which float32 and float64 agree on the sign of every activation."""
    for seed in count():
        network, x = make(seed)
        least = []
        for layer in network:
            if isinstance(layer, nn.ReLU | nn.LeakyReLU):
                least.append(float(x.detach().abs().min()))
            x = layer(x)
        if min(least) > 2e-6:
            return make(seed)
    raise AssertionError


@every_width_and_shape
def test_a_generator_s_gradients_are_those_of_float64(d: int, size: int, channels: int, everywhere: None) -> None:
    """A bias's is a sum whose terms cancel: rounding shows more, in torch's layers too (1.4e-5)."""

    def make(seed: int) -> tuple[Any, Tensor]:
        random = torch.Generator().manual_seed(seed)
        return alive(built.generator(d, size, channels, seed), seed), torch.randn(BATCH, 100, generator=random)

    network, z = unambiguous(make)
    target = torch.rand(BATCH, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = compare(network, z, lambda images: mse_loss(images, target.to(images.dtype)))
    for name, (ours, _) in zip(["z", *dict(network.named_parameters())], found, strict=True):
        assert ours < (2e-5 if name.endswith("bias") else 1e-6), name


@every_width_and_shape
def test_a_discriminator_s_gradients_are_as_near_to_float64_as_torch_s(
    d: int, size: int, channels: int, everywhere: None
) -> None:
    """Its weights learn by torch's own convolutions."""

    def make(seed: int) -> tuple[Any, Tensor]:
        random = torch.Generator().manual_seed(seed)
        images = torch.rand(BATCH, channels, size, size, generator=random) * 2 - 1
        return alive(built.discriminator(d, size, channels, seed), seed), images

    network, images = unambiguous(make)
    found = compare(network, images, lambda logits: softplus(-logits).mean())
    for name, (ours, theirs) in zip(["images", *dict(network.named_parameters())], found, strict=True):
        assert ours < max(1e-5 if name.endswith("bias") else 1e-6, 2 * theirs), name


@every_width_and_shape
def test_outputs_and_running_statistics_are_torch_s(d: int, size: int, channels: int, everywhere: None) -> None:
    z = torch.randn(BATCH, 100, generator=torch.Generator().manual_seed(d))
    generator, discriminator = (
        alive(built.generator(d, size, channels), 1),
        alive(built.discriminator(d, size, channels), 2),
    )
    images = plain(deepcopy(generator), z).detach()
    for network, x in ((generator, z), (discriminator, images)):
        ours, theirs = deepcopy(network), deepcopy(network)
        for _ in range(2):
            torch.testing.assert_close(ours(x), plain(theirs, x), rtol=1e-5, atol=1e-5)
        for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    generator.eval()
    torch.testing.assert_close(generator.generate(z), plain(generator, z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 6, 8, 12])
def test_an_image_depends_neither_on_its_batch_nor_on_its_place(d: int) -> None:
    generator, z = alive(built.generator(d), 0), latents("rung", 0, 300)
    images = render(generator, z)
    order = np.random.default_rng(d).permutation(len(z))
    assert np.array_equal(render(generator, z[order], batch_size=90), images[order])
    assert np.array_equal(render(generator, z[7:8]), images[7:8])


@pytest.mark.parametrize("is_narrow", [True, False])
@pytest.mark.parametrize("d", [1, 4])
def test_a_group_passes_as_if_it_were_alone(d: int, is_narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, gradients and running statistics are those of a call per group, in turn."""
    monkeypatch.setattr(networks, "is_narrow", lambda *arguments: is_narrow)
    together = alive(built.discriminator(d, 32, 3), 1)
    apart = deepcopy(together)
    groups = torch.randn(2, BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(d))
    groups[1].mul_(0.3).add_(0.5)
    logits, one_by_one = together(groups), torch.stack([apart(group) for group in groups])
    torch.testing.assert_close(logits, one_by_one)
    softplus(logits).mean().backward()
    softplus(one_by_one).mean().backward()
    for (name, a), b in zip(together.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    for a, b in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("seen", [True, False])
def test_only_what_is_asked_for_gets_a_gradient(learns: bool, seen: bool, everywhere: None) -> None:
    discriminator = built.discriminator(2).requires_grad_(learns)
    images = torch.rand(BATCH, 1, 32, 32, requires_grad=seen)
    logits = discriminator(images.clone())
    assert logits.requires_grad == (learns or seen)
    if logits.requires_grad:
        logits.sum().backward()
    assert all((parameter.grad is not None) == learns for parameter in discriminator.parameters())
    assert (images.grad is not None) == seen


@pytest.mark.parametrize("loss", ["mse", "joint"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_loss_does_not_depend_on_the_order_in_memory(loss: str, inside: bool) -> None:
    fake, target = (torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    given = {"logits": fake[:, 0, 0, 0], "game": GAMES["gan"], "alpha": 0.3}
    expected = LOSSES[loss](SimpleNamespace(fake=fake, target=target, **given))
    moved = narrow.innermost(target) if inside else target
    found = LOSSES[loss](SimpleNamespace(fake=narrow.innermost(fake), target=moved, **given))
    torch.testing.assert_close(found, expected)
    assert torch.equal(narrow.innermost(fake), fake)
    assert torch.equal(narrow.outermost(narrow.innermost(fake)), fake)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_only_the_order_in_memory_changes(dtype: torch.dtype) -> None:
    images = torch.arange(2 * 5 * 3 * 8 * 8).view(2, 5, 3, 8, 8).to(dtype)
    for given in (images, images[1], images[:, 1:4], images[0, ::2], images[..., :4, ::2]):
        moved = narrow.innermost(given)
        assert torch.equal(moved, given)
        assert moved.stride(-4) == 1
    assert narrow.outermost(narrow.innermost(images[0])).is_contiguous()
    leaf = images[0].double().requires_grad_()
    (narrow.innermost(leaf) * images[0]).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, images[0].double())


def test_the_squared_error_is_torch_s() -> None:
    fake, target = (torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    values = []
    for error in (narrow.SquaredError.apply, mse_loss):
        leaf = fake.clone().requires_grad_()
        found = error(narrow.innermost(leaf), target)
        (0.3 * found).backward()
        values.append((found.detach(), leaf.grad))
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_target_of_another_shape_is_broadcast() -> None:
    fake = narrow.innermost(torch.rand(8, 1, 4, 4))
    found = LOSSES["mse"](SimpleNamespace(fake=fake, target=fake[:1]))
    torch.testing.assert_close(found, (fake - fake[:1]).square().mean())


def test_a_target_has_its_gradient() -> None:
    """A loss of a plug-in may compare images of the generator with each other."""
    images = narrow.innermost(torch.rand(8, 1, 4, 4)).requires_grad_()
    LOSSES["mse"](SimpleNamespace(fake=images[:4], target=images[4:])).backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[:4], -images.grad[4:])


def trained(network: Any, passes: list[Tensor]) -> list[Tensor]:
    """The gradients of all passes, whose backward passes begin after the last forward pass, and all buffers."""
    outputs = [network(z) for z in passes]
    gradients = [g for out in outputs for g in torch.autograd.grad(out.square().mean(), list(network.parameters()))]
    return gradients + [value.clone() for value in network.buffers()]


def test_passes_do_not_disturb_each_other() -> None:
    """They share memory: of other shapes, in rendering, between forward and backward, and in other threads."""
    shapes = [(2, 32), (2, 32), (4, 32), (2, 64), (3, 32)]
    generators = [alive(built.generator(d, size), seed) for seed, (d, size) in enumerate(shapes)]
    latents_of = [torch.randn(2, 16, 100, generator=torch.Generator().manual_seed(d)) for d, _ in shapes]
    alone = [trained(deepcopy(net), list(z)) for net, z in zip(generators, latents_of, strict=True)]
    render(generators[0], latents_of[0][0].numpy())
    with ThreadPoolExecutor(len(shapes)) as threads:
        together = list(threads.map(trained, generators, [list(z) for z in latents_of]))
    for ours, expected in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_running_statistics_are_those_of_a_network_that_was_copied_or_moved() -> None:
    network, z = alive(built.generator(2), 0), torch.randn(BATCH, 100)
    moved = deepcopy(network).double().float()  # its buffers are other tensors now
    copied, pickled = deepcopy(network), pickle.loads(pickle.dumps(network))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained(moved, [z]), trained(copied, [z]), trained(pickled, [z])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, value in moved.state_dict().items():
        assert torch.equal(value, copied.state_dict()[name]), name
        assert torch.equal(value, pickled.state_dict()[name]), name
        assert torch.equal(value, before[name]) == name.endswith(("weight", "bias")), name


def test_another_type_or_default_leaves_no_trace() -> None:
    network, z = alive(built.generator(5), 0), torch.randn(BATCH, 100)
    expected = trained(deepcopy(network), [z])
    assert trained(deepcopy(network).double(), [z.double()])[0].dtype == torch.float64
    with torch.device("meta"):
        trained(deepcopy(network), [z])
    moved = deepcopy(network).double().float()
    with torch.inference_mode():
        moved(z)
    moved(z)
    assert all(torch.equal(a, b) for a, b in zip(trained(network, [z]), expected, strict=True))


def test_a_second_derivative_of_a_loss_is_refused(everywhere: None) -> None:
    discriminator, images = built.discriminator(2), torch.rand(BATCH, 1, 32, 32, requires_grad=True)
    with pytest.raises(RuntimeError, match="has no second derivative"):
        torch.autograd.grad(discriminator(images.clone()).sum(), images, create_graph=True)


def test_a_gradient_penalty_learns(everywhere: None) -> None:
    """Images of a penalty are a leaf with a gradient: they pass through torch's layers."""
    discriminator, images = built.discriminator(2), torch.rand(BATCH, 1, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    slope.square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in discriminator.named_parameters() if "weight" in name)


def test_the_rule_is_of_kind_width_size_batch_and_device_alone() -> None:
    cpu, gpu, discriminator = torch.device("cpu"), torch.device("cuda"), DiscriminatorShape(8, 32, 1)
    assert is_narrow(built.shape(2), 8, cpu)
    assert is_narrow(discriminator, 64, cpu)
    assert not is_narrow(discriminator, 8, cpu)
    assert not is_narrow(built.shape(64), 64, cpu)
    assert is_narrow(DiscriminatorShape(16, 32, 1), 64, cpu)
    assert not is_narrow(DiscriminatorShape(16, 64, 1), 64, cpu)
    assert not is_narrow(replace(built.shape(2), family="residual"), 64, cpu)
    assert not any(is_narrow(shape, 64, gpu) for shape in (built.shape(1), discriminator))


def test_casts_and_compilers_see_torch_s_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(narrow.GeneratorFunction, "apply", refuse)
    generator, z = built.generator(2), torch.randn(4, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generator(z)
    with monkeypatch.context() as patched:
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        generator(z)
    generator.eval()(z)
    with pytest.raises(AssertionError):
        generator.train()(z)


@pytest.mark.parametrize(
    ("options", "without_gradient", "is_plain"),
    [
        ({"betas": (0.5, 0.999), "fused": True}, 0, True),
        ({"weight_decay": 0.1}, 0, False),
        ({"amsgrad": True}, 0, False),
        ({}, 1, False),
    ],
)
def test_adam_s_step_is_torch_s(options: dict[str, Any], without_gradient: int, is_plain: bool) -> None:
    """The kernel alone where it is the whole step, else torch's step. without_gradient: parameters that have none."""
    ours, theirs = built.generator(2), built.generator(2)
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01, **options) for network in (ours, theirs)]
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    for step in range(5):
        for a, b in pairs[without_gradient:]:
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        assert descent._is_plain_adam(optimizers[0]) == (is_plain and step > 0), "the first step creates the state"
        descent._step(optimizers[0])
        optimizers[1].step()
        assert all(state["step"] == step + 1 for state in optimizers[0].state.values())
        if step == 2:
            optimizers[0].load_state_dict(deepcopy(optimizers[0].state_dict()))  # as a checkpoint does
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(a.grad is None for a, _ in pairs)

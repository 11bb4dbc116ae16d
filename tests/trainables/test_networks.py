"""Networks: parameter counts are the paper's, and every parameter gets a gradient."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.trainables.built import discriminator, generator, shape
from trainables.networks import DCGANGenerator, build, memory_format
from trainables.shapes import FAMILIES, DiscriminatorShape, GeneratorShape

# Table 1 of arXiv 1902.00159; d = 256 is in its caption.
PUBLISHED = {
    2: 28_351,
    4: 62_077,
    8: 145_657,
    16: 377_329,
    32: 1_098_721,
    48: 2_164_177,
    64: 3_573_697,
    128: 12_652_417,
    256: 47_324_929,
}


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("d", "published"), PUBLISHED.items())
def test_generator_at_64_has_the_published_count(d: int, published: int) -> None:
    with torch.device("meta"):  # at d = 256 real weights would take 190 MB
        network = torch.nn.Sequential(*DCGANGenerator.layers(shape(d, 64)))
    assert count(network) == shape(d, 64).parameters == published


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_stated_counts_equal_the_counts_of_built_networks(family: str, d: int, image_size: int, channels: int) -> None:
    generator = GeneratorShape(family, d, image_size, channels)
    assert count(build(generator)) == generator.parameters
    discriminator = DiscriminatorShape(d, image_size, channels)
    assert count(build(discriminator)) == discriminator.parameters


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("family", FAMILIES)
def test_stated_multiply_accumulates_are_those_that_torch_counts(family: str, image_size: int) -> None:
    shape = GeneratorShape(family, 3, image_size, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(shape).eval()(torch.zeros(1, shape.latent_size))
    assert counter.get_total_flops() == 2 * shape.macs


@pytest.mark.parametrize("d", [2, 5, 64])
def test_other_counts_follow_the_documented_polynomials(d: int) -> None:
    assert shape(d, 64, 3).parameters == 672 * d**2 + 12_863 * d + 3
    assert shape(d).parameters == 160 * d**2 + 6_423 * d + 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_range(family: str, image_size: int, channels: int) -> None:
    images = build(GeneratorShape(family, 2, image_size, channels))(torch.randn(5, 100))
    assert images.shape == (5, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert discriminator(3, image_size, channels)(images).shape == (5,)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_both_networks_gets_a_gradient(family: str) -> None:
    g, f = build(GeneratorShape(family, 2, 32, 1)), discriminator(2)
    f(g(torch.randn(8, 100))).square().sum().backward()
    for name, parameter in [*g.named_parameters(), *f.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, f"{name} gets no gradient"


def test_a_network_can_be_sliced() -> None:
    f, images = discriminator(2).eval(), torch.zeros(3, 1, 32, 32)
    assert f[:-2](images).shape == (3, 8, 4, 4)
    assert torch.equal(f[-2:](f[:-2](images)), f(images))


def test_initial_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    first = generator(2, seed=7).state_dict()
    torch.manual_seed(2)
    second, other = generator(2, seed=7).state_dict(), generator(2, seed=8).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


@pytest.mark.parametrize(
    ("network", "device", "precision", "last"),
    [
        (DiscriminatorShape(8, 32, 1), "cpu", "no", True),
        (DiscriminatorShape(4, 32, 1), "cpu", "bf16", False),
        (DiscriminatorShape(64, 64, 3), "cuda", "bf16", True),
        (DiscriminatorShape(64, 64, 3), "cuda", "tf32", True),
        (DiscriminatorShape(64, 64, 3), "cuda", "no", False),
        (DiscriminatorShape(16, 32, 3), "cuda", "bf16", True),
        (DiscriminatorShape(16, 32, 3), "cuda", "tf32", False),
        (shape(64), "cuda", "bf16", True),
        (shape(64), "cuda", "no", False),
    ],
)
def test_the_memory_format_is_a_function_of_shape_device_and_precision(
    network: GeneratorShape | DiscriminatorShape, device: str, precision: str, last: bool
) -> None:
    found = memory_format(network, torch.device(device), precision)
    assert (found is torch.channels_last) == last

"""Networks: their counts are the paper's, and every counted parameter is alive."""

import pytest
import torch

from trainables.networks import Discriminator, Generator
from trainables.sizes import discriminator_parameters, generator_parameters

# Table 1 of arXiv 1902.00159, with d = 256 from its caption.
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
        built = torch.nn.Sequential(*Generator.layers(d, 64, 1))
    assert count(built) == generator_parameters(d, 64, 1) == published


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_counts_without_building_equal_counts_of_what_is_built(d: int, image_size: int, channels: int) -> None:
    assert count(Generator(d, image_size, channels)) == generator_parameters(d, image_size, channels)
    assert count(Discriminator(d, image_size, channels)) == discriminator_parameters(d, image_size, channels)


@pytest.mark.parametrize("d", [2, 5, 64])
def test_other_counts_follow_the_stated_polynomials(d: int) -> None:
    assert generator_parameters(d, 64, 3) == 672 * d**2 + 12_863 * d + 3
    assert generator_parameters(d, 32, 1) == 160 * d**2 + 6_423 * d + 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64])
def test_shapes_and_range(image_size: int, channels: int) -> None:
    images = Generator(2, image_size, channels)(torch.randn(5, 100))
    assert images.shape == (5, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert Discriminator(3, image_size, channels)(images).shape == (5,)


def test_every_parameter_of_both_networks_gets_a_gradient() -> None:
    generator, discriminator = Generator(2, 32, 1), Discriminator(2, 32, 1)
    discriminator(generator(torch.randn(8, 100))).square().sum().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, f"{name} is a dead parameter"


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Generator(2, 32, 1, seed=7).state_dict()
    torch.manual_seed(2)
    second, other = Generator(2, 32, 1, seed=7).state_dict(), Generator(2, 32, 1, seed=8).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])

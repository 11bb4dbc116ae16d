"""Arithmetic against what it stands for: the tensors that torch keeps for a backward pass."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from trainables import networks
from trainables.arithmetic import activation_bytes, footprint
from trainables.networks import build
from trainables.spec import TrialSpec
from trainables.step import CriticStep, Extras, Step

TEACHER: dict[str, Any] = {"role": "teacher"}
MSE: dict[str, Any] = {"role": "student", "loss": "mse", "teacher": "t", "latents": 9}
JOINT: dict[str, Any] = {**MSE, "loss": "joint", "alpha": 0.1}
# Of search_spaces/: size, channels, the discriminator's d; and the ends of their d.
SETS = {"mnist5k": (32, 1, 8), "cifar10": (32, 3, 64), "mnist": (64, 1, 64), "celeba": (64, 3, 64)}
SHAPES = [(fields, name, d) for fields in (TEACHER, MSE, JOINT) for name in SETS for d in (2, 16, 128)]


def counted(spec: TrialSpec) -> int:
    """Bytes of what a whole update keeps at its fullest, beside weights and statistics."""
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        held.append(tensor)  # else another storage could take its place
        return tensor

    images = torch.empty(spec.batch_size, spec.channels, spec.image_size, spec.image_size)
    generator, discriminator = build(spec.generator), None
    z = torch.empty(spec.batch_size, spec.generator.latent_size)
    own = [*generator.parameters(), *generator.buffers()]
    if spec.discriminator is not None:
        discriminator = build(spec.discriminator)
        own += [*discriminator.parameters(), *discriminator.buffers()]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fake = generator(z)
        if discriminator is not None:
            spec.game(CriticStep(spec, discriminator, images, fake.detach()))
        else:
            spec.rule(Step(spec, 0, z, fake, images, lambda: images, None, Extras()))
    for tensor in own:
        kept.pop(tensor.untyped_storage()._cdata, None)
    return sum(kept.values())


@pytest.mark.parametrize(("fields", "name", "d"), SHAPES)
def test_activations_are_what_torch_keeps_for_the_backward_pass(
    fields: dict[str, Any], name: str, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "_initialise", lambda network, seed: None)
    size, channels, d_discriminator = SETS[name]
    own = {} if fields is MSE else {"d_discriminator": d_discriminator}
    spec = TrialSpec(dataset=name, d=d, channels=channels, image_size=size, **fields, **own)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):  # narrow networks differ on a CPU
        found = counted(spec)
    assert activation_bytes(spec, None) == pytest.approx(found, rel=0.25)


def test_a_footprint_is_what_memory_depends_on_and_nothing_else() -> None:
    def kind(**changes: Any) -> str:
        base = {"dataset": "mnist5k", "d": 2, "channels": 1, "d_discriminator": 8}
        return footprint(TrialSpec(**{**JOINT, **base, **changes}))

    assert kind() == kind(lr=0.1, seed=3, alpha=0.5, lr_discriminator=0.1, warmup=9)
    different: list[dict[str, Any]] = [{"batch_size": 8}, {"d": 4}, {"d_discriminator": 4}, {"precision": "bf16"}]
    different += [{"latents": 10}, {"ema": 0.9}, {"dataset": "mnist"}, {"image_size": 64}]
    different += [{"loss": "mse", "alpha": None, "d_discriminator": None}]
    assert len({kind(), *(kind(**changes) for changes in different)}) == 1 + len(different)
    assert kind(ema=0.9) == kind(ema=0.5)

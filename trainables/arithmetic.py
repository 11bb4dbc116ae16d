"""What a trial takes, by arithmetic: multiply-accumulates of an update, bytes on a device. Needs no torch.

Both follow from what the loss declares by its arguments (trainables.objectives).
"""

from trainables.objectives import Network, Part
from trainables.scores.loading import FEATURES
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.spec import TrialSpec

_CUDA = 1e9  # bytes that CUDA itself takes per process


def update_macs(spec: TrialSpec, teacher: TrialSpec | None) -> float:
    """Multiply-accumulates of one generator update, the discriminator's updates included.

    teacher: the students' teacher, if they have one.
    """
    macs = {Network.GENERATOR: float(spec.generator.macs)}
    if spec.discriminator is not None:
        macs[Network.DISCRIMINATOR] = spec.discriminator.macs
    if teacher is not None and teacher.discriminator is not None:
        macs[Network.TEACHER_DISCRIMINATOR] = teacher.discriminator.macs
    if spec.loss_features is not None:
        macs[Network.FEATURES] = FEATURES[spec.loss_features].macs
    passes = spec.rule.passes(spec.game, spec.n_critic)
    return spec.batch_size * sum(count * macs.get(network, 0.0) for network, count in passes.items())


def resident_bytes(data: int, device: float) -> int:
    """Bytes of the real images that live on a GPU of `device` bytes: all of them, up to a quarter of it, or none."""
    return data if 4 * data <= device else 0


def device_bytes(spec: TrialSpec, teacher: TrialSpec | None, data: int, device: float) -> float:
    """Bytes that a trial takes on a device of `device` bytes. data: bytes of the real images.

    Estimated, and not yet measured on a card: weights, gradients and Adam's two moments of both networks, activations
    of a batch through both, the teacher's networks where the loss loads them, the real images where they live on the
    card, and 1 GB of CUDA's own.
    """
    shapes: list[GeneratorShape | DiscriminatorShape] = [spec.generator]
    if spec.discriminator is not None:
        shapes.append(spec.discriminator)
    activations = sum(10 * spec.batch_size * shape.d * spec.image_size**2 for shape in shapes)
    real = resident_bytes(data, device) if Part.REAL in spec.rule.loads else 0
    fixed = 0
    if Part.TEACHER in spec.rule.loads and teacher is not None:
        fixed = teacher.generator.parameters + (teacher.discriminator.parameters if teacher.discriminator else 0)
    return _CUDA + 4 * (4 * sum(shape.parameters for shape in shapes) + fixed + 3 * activations) + real

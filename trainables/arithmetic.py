"""Cost of a trial by arithmetic: multiply-accumulates of an update, bytes on a device. Needs no torch.

Both follow from what the loss declares by its arguments (trainables.objectives).
"""

from trainables.objectives import Network, Part
from trainables.scores.loading import FEATURES
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.spec import TrialSpec

_CUDA_CONTEXT = 1e9  # bytes per process
_LAUNCHES_PER_LAYER, _LAUNCHES_PER_STEP = 3, 16


def update_macs(spec: TrialSpec, teacher: TrialSpec | None) -> float:
    """Return the multiply-accumulates of one generator update, including the discriminator's updates.

    teacher: the teacher of a student, else None.
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


def update_launches(spec: TrialSpec) -> int:
    """Return the approximate number of kernels that one generator update launches on a GPU.

    A pass launches three per layer: the convolution, the normalisation, and the bias or activation. An optimiser step
    launches 16: the loss, the optimiser and the batch. Operators of the training loop at 32×32: 52 with mse, 149 with
    gan, 166 with joint, 574 with wgan. These estimates are within 10% of them, and of those at 64×64.
    """
    layers = spec.image_size.bit_length() - 2  # of a network: one per doubling from 4×4, and one more
    passes = sum(spec.rule.passes(spec.game, spec.n_critic).values())
    steps = 1 + (spec.n_critic if Part.DISCRIMINATOR in spec.rule.loads else 0)
    return _LAUNCHES_PER_LAYER * layers * passes + _LAUNCHES_PER_STEP * steps


def resident_bytes(data: int, device: float) -> int:
    """Return the bytes of real images to keep on a GPU of `device` bytes: all if they fit a quarter of it, else 0."""
    return data if 4 * data <= device else 0


def device_bytes(spec: TrialSpec, teacher: TrialSpec | None, data: int, device: float) -> float:
    """Estimate the bytes that a trial takes on a device of `device` bytes. data: bytes of the real images.

    The estimate counts weights, gradients and Adam's two moments of both networks, the activations of a batch in both,
    the teacher's networks if the loss loads them, the real images if they are kept on the GPU, and 1 GB for CUDA's
    context. It has not been compared with a measurement on a GPU.
    """
    shapes: list[GeneratorShape | DiscriminatorShape] = [spec.generator]
    if spec.discriminator is not None:
        shapes.append(spec.discriminator)
    activations = sum(10 * spec.batch_size * shape.d * spec.image_size**2 for shape in shapes)
    resident = resident_bytes(data, device) if Part.REAL in spec.rule.loads else 0
    teacher_parameters = 0
    if Part.TEACHER in spec.rule.loads and teacher is not None:
        teacher_parameters = teacher.generator.parameters
        if teacher.discriminator is not None:
            teacher_parameters += teacher.discriminator.parameters
    parameters = sum(shape.parameters for shape in shapes)
    return _CUDA_CONTEXT + 4 * (4 * parameters + teacher_parameters + 3 * activations) + resident

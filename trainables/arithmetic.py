"""Cost of a trial by arithmetic: multiply-accumulates of an update, bytes on a device. Needs no torch.

Both follow from what the loss declares by its arguments (trainables.objectives).
"""

from trainables.objectives import Network, Part
from trainables.scores.loading import FEATURES
from trainables.shapes import DiscriminatorShape, GeneratorShape
from trainables.spec import DEFAULTS, TrialSpec

_LAUNCHES_PER_LAYER, _LAUNCHES_PER_STEP = 3, 16
CUDA_BYTES = 1e9  # CUDA's own memory per process
# The fields that a trial's memory depends on, beside its generator and its loss.
_SIZED = [
    *("dataset", "channels", "image_size", "latent_size", "objective", "d_discriminator", "batch_size", "latents"),
    *("precision", "compile", "loss_features", "plugin"),
]


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
    gan, 166 with joint, 574 with wgan. These estimates are within 11% of them, and of those at 64×64.
    """
    layers = spec.image_size.bit_length() - 2  # of a network: one per doubling from 4×4, and one more
    passes = sum(spec.rule.passes(spec.game, spec.n_critic).values())
    steps = 1 + (spec.n_critic if Part.DISCRIMINATOR in spec.loads else 0)
    return _LAUNCHES_PER_LAYER * layers * passes + _LAUNCHES_PER_STEP * steps


def activation_bytes(spec: TrialSpec, teacher: TrialSpec | None) -> int:
    """Return the bytes that an update saves for its backward passes, at its peak, in float32.

    With a discriminator the peak is at the discriminator's own update: its passes on real and on generated images, and
    the generator's pass, which is saved for the generator's update. A penalty on the gradient doubles the former.
    """
    images = spec.channels * spec.image_size**2
    saved = spec.generator.saved + (images if Part.BANK in spec.loads else 0)
    if spec.discriminator is not None:
        saved += (4 if spec.game.penalty_passes else 2) * spec.discriminator.saved
    if Part.TEACHER in spec.rule.loads and teacher is not None and teacher.discriminator is not None:
        saved += teacher.discriminator.saved
    return 4 * spec.batch_size * saved


def resident_limit(device: float) -> float:
    """Return the bytes of a GPU of `device` bytes that images may take, so that no batch is copied to it."""
    return device / 4


def bank_bytes(spec: TrialSpec) -> int:
    """Return the bytes of the latents and images in a student's bank."""
    return (spec.latents or 0) * (4 * spec.latent_size + spec.channels * spec.image_size**2)


def resident_bytes(spec: TrialSpec, data: int, device: float) -> int:
    """Return the bytes of images on a GPU of `device` bytes: the real images if they fit, then the bank if it fits."""
    used = 0
    for wanted, size in ((Part.REAL in spec.loads, data), (Part.BANK in spec.loads, bank_bytes(spec))):
        if wanted and used + size <= resident_limit(device):
            used += size
    return used


def device_bytes(spec: TrialSpec, teacher: TrialSpec | None, data: int, device: float) -> float:
    """Estimate the bytes that a trial takes on a device of `device` bytes. data: bytes of the real images.

    The estimate counts weights, gradients and Adam's two moments of both networks, twice what a batch saves for the
    backward passes (their gradients take as much at most), the teacher's networks if the loss loads them, the images
    that are kept on the GPU, and 1 GB for CUDA's context. On an H100 trials of d = 2 at 32×32 took 1.2 GB. Scores are
    not in it: EfficientNet took 5 GB for 200 images at once. The first rung measures both.
    """
    shapes: list[GeneratorShape | DiscriminatorShape] = [spec.generator]
    if spec.discriminator is not None:
        shapes.append(spec.discriminator)
    fixed = 0
    if Part.TEACHER in spec.loads and teacher is not None:
        fixed = teacher.generator.parameters + (teacher.discriminator.parameters if teacher.discriminator else 0)
    weights = 4 * (4 * sum(shape.parameters for shape in shapes) + fixed)
    return CUDA_BYTES + weights + 2 * activation_bytes(spec, teacher) + resident_bytes(spec, data, device)


def footprint(spec: TrialSpec) -> str:
    """Return what a trial's memory depends on: `d=8 joint dataset=mnist5k channels=1 d_discriminator=8 …`."""
    facts = {name: getattr(spec, name) for name in _SIZED if getattr(spec, name) != DEFAULTS.get(name)}
    if spec.ema:
        facts["ema"] = "yes"
    return " ".join([spec.generator.label, spec.kind, *(f"{name}={value}" for name, value in facts.items())])

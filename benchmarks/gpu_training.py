"""Training on a GPU: is it right, and how fast is it? A part of benchmarks/gpu.py.

python benchmarks/gpu_training.py reference FILE D…    # the same trials without a GPU, in a process that gpu.py starts
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from gpu_common import DEVICE, GPU, KINDS, check, per_call, spec_of, table, world
from torch import Tensor

from trainables import graphs
from trainables.arithmetic import update_macs
from trainables.latents import latents
from trainables.networks import build
from trainables.precision import float32_products
from trainables.rendering import render
from trainables.shapes import GeneratorShape
from trainables.spec import TrialSpec
from trainables.training import train

UPDATES = 20
WIDTHS = (2, 8) if GPU else (2,)
# kind, d, d of the discriminator, size
SHAPES = [("mse", 2, 0, 32), ("joint", 2, 8, 32)]
if GPU:
    SHAPES += [("gan", 2, 8, 32), ("wgan", 2, 8, 32), ("mse", 8, 0, 32), ("joint", 8, 8, 32), ("mse", 64, 0, 64)]
    SHAPES += [("joint", 2, 64, 64), ("joint", 64, 64, 64), ("wgan", 2, 64, 64), ("mse", 256, 0, 64)]
Losses = list[dict[str, float]]


def trained(spec: TrialSpec, rungs: list[int], path: Path | None = None, graphed: bool = True) -> tuple[Losses, Tensor]:
    """Return the losses at each rung, and the generator's weights at the last in one tensor."""
    pixels, bank = world(spec.image_size, spec.channels)
    has_graphs = graphs.has_graphs
    if not graphed:
        graphs.has_graphs = lambda device: False
    try:
        found = list(train(spec, rungs, pixels=pixels, bank=bank, checkpoint_path=path))
    finally:
        graphs.has_graphs = has_graphs
    weights = torch.cat([p.detach().flatten().double().cpu() for p in found[-1].generator.parameters()])
    return [rung.losses for rung in found], weights


def reference(file: str, widths: list[int]) -> None:
    """Train every trial on the processor, and save losses and weights."""
    torch.save({(k, d): trained(spec_of(k, d, 8), [1, UPDATES]) for k in KINDS for d in widths}, file)


def correctness() -> None:
    """Compare a GPU with the processor, a trial with itself, and graphs with the plain loop."""
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        command = [sys.executable, __file__, "reference", file.name, *map(str, WIDTHS)]
        subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True)
        expected = torch.load(file.name)
    rows = []
    for kind in KINDS:
        for d in WIDTHS:
            for precision, limit in (("no", 1e-5), ("tf32", 1e-2)) if GPU else (("no", 0.0),):
                rows.append(_compared(kind, d, precision, limit, *expected[kind, d]))
    headings = ["trial", "loss at 1", f"loss at {UPDATES}", "weights", "twice, bits", "resumed, bits", "plain, bits"]
    table(headings, rows)
    _mixed()
    _rendering()


def _compared(kind: str, d: int, precision: str, limit: float, losses: Losses, weights: Tensor) -> list[object]:
    spec = spec_of(kind, d, 8, precision=precision)
    here, found = trained(spec, [1, UPDATES])
    apart = [max(abs(here[rung][k] / losses[rung][k] - 1) for k in losses[rung]) for rung in range(2)]
    twice = torch.equal(trained(spec, [1, UPDATES])[1], found)
    plain = torch.equal(trained(spec, [1, UPDATES], graphed=False)[1], found)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        trained(spec, [1, UPDATES // 2], path)
        resumed = torch.equal(trained(spec, [UPDATES], path)[1], found)
    name = f"{kind} d={d} {precision}"
    check(apart[0] <= limit, f"{name}: the first loss differs by {apart[0]:.1e}, more than {limit:g}")
    for passed, what in ((twice, "a second run"), (resumed, "a resumed run"), (plain, "the plain loop")):
        check(passed, f"{name}: {what} gives other bits")
    return [name, *apart, float((found - weights).norm() / weights.norm()), twice, resumed, plain]


def _mixed() -> None:
    """Compare mean losses over many updates: fp16 skips a few of the first, until its loss scale fits.

    The losses of two networks that compete drift apart with any rounding, so that their limit is wide.
    """
    first, last = (20, 520) if GPU else (1, 11)
    rows = []
    for kind, limit in (("mse", 0.01), ("joint", 0.5)):
        (_, exact), _ = trained(spec_of(kind, 8, 8), [first, last])
        for precision in ("bf16", "fp16") if GPU else ("bf16",):
            (_, losses), _ = trained(spec_of(kind, 8, 8, precision=precision), [first, last])
            apart = max(abs(losses[name] / exact[name] - 1) for name in exact)
            check(apart < limit, f"{kind} {precision}: the mean loss differs by {apart:.2f} from float32's")
            rows.append([f"{kind} d=8 {precision}", apart])
    table(["mixed precision", f"mean loss of updates {first} to {last} against float32"], rows)


def _rendering() -> None:
    z, shape = latents("rung", 0, 250), GeneratorShape("dcgan", 16, 64, 3)
    here, there = (render(build(shape, 5).to(device), z).astype(int) for device in (DEVICE, torch.device("cpu")))
    part, most = float((here != there).mean()), int(abs(here - there).max())
    check(part < 1e-3 and most <= 1, f"rendering: {part:.1e} of the pixels differ, by up to {most}")
    table(["rendering against the processor", "pixels that differ", "by at most"], [["d=16 64×64×3", part, most]])


def speed() -> None:
    """Time an update: a plain loop with its data on the device, and sweeper's, without and with graphs."""
    names = [name.replace("no", "exact") for name in _precisions()]
    loops = [*(f"plain loop, {name}" for name in names), "no graphs, exact", *(f"sweeper, {name}" for name in names)]
    table(["update, ms", "GFLOP", *loops, "TFLOP/s of the fastest"], _speeds())


def _precisions() -> tuple[str, ...]:
    return ("no", "tf32", "bf16") if GPU else ("no",)


def _speeds() -> Iterator[list[object]]:
    precisions = _precisions()
    for kind, d, d_discriminator, size in SHAPES:
        specs = [spec_of(kind, d, d_discriminator, size, precision=precision) for precision in precisions]
        gflop = 2 * update_macs(specs[0], None) / 1e9
        plain = [_plain_milliseconds(spec) for spec in specs] if kind != "wgan" else [None] * len(specs)
        own = [_milliseconds(spec) for spec in specs]
        name = f"{kind} d={d} D={d_discriminator} {size}×{size}"
        yield [name, gflop, *plain, _milliseconds(specs[0], graphed=False), *own, gflop / min(own)]
        for precision, theirs, ours in zip(precisions, plain, own, strict=True):
            slower = theirs is not None and ours > 1.1 * theirs
            check(not (GPU and slower), f"{name} {precision}: sweeper takes {ours:.3g} ms, a plain loop {theirs}")


def _milliseconds(spec: TrialSpec, graphed: bool = True) -> float:
    pixels, bank = world(spec.image_size, spec.channels)
    updates, has_graphs = 200 if GPU else 8, graphs.has_graphs
    if not graphed:
        graphs.has_graphs = lambda device: False
    try:
        *_, rung = train(spec, [10 if GPU else 2, (10 if GPU else 2) + updates], pixels=pixels, bank=bank)
    finally:
        graphs.has_graphs = has_graphs
    return rung.seconds / updates * 1e3


def _plain_milliseconds(spec: TrialSpec) -> float:
    bf16 = torch.autocast(DEVICE.type, torch.bfloat16, enabled=spec.precision == "bf16")
    with float32_products(spec.precision != "no"), bf16:
        torch.backends.cudnn.deterministic = False
        return per_call(_plain(spec), 0.4) * 1e3


def _plain(spec: TrialSpec) -> Callable[[], None]:
    """Return an update of a GAN, an MSE or a joint student as a user writes it, with its batch on the device."""
    generator = build(spec.generator, 0).to(DEVICE)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=True)
    shape = 64, spec.channels, spec.image_size, spec.image_size
    z, target, real = torch.randn(64, 100, device=DEVICE), *(torch.rand(2, *shape, device=DEVICE) * 2 - 1)
    if spec.discriminator is None:

        def mse() -> None:
            loss = (target - generator(z)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return mse
    discriminator = build(spec.discriminator, 1).to(DEVICE)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=True)

    def adversarial() -> None:
        fake = generator(z)
        loss_d = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        discriminator.requires_grad_(False)
        loss = F.softplus(-discriminator(fake)).mean()
        if spec.alpha is not None:
            loss = spec.alpha * loss + (1 - spec.alpha) * (target - fake).square().mean()
        discriminator.requires_grad_(True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return adversarial


if __name__ == "__main__":
    reference(sys.argv[2], [int(d) for d in sys.argv[3:]])

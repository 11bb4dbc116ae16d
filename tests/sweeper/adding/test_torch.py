"""A generator of plain torch becomes a teacher as ONNX, as a torch.export program, as a module and as pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sweeper.adding.command import add
from sweeper.records import AddedTeacher
from tests.sweeper.adding.conftest import request
from trainables.onnx_generator import OnnxGenerator


class Foreign(nn.Module):
    """z of 128 → [N, 3, 64, 64] in [-1, 1]: upsampling, group normalisation and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(128, 8 * 64)
        blocks = [
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Upsample(scale_factor=2))
            for _ in range(3)
        ]
        self.blocks, self.last = nn.Sequential(*blocks), nn.ConvTranspose2d(8, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = torch.tanh(self.last(self.blocks(self.first(z).view(-1, 8, 8, 8))))
        return images


def make() -> nn.Module:
    return Foreign()


def trained(photos: Path) -> Foreign:
    """Train it a little, towards the mean of the pictures."""
    from PIL import Image

    torch.manual_seed(0)
    generator = Foreign()
    real = torch.stack([torch.from_numpy(np.array(Image.open(p))).permute(2, 0, 1) for p in sorted(photos.iterdir())])
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    for _ in range(5):
        fake = generator(torch.rand(8, 128) * 2 - 1)
        loss = (fake - real[:8] / 127.5 + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator.eval().requires_grad_(False)


@pytest.mark.long  # exporting takes seconds; test_students.py has the same for a file of ONNX
def test_one_generator_is_one_teacher_however_it_is_added(tmp_path: Path, photos: Path) -> None:
    generator, z, n = trained(photos), torch.rand(4, 128), torch.export.Dim("n")
    torch.onnx.export(generator, (z,), tmp_path / "big.onnx", dynamic_shapes=({0: n},), dynamo=True, verbose=False)
    program = torch.export.export(generator, (z,), dynamic_shapes=({0: n},))
    torch.export.save(program, tmp_path / "program.pt2")
    save_file(generator.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "pairs").mkdir()
    latents = np.random.default_rng(1).uniform(-1, 1, (1_000, 128)).astype(np.float32)
    np.save(tmp_path / "pairs" / "z.npy", latents)
    np.save(tmp_path / "pairs" / "images.npy", generator(torch.from_numpy(latents)).numpy())

    def added(source: object, **changes: object) -> AddedTeacher:
        fields = {"dataset": str(photos), "latent_law": "uniform", "value_range": "-1,1", "n": 300, **changes}
        return add(request(source, tmp_path / "runs", **fields))

    module = {"weights": tmp_path / "w.safetensors", "latent_size": 128, "name": "module"}
    teachers = [added(tmp_path / name) for name in ("big.onnx", "program.pt2", "pairs")]
    teachers.append(added(f"{__name__}:make", **module))
    fids = {teacher.name: teacher.scores[0].report["fid"]["mean"] for teacher in teachers}
    assert fids["big"] == pytest.approx(fids["program"], rel=1e-3)
    assert fids["big"] == pytest.approx(fids["module"], rel=1e-3)
    assert fids["big"] == pytest.approx(fids["pairs"], rel=0.05)  # other latents
    parameters = sum(p.numel() for p in generator.parameters())
    counts = {teacher.name: (teacher.parameters, teacher.macs) for teacher in teachers}
    assert counts["program"] == counts["module"] == (parameters, counts["big"][1])
    assert counts["big"][0] == pytest.approx(parameters, abs=20)  # constants of the graph are among the floats
    assert counts["pairs"] == (None, None)
    stored = OnnxGenerator(tmp_path / "runs" / "teachers" / "program" / "generator.onnx")
    assert np.abs(stored(latents[:70]) - generator(torch.from_numpy(latents[:70])).numpy()).max() < 1e-5

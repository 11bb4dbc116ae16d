"""Export a generator for use without sweeper: safetensors, ONNX, a model card, and a script that loads it."""

import json
import math
import os
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from sweeper import __version__
from sweeper.execution.job import load_generator
from sweeper.execution.samples import image_of
from sweeper.records import FinalRecord
from sweeper.results import latency
from sweeper.results.comparison import Comparison, joined
from sweeper.results.table import Row
from sweeper.results.templates import fill
from sweeper.scheduling.sweep import Sweep
from sweeper.store import Store
from trainables.errors import NotYetError, UserError
from trainables.extras import require
from trainables.files import file_hash, replacing, write_json
from trainables.latents import latents
from trainables.networks import build
from trainables.reading import read_record
from trainables.rendering import render
from trainables.scores.protocol import REPORT_SETS
from trainables.shapes import DEFAULT_FAMILY
from trainables.spec import TrialSpec

TOLERANCE = 1e-5  # largest difference of ONNX's output from torch's, in [-1, 1]
FORMATS = ("safetensors", "onnx")
LISTING = "export.json"  # the files of an export with their hashes, so that a later one replaces nothing else
_CHECK_LATENTS = 64  # on which the two are compared


@dataclass(frozen=True)
class ExportTarget:
    """A finished trial, and the comparison that it belongs to."""

    comparison: Comparison
    sweep: Sweep
    spec: TrialSpec
    final: FinalRecord

    @property
    def kind(self) -> str:
        """Return student, or gan for a regularly trained generator."""
        return "student" if self.spec.role == "student" else "gan"

    @property
    def name(self) -> str:
        """Return the name of the generator and of its folder, such as mnist5k-student-d4."""
        family = "" if self.spec.family == DEFAULT_FAMILY else f"{self.spec.family}-"
        return f"{self.comparison.manifest.dataset}-{self.kind}-{family}d{self.spec.d}"


def find(store: Store, trial: str) -> ExportTarget:
    """Return the trial whose signature begins with `trial`.

    Raises UserError unless one trial matches, NotYetError if it has not finished.
    """
    matches = {s: m for m in store.sweeps() for s in m.members if s.startswith(trial)}
    if len(matches) != 1:
        raise UserError(
            f"--trial {trial} matches {len(matches)} trials of {store.root}; list its sweeps with `sweeper status`"
        )
    ((signature, manifest),) = matches.items()
    comparison = Comparison.of(store, *joined(store, manifest))
    return _target(comparison, Sweep.read(manifest, store), signature)


def choose(comparison: Comparison, d: int | None, *, best: bool = False) -> ExportTarget:
    """Return the table's student of width d, by default the limit of compression, or the best one of the table. Of
    several seeds, take the best by selection scores.

    Raises UserError if there is no such student, NotYetError if no student has finished.
    """
    return _target(comparison, *_find_student(comparison, d, best))


def _target(comparison: Comparison, sweep: Sweep, signature: str) -> ExportTarget:
    final = sweep.final(signature)
    if final is None:
        raise NotYetError(f"trial {signature} has not finished, it is {sweep.states()[signature]}; name a finished one")
    return ExportTarget(comparison, sweep, sweep.records[signature].spec, final)


def _find_student(comparison: Comparison, d: int | None, best: bool) -> tuple[Sweep, str]:
    sweep = comparison.distilled
    if sweep is None or not sweep.finishers():
        raise NotYetError(f"{comparison.name} has no finished student; run `sweeper run students --teacher best` first")
    rows, limit = [row for row in comparison.table.rows if row.student], comparison.table.limit
    labels = ", ".join(row.label for row in rows)
    if not rows:
        raise UserError("no finished student fits the budget; allow more")
    if d is None and best:
        rows = sorted(rows, key=lambda row: _quality(comparison, row), reverse=True)[:1]
    elif d is None:
        if limit is None:
            raise UserError(
                f"no student is within the tolerance of the teacher; add --d {rows[-1].d} (finished: {labels})"
            )
        rows = [row for row in rows if row.label == limit.label]
    else:
        rows = [row for row in rows if row.d == d]
    if not rows:
        raise UserError(f"--d {d}: no student of this width has finished; finished: {labels}")
    if len(rows) > 1:
        choices = " or ".join(f"--trial {row.student.signature} ({row.label})" for row in rows if row.student)
        raise UserError(f"--d {d} matches several students; choose one with {choices}")
    assert rows[0].student is not None
    spec = sweep.records[rows[0].student.signature].spec
    trials = sweep.finishers()[spec.generator][spec.configuration]
    return sweep, max(trials, key=lambda t: (sweep.quality([t]), t))


def _quality(comparison: Comparison, row: Row) -> float:
    """Return a number that is larger for a better student."""
    score = row.student.scores[comparison.table.metric] if row.student else None
    if score is None:
        return -math.inf
    return score["mean"] if comparison.table.metric == "is" else -score["mean"]


def write(target: ExportTarget, folder: Path, formats: tuple[str, ...], images: int) -> list[Path]:
    """Write the generator into a folder, and `images` samples into its subfolder samples. Return the paths.

    Replaces an earlier export in the folder, once the new one is complete. The samples are of the first report latents,
    on which the table's scores were computed. Raises UserError if the ONNX output differs from torch's by more than
    TOLERANCE, and for a folder with files that no export has written. Raises EnvironmentUserError without the packages
    of a format.
    """
    if "onnx" in formats:
        require("onnx", "--format onnx", "leave ONNX out with --format safetensors")
    earlier = _replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        aside = Path(temporary)
        written = _write_files(target, aside, formats, images)
        files = [path.relative_to(aside) for path in sorted(aside.rglob("*")) if path.is_file()]
        write_json(aside / LISTING, {str(path): file_hash(aside / path) for path in files})
        for path in files:
            if (folder / path).exists() and folder / path not in earlier:
                raise UserError(
                    f"{folder / path} was not written by an export; move it, or name another folder with -o"
                )
        for path in earlier:
            path.unlink(missing_ok=True)
        for path in [*files, Path(LISTING)]:
            (folder / path).parent.mkdir(exist_ok=True)
            (aside / path).replace(folder / path)
    return [folder / path.relative_to(aside) for path in written]


def _replaceable(folder: Path) -> list[Path]:
    """Return the files of an earlier export in a folder. Raises UserError for a folder of other files."""
    listing = folder / LISTING
    listed = read_record(listing, dict[str, str])
    if listed is None:
        if folder.is_dir() and any(not path.name.startswith(".export-") for path in folder.iterdir()):
            raise UserError(f"{folder} has files that no export wrote; name a new folder with -o")
        return []
    earlier = {folder / name: hash_ for name, hash_ in listed.items()}
    for path, hash_ in earlier.items():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{listing} lists {path}, which is not in its folder; name another folder with -o")
        if path.exists() and file_hash(path) != hash_:
            raise UserError(f"{path} was changed after its export; move it, or name another folder with -o")
    return list(earlier)


def _write_files(target: ExportTarget, folder: Path, formats: tuple[str, ...], images: int) -> list[Path]:
    spec, samples = target.spec, folder / "samples"
    generator = load_generator(target.comparison.store, spec.signature, target.final.updates, target.final.weights)
    values = _card_values(target)
    written = [folder / "spec.json"]
    write_json(written[0], values["spec"])
    if "safetensors" in formats:
        written.append(folder / "generator.safetensors")
        with replacing(written[-1]) as temporary:
            tensors = {key: value.detach().cpu().contiguous() for key, value in generator.state_dict().items()}
            save_file(tensors, temporary, metadata={"spec": json.dumps(values["spec"])})
    if "onnx" in formats:
        written.append(folder / "generator.onnx")
        with replacing(written[-1]) as temporary:
            values["onnx"] = _write_onnx(generator, spec, temporary)
        written.append(folder / "load.py")
        written[-1].write_text(fill("load.py.j2", law=spec.law))
    if images:
        _write_samples(generator, spec, samples, images)
        written.append(samples)
    written.append(folder / "README.md")
    written[-1].write_text(fill("card.md.j2", **values), encoding="utf-8")
    return written


def _write_onnx(generator: nn.Module, spec: TrialSpec, path: Path) -> dict[str, Any]:
    """Write ONNX: z [n, latent_size] → images [n, channels, side, side] in [-1, 1].

    Return the largest difference from torch's output, and the median latency in milliseconds.
    Raises UserError if the difference is more than TOLERANCE.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else its import writes a device id into HOME and looks up a host
    import onnxruntime

    plain = build(spec.generator)
    plain.load_state_dict({key: value.cpu().contiguous() for key, value in generator.state_dict().items()})
    plain.eval()
    z = torch.from_numpy(latents("picture", 0, _CHECK_LATENTS, spec.law))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code; the user cannot fix them
        torch.onnx.export(
            plain,
            (z,),
            path,
            input_names=["z"],
            output_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        difference = float(np.abs(session.run(None, {"z": z.numpy()})[0] - plain(z).numpy()).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"the ONNX output differs from torch's by {difference:.1e}, more than {TOLERANCE:g}; "
            "export safetensors alone with --format safetensors"
        )
    one, seconds = {"z": z[:1].numpy()}, []
    for _ in range(100):
        start = time.perf_counter()
        session.run(None, one)
        seconds.append(time.perf_counter() - start)
    return {"difference": difference, "milliseconds": 1000 * median(seconds)}


def _write_samples(generator: nn.Module, spec: TrialSpec, folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(count - 1))
    for start in range(0, count, 1000):
        images = render(generator, latents("report/0", start, min(1000, count - start), spec.law))
        for number, pixels in enumerate(images, start):
            image_of(pixels).save(folder / f"{number:0{digits}d}.png")


def _card_values(target: ExportTarget) -> dict[str, Any]:
    """Return the values of the model card's template."""
    comparison, spec, manifest = target.comparison, target.spec, target.sweep.manifest
    shape, teacher = spec.generator, comparison.table.teacher
    row = comparison.table.row(shape.label) if target.kind == "student" else None
    student = row.student if row else None
    return {
        "name": target.name,
        "kind": target.kind,
        "spec": spec.canonical() | {"image_size": spec.image_size, "signature": spec.signature},
        "updates": target.final.updates,
        "weights": target.final.weights,
        "shape": shape,
        "parameters": shape.parameters,
        "macs": shape.macs,
        "ratio": teacher.parameters / shape.parameters if teacher else None,
        "scores": target.final.report,
        "seeds": student.seeds if student else 1,
        "row": student,
        "control": row.control if row else None,
        "teacher": teacher if target.kind == "student" else None,
        "manifest": manifest,
        "real": manifest.real,
        "report_sets": REPORT_SETS,
        "law": spec.law,
        "milliseconds": 1000 * latency.cpu_latency(shape),
        "how": latency.CONDITIONS,
        "machine": latency.machine(),
        "commands": [sweep.manifest.command for sweep in reversed(comparison.sweeps)],
        "version": __version__,
        "onnx": None,
    }

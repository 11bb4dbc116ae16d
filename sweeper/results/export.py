"""Export a generator for use without sweeper: safetensors, ONNX, a model card, and a script that loads it."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from sweeper.execution.generators import load_generator
from sweeper.execution.samples import image_of
from sweeper.records import ONNX_FORMATS, ExportRecord
from sweeper.results import card, latency, onnx_file
from sweeper.results.choice import ExportTarget
from sweeper.results.exported import FLOAT32, Export, exports_of
from sweeper.results.latency import DEFAULT, Conditions
from sweeper.results.rescoring import keep, rescored
from sweeper.results.templates import fill
from trainables.errors import UserError
from trainables.extras import require
from trainables.files import file_hash, is_abandoned, owner_mark, replacing, write_json
from trainables.latents import latents
from trainables.reading import read_record
from trainables.rendering import render
from trainables.spec import TrialSpec

FORMATS = ("safetensors", *ONNX_FORMATS)
LISTING = "export.json"  # the files of an export with their hashes, so that a later one replaces nothing else
_ASIDE = ".export-"  # how the name of the folder begins in which an export is made


def write(
    target: ExportTarget,
    folder: Path,
    formats: tuple[str, ...],
    images: int,
    *,
    batch: int = 0,
    conditions: Conditions = DEFAULT,
    license_id: str = card.UNKNOWN,
) -> list[Path]:
    """Write the generator into a folder, and `images` samples into its subfolder samples. Return the paths.

    formats: of FORMATS. batch: the only number of images at a time that ONNX files take; 0 for any. conditions: of the
    latencies on the card. license_id: as Hugging Face names licenses. ONNX files in fewer bits are scored again.

    Replaces an earlier export in the folder, once the new one is complete. The samples are of the first report latents,
    on which the table's scores were computed. Raises UserError if the ONNX output differs from torch's by more than
    TOLERANCE, and for a folder with files that no export has written. Raises EnvironmentUserError without the packages
    of a format.
    """
    if set(formats) & set(ONNX_FORMATS):
        require("onnx", "--format onnx", "leave ONNX out with --format safetensors")
    earlier = _replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{_ASIDE}*"):
        if is_abandoned(unfinished.name):
            shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE + owner_mark()) as temporary:
        aside = Path(temporary)
        written = _write_files(target, aside, formats, images, batch, conditions, license_id)
        files = [path.relative_to(aside) for path in sorted(aside.rglob("*")) if path.is_file()]
        hashes = {str(path): file_hash(aside / path) for path in files}
        for path in files:
            if os.path.lexists(folder / path) and str(path) not in earlier:
                raise UserError(
                    f"{folder / path} was not written by an export; move it, or name another folder with -o"
                )
        # While files are exchanged each may be of either export: a command that is killed here can be repeated.
        either = {name: f"{earlier.get(name, '')} {hashes.get(name, '')}".strip() for name in earlier | hashes}
        write_json(folder / LISTING, either)
        for path in files:
            (folder / path).parent.mkdir(exist_ok=True)
            (aside / path).replace(folder / path)
        for name in earlier.keys() - hashes.keys():
            (folder / name).unlink(missing_ok=True)
        write_json(folder / LISTING, hashes)
    return [folder / path.relative_to(aside) for path in written]


def _replaceable(folder: Path) -> dict[str, str]:
    """Return the files of an earlier export in a folder, with their hashes. Raises UserError for other files."""
    listing = folder / LISTING
    listed = read_record(listing, dict[str, str])
    if listed is None:
        if folder.is_dir() and any(not path.name.startswith(_ASIDE) for path in folder.iterdir()):
            raise UserError(f"{folder} has files that no export wrote; name a new folder with -o")
        return {}
    for name, hashes in listed.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{listing} lists {path}, which is not in its folder; name another folder with -o")
        if path.exists() and file_hash(path) not in hashes.split():
            raise UserError(f"{path} was changed after its export; move it, or name another folder with -o")
    return listed


def _write_files(
    target: ExportTarget,
    folder: Path,
    formats: tuple[str, ...],
    images: int,
    batch: int,
    conditions: Conditions,
    license_id: str,
) -> list[Path]:
    spec, samples, store = target.spec, folder / "samples", target.comparison.store
    generator = load_generator(store, spec.signature, target.final.updates, target.final.weights)
    canonical = card.spec_of(spec)
    written = [folder / "spec.json"]
    write_json(written[0], canonical)
    if "safetensors" in formats:
        written.append(folder / "generator.safetensors")
        with replacing(written[-1]) as temporary:
            tensors = {key: value.detach().cpu().contiguous() for key, value in generator.state_dict().items()}
            save_file(tensors, temporary, metadata={"spec": json.dumps(canonical)})
    wanted = tuple(name for name in ONNX_FORMATS if name in formats)
    exports: list[Export] = []
    if wanted:
        exports = _write_onnx(target, generator, folder, wanted, batch, conditions)
        written += [folder / onnx_file.FILES[name] for name in wanted]
        written.append(folder / "load.py")
        first = onnx_file.FILES[wanted[0]]
        written[-1].write_text(fill("load.py.j2", law=spec.law, file=first, batch=batch, count=_count(batch)))
    if images:
        _write_samples(generator, spec, samples, images)
        written.append(samples)
    written.append(folder / "README.md")
    written[-1].write_text(card.text(target, exports, conditions, batch, license_id), encoding="utf-8")
    return written


def _count(batch: int) -> int:
    """Return the number of images that load.py makes: 16, or the next multiple of the only batch size."""
    return -(-16 // batch) * batch if batch else 16


def _write_onnx(
    target: ExportTarget, generator: nn.Module, folder: Path, formats: tuple[str, ...], batch: int, how: Conditions
) -> list[Export]:
    """Write ONNX files of these formats. Score and measure them, and compare them with float32.

    Raises UserError if the float32 output differs from torch's by more than onnx_file.TOLERANCE.
    """
    store, spec = target.comparison.store, target.spec
    paths = onnx_file.write(generator, spec.generator, spec.law, folder, formats, batch)
    difference = onnx_file.difference(generator, spec.generator, spec.law, paths[FLOAT32])
    if not difference <= onnx_file.TOLERANCE:
        raise UserError(
            f"the ONNX output differs from torch's by {difference:.1e}, more than {onnx_file.TOLERANCE:g}; "
            "export safetensors alone with --format safetensors"
        )
    records: list[ExportRecord] = []
    milliseconds = {}
    for name, path in paths.items():
        measured = latency.measure_file(store, spec.generator, name, how, path)
        milliseconds[name] = measured.milliseconds
        records.append(rescored(store, target.sweep.manifest, spec, target.final, name, path))
        if formats != (FLOAT32,):
            keep(store, spec.signature, records[-1])
    if FLOAT32 not in formats:
        paths[FLOAT32].unlink()
    exports = exports_of(spec.signature, records, target.final, milliseconds)
    return [export for export in exports if export.format in formats]


def _write_samples(generator: nn.Module, spec: TrialSpec, folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(count - 1))
    for start in range(0, count, 1000):
        images = render(generator, latents("report/0", start, min(1000, count - start), spec.law))
        for number, pixels in enumerate(images, start):
            image_of(pixels).save(folder / f"{number:0{digits}d}.png")

"""The model card of an export: scores and their protocol, files, data, latency, and the fields that a hub reads."""

from typing import Any

from sweeper import __version__
from sweeper.results import latency, onnx_file
from sweeper.results.choice import ExportTarget
from sweeper.results.exported import FLOAT32, Export
from sweeper.results.latency import Conditions
from sweeper.results.templates import fill
from trainables.dataset_identity import registered_name
from trainables.scores.protocol import REPORT_SETS, Score
from trainables.spec import TrialSpec

UNKNOWN = "unknown"  # the license of an export for which nobody has named one
_TASK = "unconditional-image-generation"
_NAMES = {"fid": "FID", "is": "Inception Score", "kid": "KID", "sharpness": "sharpness"}
# Names of data sets on Hugging Face. mnist5k is a part of MNIST.
_HUB = {
    "mnist5k": "ylecun/mnist",
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "celeba": "flwrlabs/celeba",
}


def spec_of(spec: TrialSpec) -> dict[str, Any]:
    """Return what spec.json and the card say of the trial."""
    return spec.canonical() | {"image_size": spec.image_size, "signature": spec.signature}


def text(target: ExportTarget, exports: list[Export], conditions: Conditions, batch: int, license_id: str) -> str:
    """Return the card as Markdown. exports: the ONNX files. conditions, batch, license_id: as in export.write."""
    comparison, spec, final = target.comparison, target.spec, target.final
    shape, teacher, manifest = spec.generator, comparison.table.teacher, target.sweep.manifest
    row = comparison.table.row(shape.label) if target.kind == "student" else None
    student = row.student if row else None
    by_torch = latency.measured(
        comparison.store,
        shape,
        "torch",
        Conditions(threads=conditions.threads, runtime="torch", batch=conditions.batch),
    )
    return fill(
        "card.md.j2",
        metadata=_metadata(target, exports, license_id),
        name=target.name,
        kind=target.kind,
        spec=spec_of(spec),
        updates=final.updates,
        weights=final.weights,
        shape=shape,
        ratio=teacher.parameters / shape.parameters if teacher and teacher.parameters else None,
        reference=comparison.table.reference,
        scores=final.report,
        names=_NAMES,
        seeds=student.seeds if student else 1,
        row=student,
        control=row.control if row else None,
        teacher=teacher if target.kind == "student" else None,
        real=manifest.real,
        report_sets=REPORT_SETS,
        law=spec.law,
        by_torch=by_torch,
        exports=[(onnx_file.FILES[export.format], export) for export in exports],
        float32=FLOAT32,
        tolerance=onnx_file.TOLERANCE,
        opset=onnx_file.OPSET,
        batch=batch,
        conditions=f"{conditions}; {latency.machine(conditions.device)}",
        commands=comparison.commands,
        version=__version__,
    )


def _metadata(target: ExportTarget, exports: list[Export], license_id: str) -> str:
    """Return the fields of the card that Hugging Face reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData  # here: the import takes a while

    name = registered_name(target.spec.dataset)

    def result(score: str, value: Score, words: str) -> EvalResult:
        return EvalResult(
            task_type=_TASK,
            dataset_type=_HUB.get(name, name),
            dataset_name=target.spec.dataset,
            metric_type=score,
            metric_name=_NAMES[score] + words,
            metric_value=round(value["mean"], 4),
            metric_args={"protocol": value["protocol"], "images": value["n"], "std": round(value["std"] or 0, 4)},
        )

    results = [result(score, value, "") for score, value in target.final.report.items()]
    for export in exports:
        if export.format != FLOAT32:
            scores = {score: value for score, value in export.scores.items() if value}
            results += [result(score, value, f", {export.format}") for score, value in scores.items()]
    data = ModelCardData(
        license=license_id,
        library_name="onnx" if exports else None,
        pipeline_tag=_TASK,
        tags=["gan", "image-generation", "knowledge-distillation"],
        datasets=[_HUB[name]] if name in _HUB else None,
        model_name=target.name,
        eval_results=results,
    )
    return data.to_yaml()

"""Search spaces, and their expansion to a deterministic list of TrialSpecs.

A search space is a Python file (`search_spaces/DATASET.py`, or `--space FILE`) that defines a Space TEACHERS and a
Space STUDENTS.
"""

import dataclasses
import importlib.util
import itertools
import math
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.dataset_identity import registered_name
from trainables.errors import UserError
from trainables.objectives import GAMES, LOSSES, Part
from trainables.registry import registering_refused
from trainables.spec import DEFAULTS, FIELDS, REVISION, TrialSpec, irrelevant, parse, plugin_of, shown

Grid = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The search space of one sweep: grids of TrialSpec fields, and settings of the sweep."""

    grids: Sequence[Grid]  # each: field → a value or a list of values; a grid is the product of its lists
    updates: int  # the budget of a trial, in generator updates
    first_rung: int  # r: updates at the first rung; the next are r·eta, r·eta² … below the budget
    eta: int = 3  # at each rung, one of eta configurations of a stratum is promoted
    rungs: int | None = None  # maximum number of rungs before the budget; None: as many as fit
    confirm: int = 0  # fresh seeds with which the best configuration of each d is trained again, for the table
    n_rung: int = 2_000  # images in a rung score, which decides on pruning
    n_selection: int = 10_000  # images in a selection score, which decides on the best trial
    n_report: int = 50_000  # images in each of the three sets of a report score, which the table prints
    max_trials: int = 100_000  # a space with more is refused before it is expanded: a mistake in a grid, usually

    def __post_init__(self) -> None:
        """Raise UserError for a wrong type or a value out of range: Spaces come from users' files."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name == "rungs":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise UserError(f"{name}={shown(value)}: out of range; use a whole number from {least} to {most:,}")
        if not isinstance(self.grids, list | tuple) or not all(isinstance(grid, Mapping) for grid in self.grids):
            raise UserError(f"grids={shown(self.grids)}: not a list of dicts; see search_spaces/mnist5k.py")
        for grid in self.grids:
            for name, values in grid.items():
                if name not in FIELDS:
                    raise UserError(
                        f"the search space sets {shown(name)}, which is not a field of a trial; see trainables/spec.py"
                    )
                for value in as_list(values):
                    if not isinstance(value, str | int | float | None):
                        raise UserError(f"{name}={shown(value)}: not a number, a word or a list of these")

    def ladder(self) -> list[int]:
        """Return the rungs in updates: r·eta^k below the budget, then the budget. A longer budget moves no rung."""
        rungs = itertools.takewhile(
            lambda u: u < self.updates, (self.first_rung * self.eta**k for k in itertools.count())
        )
        return [*itertools.islice(rungs, self.rungs), self.updates]


_RANGES = {
    **dict.fromkeys(("updates", "first_rung", "max_trials"), (1, 10**9)),
    **dict.fromkeys(("n_rung", "n_selection", "n_report"), (2, 10**9)),
    **dict.fromkeys(("rungs", "confirm"), (0, 1_000)),
    "eta": (2, 10**6),
}
SETTINGS = {f.name: f for f in dataclasses.fields(Space) if f.name != "grids"}
# Fields that the sweep sets. --set refuses them.
_SWEEP_FIELDS = {"role", "dataset", "channels", "teacher", "plugin", "revision"}


def load_space(dataset: str, role: str, file: Path | None) -> Space:
    """Load the search space of a data set and role, from `file` if given. Raises UserError if there is none."""
    attribute = f"{role.upper()}S"
    if file is None:
        name = registered_name(dataset)
        stem = name if name.isidentifier() and importlib.util.find_spec(f"search_spaces.{name}") else "folder"
        namespace = vars(importlib.import_module(f"search_spaces.{stem}"))
        where = f"search_spaces/{stem}.py"
    else:
        if not file.is_file():
            raise UserError(f"there is no search space {file}; name a Python file with TEACHERS and STUDENTS in it")
        where = str(file)
        try:
            with redirect_stdout(sys.stderr):  # stdout is for the command's own data
                namespace = _namespace(file)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a user's file can raise anything, SystemExit too
            raise UserError(f"{file} does not load: {type(error).__name__}: {error}") from error
    space = namespace.get(attribute)
    if not isinstance(space, Space):
        raise UserError(f"{where} defines no {attribute} = Space(…); see search_spaces/mnist5k.py for an example")
    return space


def _namespace(file: Path) -> dict[str, Any]:
    """Return the names that a space's file defines. Run it, unless it is loaded as a plug-in.

    A file that is not a plug-in must not register losses, data sets or the like: workers would not know them.
    """
    for plugin in plugins.LOADED.values():
        if plugin.file == file.resolve():
            return vars(plugin.module)
    with registering_refused(str(file)):
        return runpy.run_path(str(file))


def override(space: Space, assignments: Sequence[str], role: str) -> Space:
    """Apply `KEY=V1,V2` assignments to settings of the sweep, or to fields of every grid that uses them.

    Raises UserError for an unknown key, a wrong value, or a field that no grid uses.
    """
    grids = [dict(grid) for grid in space.grids]
    settings: dict[str, Any] = {}
    # Loss and objective first: they decide which other fields a grid uses.
    for assignment in sorted(assignments, key=lambda text: text.partition("=")[0] not in ("loss", "objective")):
        key, equals, text = assignment.partition("=")
        if not equals or not text:
            raise UserError(f"--set {assignment}: write --set KEY=VALUE or KEY=V1,V2; for example --set d=2,4")
        if key in SETTINGS:
            settings[key] = _parse_int(key, text)
        elif key in FIELDS and key not in _SWEEP_FIELDS:
            values = [parse(key, word) for word in text.split(",")]
            if key == "loss":
                grids = _select_losses(grids, values)
                continue
            affected = [grid for grid in grids if key == "objective" or _uses(grid, key)]
            if not affected:
                raise UserError(f"--set {assignment}: no {role} of this space uses {key}; leave it out")
            for grid in affected:
                grid[key] = values
        else:
            keys = ", ".join(sorted((set(FIELDS) | set(SETTINGS)) - _SWEEP_FIELDS))
            raise UserError(f"--set {assignment}: {key!r} is unknown; the keys are {keys}")
    return dataclasses.replace(space, grids=grids, **settings)


def without(space: Space, lacks: Mapping[Part, str]) -> tuple[Space, dict[str, str]]:
    """Return the space without the values that need what a teacher lacks, and these as FIELD=VALUE → why.

    lacks: Part → why. A grid of which nothing is left is dropped.
    """

    def why(name: str, value: Any) -> str | None:
        if name == "loss":
            loads = LOSSES[value].loads if value in LOSSES else frozenset()
            return next((reason for part, reason in lacks.items() if part in loads), None)
        return lacks.get(Part.TEACHER) if value == "teacher" else None

    grids: list[Grid] = []
    left_out: dict[str, str] = {}
    for grid in space.grids:
        kept = dict(grid)
        for name in {"loss", "discriminator_start"} & set(grid):
            reasons = {value: reason for value in as_list(grid[name]) if (reason := why(name, value))}
            left_out |= {f"{name}={value}": reason for value, reason in reasons.items()}
            kept[name] = [value for value in as_list(grid[name]) if value not in reasons]
        if [] not in kept.values():
            grids.append(kept)
    return dataclasses.replace(space, grids=grids), left_out


def expand(
    space: Space,
    *,
    role: str,
    dataset: str,
    channels: int,
    teacher: str | None,
    fixed: Grid,
    teacher_discriminator: int | None = None,
) -> list[TrialSpec]:
    """Return the trials of a space without duplicates, sorted by signature.

    fixed: fields that are equal in all trials (image_size, and precision if it is set). teacher_discriminator: its
    width, which a discriminator that starts as the teacher's has.
    Fields that a trial's loss does not read are dropped, so that one grid can list several losses.
    Raises UserError for an empty space, for one with more trials than its max_trials, and for a wrong value.
    """
    count = sum(math.prod(len(as_list(values)) for values in grid.values()) for grid in space.grids)
    if count > space.max_trials:
        raise UserError(
            f"the search space has {count:,} trials, above max_trials={space.max_trials}; give shorter lists, or "
            f"add --set max_trials={count}"
        )
    specs: dict[str, TrialSpec] = {}
    for grid in space.grids:
        lists = {key: as_list(value) for key, value in grid.items()}
        for values in itertools.product(*lists.values()):
            fields = {**dict(zip(lists, values, strict=True)), **fixed}
            if "teacher" in lists.get("discriminator_start", ()):  # random starts beside it get the same width
                _check_width(fields, teacher_discriminator)
                fields["d_discriminator"] = teacher_discriminator
            spec = _spec(fields, role=role, dataset=dataset, channels=channels, teacher=teacher)
            specs[spec.signature] = spec
    if not specs:
        raise UserError(f"the search space has no {role} in it; give its grids a list of d")
    for spec in specs.values():
        if spec.warmup >= space.ladder()[0]:
            raise UserError(
                f"warmup={spec.warmup}: the first rung, at {space.ladder()[0]} updates, scores the warm-up alone; "
                "add --set warmup=… below it, or --set first_rung=… above it"
            )
    return [specs[signature] for signature in sorted(specs)]


def _spec(fields: dict[str, Any], *, role: str, dataset: str, channels: int, teacher: str | None) -> TrialSpec:
    loss, objective = fields.get("loss", DEFAULTS["loss"]), fields.get("objective", DEFAULTS["objective"])
    identity = {"role": role, "dataset": dataset, "channels": channels, "teacher": teacher}
    defaults = GAMES[objective].defaults if objective in GAMES else {}
    fields = {**defaults, **fields, **identity}
    if loss in LOSSES:
        fields = {key: value for key, value in fields.items() if key not in irrelevant(loss, objective)}
        if LOSSES[loss].needs_discriminator:
            fields.setdefault("d_discriminator", fields.get("d"))
    fields["revision"] = REVISION
    if plugin := plugin_of(fields):
        fields["plugin"] = plugin
    return TrialSpec(**fields)


def _check_width(fields: Grid, teacher_discriminator: int | None) -> None:
    """Raise UserError if a discriminator cannot start as the teacher's."""
    if teacher_discriminator is None:
        raise UserError("discriminator_start=teacher: the teacher has no discriminator; leave it out")
    if fields.get("d_discriminator", teacher_discriminator) != teacher_discriminator:
        raise UserError(
            f"d_discriminator={fields['d_discriminator']}: a discriminator that starts as the teacher's has its width, "
            f"{teacher_discriminator}; leave d_discriminator out, or add --set d_discriminator={teacher_discriminator}"
        )


def _select_losses(grids: list[dict[str, Any]], losses: list[str]) -> list[dict[str, Any]]:
    """Return the grids restricted to these losses. A loss that no grid lists is added as a copy of every grid."""
    listed = [as_list(grid.get("loss", DEFAULTS["loss"])) for grid in grids]
    restricted = [
        {**grid, "loss": [loss for loss in losses if loss in of_grid]}
        for grid, of_grid in zip(grids, listed, strict=True)
        if set(losses) & set(of_grid)
    ]
    unlisted = [loss for loss in losses if not any(loss in of_grid for of_grid in listed)]
    return restricted + [{**grid, "loss": unlisted} for grid in grids if unlisted]


def _uses(grid: Grid, key: str) -> bool:
    """Return whether a field means something with any loss and objective of a grid."""
    losses = grid.get("loss", DEFAULTS["loss"])
    objectives = grid.get("objective", DEFAULTS["objective"])
    pairs = itertools.product(as_list(losses), as_list(objectives))
    return any(loss not in LOSSES or key not in irrelevant(loss, objective) for loss, objective in pairs)


def as_list(value: Any) -> Sequence[Any]:
    """Return the values of a grid's field: a list or tuple as it is, a single value in a list."""
    return value if isinstance(value, list | tuple) else [value]


def _parse_int(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"--set {key}={text}: not a whole number; try --set {key}={SETTINGS[key].default or 1000}"
        ) from None

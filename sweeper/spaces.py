"""A search space → a deterministic list of TrialSpecs.

A space is a Python file (`search_spaces/DATASET.py`, or `--space FILE`) with a Space TEACHERS and a Space STUDENTS.
"""

import dataclasses
import importlib.util
import itertools
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.errors import UserError
from trainables.identity import registered_name
from trainables.objectives import GAMES, LOSSES
from trainables.registry import registering_refused
from trainables.spec import DEFAULTS, FIELDS, TrialSpec, irrelevant, parse, plugin_of

Grid = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What one sweep trains: grids of TrialSpec fields, and the sweep's own settings."""

    grids: Sequence[Grid]  # each: field → a value or a list of values; a grid is the product of its lists
    updates: int  # the budget of a trial, in generator updates
    first_rung: int  # r: updates at the first rung; the next are r·eta, r·eta² … below the budget
    eta: int = 3  # one configuration of eta goes on at each rung, in each stratum (one d)
    rungs: int | None = None  # at most this many rungs before the budget; None: as many as fit
    n_rung: int = 2_000  # images in a score that prunes
    n_selection: int = 10_000  # images in the score that chooses
    n_report: int = 50_000  # images in each of the three sets of the score that is printed

    def ladder(self) -> list[int]:
        """The rungs, in updates: r·eta^k below the budget, then the budget. A longer budget moves no rung."""
        steps = itertools.takewhile(
            lambda u: u < self.updates, (self.first_rung * self.eta**k for k in itertools.count())
        )
        return [*itertools.islice(steps, self.rungs), self.updates]


SETTINGS = {f.name: f for f in dataclasses.fields(Space) if f.name != "grids"}
# What the sweep itself decides, so that no grid may.
_GIVEN = {"role", "dataset", "channels", "teacher", "plugin", "revision"}


def load_space(dataset: str, role: str, file: Path | None) -> Space:
    """The space of a dataset and role. Raises UserError for a file that holds none."""
    attribute = f"{role.upper()}S"
    if file is None:
        name = registered_name(dataset)
        stem = name if importlib.util.find_spec(f"search_spaces.{name}") else "folder"
        namespace = vars(importlib.import_module(f"search_spaces.{stem}"))
        where = f"search_spaces/{stem}.py"
    else:
        if not file.is_file():
            raise UserError(f"there is no search space {file}; name a Python file with TEACHERS and STUDENTS in it")
        where = str(file)
        try:
            namespace = _namespace(file)
        except UserError:
            raise
        except Exception as error:  # whatever a user's file raises is theirs to see, in one line
            raise UserError(f"{file} does not load: {type(error).__name__}: {error}") from error
    space = namespace.get(attribute)
    if not isinstance(space, Space):
        raise UserError(f"{where} defines no {attribute} = Space(…); see search_spaces/mnist5k.py for one")
    return space


def _namespace(file: Path) -> dict[str, Any]:
    """Run a space's file, which may register nothing; or take what it is as a plug-in, which may."""
    for plugin in plugins.LOADED.values():
        if plugin.file == file.expanduser().resolve():
            return vars(plugin.module)
    with registering_refused(str(file)):
        return runpy.run_path(str(file))


def override(space: Space, assignments: Sequence[str], role: str) -> Space:
    """Apply `KEY=V1,V2` assignments: settings of the sweep, or fields of a trial in every grid that uses them."""
    grids = [dict(grid) for grid in space.grids]
    settings: dict[str, Any] = {}
    # Which fields mean something depends on loss and objective: these first.
    for assignment in sorted(assignments, key=lambda text: text.partition("=")[0] not in ("loss", "objective")):
        key, equals, text = assignment.partition("=")
        if not equals or not text:
            raise UserError(f"--set {assignment}: write --set KEY=VALUE or KEY=V1,V2; for example --set d=2,4")
        if key in SETTINGS:
            settings[key] = _whole(key, text)
        elif key in FIELDS and key not in _GIVEN:
            values = [parse(key, word) for word in text.split(",")]
            if key == "loss":
                grids = _with_losses(grids, values)
                continue
            users = [grid for grid in grids if key == "objective" or _uses(grid, key)]
            if not users:
                raise UserError(f"--set {assignment}: no {role} of this space uses {key}; leave it out")
            for grid in users:
                grid[key] = values
        else:
            known = ", ".join(sorted((set(FIELDS) | set(SETTINGS)) - _GIVEN))
            raise UserError(f"--set {assignment}: {key!r} is unknown; the keys are {known}")
    changed = dataclasses.replace(space, grids=grids, **settings)
    if changed.rungs is not None and changed.rungs < 0:
        raise UserError(f"rungs={changed.rungs} is negative; use --rungs 0 for none before the budget")
    if (
        changed.updates < 1
        or changed.first_rung < 1
        or changed.eta < 2
        or min(changed.n_rung, changed.n_selection, changed.n_report) < 2
    ):
        shown = ", ".join(f"{name}={getattr(changed, name)}" for name in SETTINGS if name in settings)
        raise UserError(f"{shown}: out of range; updates and first_rung are at least 1, eta and every n at least 2")
    return changed


def expand(
    space: Space, *, role: str, dataset: str, channels: int, teacher: str | None, fixed: Grid
) -> list[TrialSpec]:
    """Every trial of a space, without repeats, in the order of their signatures.

    fixed: fields that are the same in all trials (precision; for students the teacher's image size).
    Fields that a trial's loss does not read are dropped, so that a grid over losses stays one grid.
    """
    specs: dict[str, TrialSpec] = {}
    for grid in space.grids:
        lists = {key: listed(value) for key, value in grid.items()}
        for values in itertools.product(*lists.values()):
            fields = {**dict(zip(lists, values, strict=True)), **fixed}
            spec = _spec(fields, role=role, dataset=dataset, channels=channels, teacher=teacher)
            specs[spec.signature] = spec
    if not specs:
        raise UserError(f"the search space has no {role} in it; give its grids a list of d")
    for spec in specs.values():
        if spec.warmup >= space.ladder()[0]:
            raise UserError(
                f"warmup={spec.warmup}: at the first rung, {space.ladder()[0]} updates, every alpha is still mse; "
                "add --set warmup=… below it, or --set first_rung=… above it"
            )
    return [specs[signature] for signature in sorted(specs)]


def _spec(fields: dict[str, Any], *, role: str, dataset: str, channels: int, teacher: str | None) -> TrialSpec:
    loss, objective = fields.get("loss", DEFAULTS["loss"]), fields.get("objective", DEFAULTS["objective"])
    given = {"role": role, "dataset": dataset, "channels": channels, "teacher": teacher}
    defaults = GAMES[objective].defaults if objective in GAMES else {}
    fields = {**defaults, **fields, **given}
    if loss in LOSSES:
        fields = {key: value for key, value in fields.items() if key not in irrelevant(loss, objective)}
        if LOSSES[loss].needs_discriminator:
            fields.setdefault("d_discriminator", fields.get("d"))
    if plugin := plugin_of(fields):
        fields["plugin"] = plugin
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise UserError(
            f"the search space sets {sorted(unknown)[0]!r}, which is no field of a trial; see trainables/spec.py"
        )
    return TrialSpec(**fields)


def _with_losses(grids: list[dict[str, Any]], losses: list[str]) -> list[dict[str, Any]]:
    """The grids of these losses alone; a loss that no grid has is tried in all of them."""
    of = [(grid, listed(grid.get("loss", DEFAULTS["loss"]))) for grid in grids]
    kept = [{**grid, "loss": [loss for loss in losses if loss in has]} for grid, has in of if set(losses) & set(has)]
    new = [loss for loss in losses if not any(loss in has for _, has in of)]
    return kept + [{**grid, "loss": new} for grid in grids if new]


def _uses(grid: Grid, key: str) -> bool:
    losses = grid.get("loss", DEFAULTS["loss"])
    objectives = grid.get("objective", DEFAULTS["objective"])
    pairs = itertools.product(listed(losses), listed(objectives))
    return any(loss not in LOSSES or key not in irrelevant(loss, objective) for loss, objective in pairs)


def listed(value: Any) -> Sequence[Any]:
    """The values of a grid's key: a list as it is, one value as a list."""
    return value if isinstance(value, list | tuple) else [value]


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"--set {key}={text}: not a whole number; try --set {key}={SETTINGS[key].default or 1000}"
        ) from None

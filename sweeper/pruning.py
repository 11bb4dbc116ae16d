"""ASHA's rule, as pure functions of rung records.

Configurations compete inside their stratum (one sweep, role and d). S_0 is all of them; S_{k+1} is the best
max(1, ⌊|S_k|/η⌋) of S_k by their score at rung k (lower is better), ties by name. A configuration's score is the
mean over its seeds, which share its fate; a diverged or failed seed makes it +∞, and nothing at +∞ goes on.
S_{k+1} is known when every trial of S_k has its score at rung k, so nothing here depends on timing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Configurations = Mapping[str, Sequence[str]]  # name → its trials, one per seed
Scores = Mapping[tuple[str, int], float]  # (trial, number of the rung) → score; what has no record is absent


@dataclass(frozen=True)
class Standing:
    """Where a stratum stands."""

    sets: list[list[str]]  # S_0, S_1, … as far as they are known
    states: dict[str, str] = field(default_factory=dict)  # trial → waiting, paused (undecided), pruned or done
    wanted: list[tuple[str, int]] = field(
        default_factory=list
    )  # (trial, rung) that is to be reached, whatever else comes


def standing(configurations: Configurations, scores: Scores, rungs: int, eta: int) -> Standing:
    """rungs: how many there are, the budget included."""
    result = Standing(sets=[sorted(configurations)])
    for k in range(rungs):
        members = result.sets[-1]
        trials = [trial for name in members for trial in configurations[name]]
        missing = [trial for trial in trials if (trial, k) not in scores]
        here = "done" if k == rungs - 1 else "paused" if missing else "pruned"
        result.states.update(dict.fromkeys(trials, here) | dict.fromkeys(missing, "waiting"))
        result.wanted.extend((trial, k) for trial in missing)
        if missing or k == rungs - 1:
            break
        kept = _best(members, configurations, scores, k, eta)
        if not kept:
            break
        result.sets.append(kept)
    return result


def _best(members: Sequence[str], configurations: Configurations, scores: Scores, k: int, eta: int) -> list[str]:
    means = {name: _mean([scores[trial, k] for trial in configurations[name]]) for name in members}
    ranked = sorted((mean, name) for name, mean in means.items() if mean < math.inf)
    return [name for _, name in ranked[: max(1, len(members) // eta)]]


def _mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.inf

"""A score and how it was computed. Scores of different protocols are never compared."""

from collections.abc import Iterable
from typing import Protocol, TypedDict

from trainables.errors import UserError

REPORT_SETS = 3


class Score(TypedDict):
    """mean and std: over the sets of latents; for one set std is KID's standard error, None for the others.
    n: images in each set."""

    mean: float
    std: float | None
    n: int
    protocol: str


class Named(Protocol):
    """What a protocol says of the features: network and weights' hash, and what happens to an image before it."""

    name: str
    preprocessing: str


def protocol(features: Named, dims: int, real: str, purpose: str, n: int, sets: int = 1) -> str:
    """real: the hash of what is compared with. purpose: rung, selection or report, each with latents of its own, or
    images."""
    return f"{features.name}/{dims} ({features.preprocessing})/real-{real}/{purpose}/n={n}/sets={sets}"


def streams(purpose: str) -> list[str]:
    """The sets of latents that a purpose is scored on."""
    return [f"report/{i}" for i in range(REPORT_SETS)] if purpose == "report" else [purpose]


def comparable(scores: Iterable[Score]) -> list[Score]:
    """The scores, if they are of one protocol. Raises UserError naming two that differ."""
    found = list(scores)
    for score in found:
        if score["protocol"] != found[0]["protocol"]:
            raise UserError(
                f"scores of different protocols are not compared: {found[0]['protocol']} and {score['protocol']}; "
                "score both again with the same features, n and real images"
            )
    return found

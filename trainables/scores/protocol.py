"""Scores and their protocols. Scores of different protocols are never compared."""

from collections.abc import Iterable
from typing import Protocol

from typing_extensions import TypedDict  # that of Python 3.11 cannot be validated by pydantic

from trainables.errors import UserError
from trainables.reading import Count, Line, Number

REPORT_SETS = 3  # sets of latents that the report is averaged over


class Score(TypedDict):
    """mean, std: over the sets of latents. With one set, std is the standard error of KID, and None for other scores.

    n: images per set.
    """

    mean: Number
    std: Number | None
    n: Count
    protocol: Line


class NamedFeatures(Protocol):
    """The attributes of Features that are part of a protocol."""

    name: str
    preprocessing: str


def protocol(features: NamedFeatures, dims: int, real: str, purpose: str, n: int, sets: int = 1) -> str:
    """Return the protocol of a score. real: hash of the real images. purpose: rung, selection, report or images."""
    return f"{features.name}/{dims} ({features.preprocessing})/real-{real}/{purpose}/n={n}/sets={sets}"


def streams(purpose: str) -> list[str]:
    """Return the streams of latents for a purpose."""
    return [f"report/{i}" for i in range(REPORT_SETS)] if purpose == "report" else [purpose]


def comparable(scores: Iterable[Score]) -> list[Score]:
    """Return the scores as a list. Raises UserError if their protocols differ."""
    compared = list(scores)
    for score in compared:
        if score["protocol"] != compared[0]["protocol"]:
            raise UserError(
                f"scores of different protocols are not compared: {compared[0]['protocol']} and {score['protocol']}; "
                "score both again with the same features, n and real images"
            )
    return compared

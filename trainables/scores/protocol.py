"""A score and how it was computed. Scores of different protocols are never compared."""

from typing import TypedDict

REPORT_SETS = 3


class Score(TypedDict):
    """mean and std over the sets of latents (std is None for one set); n images in each."""

    mean: float
    std: float | None
    n: int
    protocol: str


def protocol(features: str, real: str, purpose: str, n: int) -> str:
    """features: the network's name with its weights' hash; real: the hash of the real set; purpose: rung, selection
    or report, each with latents of its own."""
    return f"{features}/real-{real}/{purpose}/n={n}/sets={len(streams(purpose))}"


def streams(purpose: str) -> list[str]:
    """The sets of latents that a purpose is scored on."""
    return [f"report/{i}" for i in range(REPORT_SETS)] if purpose == "report" else [purpose]

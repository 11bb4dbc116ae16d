"""Whatever arguments, files and a store hold: a short message, the right exit code, nothing written outside the store.

A failure prints its family and its seed. `python -m tests.fuzz FAMILY SEED` repeats it.
"""

import pytest

import tests.fuzz.families  # noqa: F401 (registers them)
from tests.fuzz.case import FAMILIES, check, import_all

SHORT = 15  # `make test` runs one of so many cases
SHOWN = 5  # failures of a family that are printed


def run(name: str, cases: int) -> None:
    import_all()
    failures = [broken for seed in range(cases) if (broken := check(FAMILIES[name][0], name, seed))]
    if failures:
        pytest.fail("\n".join([f"{len(failures)} of {cases} cases of {name}", *failures[:SHOWN]]), pytrace=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_few_wrong_inputs_are_short_messages(name: str) -> None:
    run(name, FAMILIES[name][1] // SHORT)


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_wrong_inputs_are_short_messages(name: str) -> None:
    run(name, FAMILIES[name][1])

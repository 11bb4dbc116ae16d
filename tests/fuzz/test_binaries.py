"""Damaged binaries, from seeds: no traceback, no hang, at most three lines, never another result. See binaries.py."""

from pathlib import Path

import pytest

from tests.fuzz.binaries import FAMILIES, READERS, check

SHORT = 15  # `make test` runs one of so many commands


def run_commands(family: str, cases: int) -> None:
    wrong = [found for seed in range(cases) if (found := check(family, seed))]
    assert not wrong, "\n".join([f"{len(wrong)} of {cases}", *wrong[:5]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_command_says_what_is_damaged_or_makes_it_again(family: str) -> None:
    run_commands(family, FAMILIES[family][1] // SHORT)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_many_commands_say_what_is_damaged_or_make_it_again(family: str) -> None:
    run_commands(family, FAMILIES[family][1])


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_never_takes_a_damaged_file_for_a_good_one(reader: str, tmp_path: Path) -> None:
    read, cases = READERS[reader]
    for seed in range(cases):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            read(seed, folder)
        except BaseException as error:
            error.add_note(f"{reader} {seed}")
            raise

"""What the tests of W&B share."""

from collections.abc import Iterator

import pytest

from tests.wandb_server import Server


@pytest.fixture
def wandb_server() -> Iterator[Server]:
    """A stand-in of the W&B server; whatever it was asked and does not know fails the test."""
    with Server() as server:
        yield server
    assert not server.unknown, server.unknown[0]

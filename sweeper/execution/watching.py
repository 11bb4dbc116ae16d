"""What the terminal and W&B hear of a sweep while it runs."""

from collections.abc import Mapping
from typing import Protocol

from sweeper.records import RungRecord
from sweeper.scheduling.sweep import Job, Sweep


class Watcher(Protocol):
    """Callbacks of the terminal and of W&B. They run in the driver, so they must return quickly."""

    def started(self, sweep: Sweep, job: Job) -> None: ...

    def trained(self, sweep: Sweep, updates: Mapping[str, int]) -> None:
        """Take signature → updates that the running trials have done."""

    def reached(self, sweep: Sweep, job: Job, record: RungRecord) -> None: ...

    def failed(self, sweep: Sweep, job: Job, reason: str) -> None: ...

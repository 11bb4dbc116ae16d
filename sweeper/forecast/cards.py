"""The table of GPUs: their throughput and memory, by name."""

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from sweeper.execution.resources import Machine
from trainables.reading import read_content

TABLE = Path(__file__).with_name("throughputs.toml")


@dataclass(frozen=True)
class Card:
    """An entry of the table."""

    teraflops: float
    use: float
    microseconds_per_launch: float
    memory_gb: float

    @property
    def macs_per_second(self) -> float:
        """Multiply-accumulates per second in training."""
        return self.teraflops * 1e12 / 2 * self.use

    @property
    def seconds_per_launch(self) -> float:
        """Seconds per kernel of a small network, however little the kernel does."""
        return self.microseconds_per_launch / 1e6

    @property
    def bytes(self) -> float:
        return self.memory_gb * 1e9


def read_cards(table: Path) -> dict[str, Card]:
    """Read a table. Raises OSError if it cannot be read, and ValueError, KeyError or TypeError if it is wrong."""
    cards = {}
    for name, line in tomllib.loads(read_content(table).decode()).items():
        values = {field.name: float(line[field.name]) for field in dataclasses.fields(Card)}
        if not all(0 < value < math.inf for value in values.values()):
            raise ValueError(f"[{name}] has a value that is not positive and finite")
        cards[name] = Card(**values)
    return cards


def with_throughput(machine: Machine) -> Machine:
    """Return the machine with the throughput of its GPU, if the table has an entry for it."""
    name = machine.gpu_name.replace("RTX ", "RTX")
    for key, card in read_cards(TABLE).items():
        if re.search(rf"\b{re.escape(key)}\b", name):
            return dataclasses.replace(
                machine, macs_per_second=card.macs_per_second, seconds_per_launch=card.seconds_per_launch
            )
    return machine

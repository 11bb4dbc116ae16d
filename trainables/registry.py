"""Named things that a plug-in can add to: losses, games, generator families, data sets, feature networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from trainables.errors import UserError

T = TypeVar("T")


class Registry(dict[str, T]):
    """Name → what is registered. Remembers the plug-in that registered each name."""

    def __init__(self, kind: str) -> None:
        """kind: what the names are, for messages: loss, data set …"""
        super().__init__()
        self.kind = kind
        self._origins: dict[str, str] = {}

    def __setitem__(self, name: str, value: T) -> None:
        """Raise UserError for a name that is taken, and inside a search space that is not a plug-in."""
        if _refusal is not None:
            raise UserError(f"{self.kind} {name!r} is registered in {_refusal}; name that file with --plugin, too")
        if name in self:
            owner = self._origins.get(name, "sweeper")
            raise UserError(f"{self.kind} {name!r} is registered by {owner} already; give yours another name")
        if _origin is not None:
            self._origins[name] = _origin
        super().__setitem__(name, value)

    def origin(self, name: str) -> str | None:
        """The plug-in that registered a name, as NAME-HASH. None for what sweeper brings."""
        return self._origins.get(name)

    def remove_from(self, origin: str) -> None:
        """Forget what a plug-in registered."""
        for name in [name for name, owner in self._origins.items() if owner == origin]:
            del self[name], self._origins[name]


_origin: str | None = None  # the plug-in that is being imported
_refusal: str | None = None  # the file that may register nothing


@contextmanager
def registering_as(origin: str) -> Iterator[None]:
    """Attribute what is registered inside the block to a plug-in."""
    global _origin
    before, _origin = _origin, origin
    try:
        yield
    finally:
        _origin = before


@contextmanager
def registering_refused(file: str) -> Iterator[None]:
    """Refuse what is registered inside the block: other processes would not know it."""
    global _refusal
    before, _refusal = _refusal, file
    try:
        yield
    finally:
        _refusal = before

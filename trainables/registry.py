"""Registries that a plug-in can extend: losses, games, generator families, data sets, feature networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from trainables.errors import UserError

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dict from names to registered objects. It records which plug-in registered each name."""

    def __init__(self, kind: str) -> None:
        """kind: the noun for messages, such as "loss" or "data set"."""
        super().__init__()
        self.kind = kind
        self._origins: dict[str, str] = {}

    def __setitem__(self, name: str, value: T) -> None:
        """Raise UserError if the name is taken, or if a search space that is not a plug-in registers it."""
        if _refusal is not None:
            raise UserError(f"{self.kind} {name!r} is registered in {_refusal}; name that file with --plugin, too")
        if name in self:
            owner = self._origins.get(name, "sweeper")
            raise UserError(f"{self.kind} {name!r} is registered by {owner} already; choose another name")
        if _origin is not None:
            self._origins[name] = _origin
        super().__setitem__(name, value)

    def origin(self, name: str) -> str | None:
        """Return the plug-in that registered a name, as NAME-HASH, or None if it is built in."""
        return self._origins.get(name)

    def remove_from(self, origin: str) -> None:
        """Remove all names that a plug-in registered."""
        for name in [name for name, owner in self._origins.items() if owner == origin]:
            del self[name], self._origins[name]


_origin: str | None = None  # NAME-HASH of the plug-in that is being imported
_refusal: str | None = None  # the file that must not register anything


@contextmanager
def registering_as(origin: str) -> Iterator[None]:
    """Attribute registrations inside the block to a plug-in."""
    global _origin
    previous, _origin = _origin, origin
    try:
        yield
    finally:
        _origin = previous


@contextmanager
def registering_refused(file: str) -> Iterator[None]:
    """Refuse registrations inside the block: other processes would not have them."""
    global _refusal
    previous, _refusal = _refusal, file
    try:
        yield
    finally:
        _refusal = previous

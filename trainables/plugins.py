"""Plug-ins: the user's own losses, games, generator families, data sets and feature networks.

A plug-in is a Python file or an importable module that registers them on import. Every process that reads its trials
imports it. Its name includes a hash of its content: NAME-HASH.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from trainables.datasets import DATASETS
from trainables.errors import UserError
from trainables.objectives import GAMES, LOSSES
from trainables.reading import read_content
from trainables.registry import registering_as
from trainables.scores.loading import FEATURES
from trainables.shapes import FAMILIES

GROUP = "sweeper.plugins"  # entry points whose modules every command loads


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in."""

    name: str
    hash: str
    reference: str  # the argument of --plugin: an absolute path or a module
    module: ModuleType

    @property
    def id(self) -> str:
        return f"{self.name}-{self.hash}"

    @property
    def file(self) -> Path | None:
        """The file of the plug-in, or None if it is an importable module."""
        return Path(self.reference) if self.reference.endswith(".py") else None


LOADED: dict[str, Plugin] = {}  # name → plug-in


def load(reference: str, *, expected: str | None = None) -> Plugin:
    """Import a plug-in unless it is already loaded.

    reference: a Python file or a module. expected: the NAME-HASH that it must have.
    Raises UserError if it does not load, registers a name that is taken, or has another hash.
    """
    is_file = reference.endswith(".py") or "/" in reference
    path = Path(os.path.realpath(os.path.expanduser(reference))) if is_file else _find_module(reference)
    if not (path.is_file() or (path.is_dir() and not is_file)):
        raise UserError(f"--plugin {reference}: there is no such file; name a Python file or a module")
    name = path.stem if is_file else reference.replace(".", "_")
    if not re.fullmatch(r"\w+", name):
        raise UserError(f"--plugin {reference}: use only letters, digits and '_' in the file name")
    try:
        digest = _content_hash(path)
    except OSError as error:
        raise UserError(f"--plugin {reference} cannot be read ({error.strerror or error})") from None
    identity = f"{name}-{digest}"
    if expected is not None and identity != expected:
        raise UserError(f"plug-in {reference} is {identity} here, not {expected}; use the same version on all nodes")
    if name in LOADED and LOADED[name].hash == digest:
        return LOADED[name]
    source = str(path) if is_file else reference
    if name in LOADED and LOADED[name].reference != source:
        raise UserError(f"--plugin {reference}: another plug-in {name} is already loaded; rename one of the two files")
    if name in LOADED:  # it was edited since
        unload(name)
    if not is_file and reference in sys.modules:  # what it registered then has no origin
        raise UserError(f"--plugin {reference} was imported before; import it by --plugin only")
    try:
        with registering_as(identity):
            module = _import_file(path, name) if is_file else importlib.import_module(reference)
    except BaseException as error:
        _forget(identity)
        if isinstance(error, UserError):
            raise UserError(f"--plugin {reference}: {error}") from None
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"--plugin {reference} does not load: {type(error).__name__}: {error}") from error
    LOADED[name] = Plugin(name, digest, source, module)
    return LOADED[name]


def load_installed() -> None:
    """Load the plug-ins that installed packages declare as entry points of the group `sweeper.plugins`."""
    for entry_point in entry_points(group=GROUP):
        load(entry_point.module)


def unload(name: str) -> None:
    """Remove a plug-in and all that it registered."""
    _forget(LOADED.pop(name).id)


def _forget(identity: str) -> None:
    for registry in (LOSSES, GAMES, FAMILIES, FEATURES, DATASETS):
        registry.remove_from(identity)


def _find_module(module: str) -> Path:
    """Return the file of a module, or the folder of a package."""
    try:
        specification = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        specification = None
    if specification is None or specification.origin is None:
        raise UserError(f"--plugin {module}: there is no such module; name a Python file or a module on PYTHONPATH")
    path = Path(specification.origin)
    return path.parent if path.name == "__init__.py" else path


def _content_hash(path: Path) -> str:
    """Return the hash of a file, or of all Python files of a package."""
    content = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        content.update(f"{file.relative_to(path).as_posix()}\0".encode() + read_content(file))
    return content.hexdigest()[:8]


def _import_file(path: Path, name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"sweeper_plugin_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses and pickle look up the module by name
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module

"""Read JSON files. What is read is checked: a file can be damaged, half restored, or a stranger's."""

import os
import re
import stat
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from trainables.errors import UserError
from trainables.existence import exists

T = TypeVar("T")

MAX_BYTES = 2**28  # of a file that is read at once; the manifest of 100,000 trials has 2 MB
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

# Names of sweeps, data sets, trials and plug-ins are parts of paths: no slash, no control character, and not "..".
NAME = re.compile(r"[\w.-]*\w[\w.-]*")
MAX_NAME = 160  # bytes; with the suffixes of a temporary file, a file name has at most 255
Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$", max_length=MAX_NAME)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=100_000)]  # for a terminal
MAX_COUNT = 10**12  # sums and products of such counts stay exact, or finite as floats
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Size = Annotated[int, Field(ge=0, le=10**18)]  # in bytes
Number = Annotated[float, Field(ge=-1e100, le=1e100)]  # squares and sums of these are finite
Seconds = Annotated[float, Field(ge=0, le=1e12)]


def read_content(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises OSError, also for a pipe, which could wait for ever."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        if status.st_size > MAX_BYTES:
            raise OSError(f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
        return file.read()


def read_record(path: Path, kind: type[T], remedy: str = "restore it from a backup, or delete it") -> T | None:
    """Return the value of a JSON file. None if there is no such file.

    kind: its type, such as a dataclass with `__pydantic_config__ = STRICT`, or `dict[str, Number]`. remedy: what to do
    about a wrong file, for the message.
    Raises UserError for a value of another type, and for anything but a regular file.
    """
    try:
        content = _read_existing(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from None
    try:
        return checked(content, kind)
    except ValueError as error:
        raise UserError(f"{path} is corrupt ({error}); {remedy}") from None


def _read_existing(path: Path) -> bytes:
    """Return the bytes of a file that may have come to exist a moment ago, on another host. Raises OSError."""
    try:
        return read_content(path)
    except FileNotFoundError:
        if exists(path):
            return read_content(path)
        raise


def checked(content: bytes | str, kind: type[T]) -> T:
    """Return the value of a JSON text. Raises ValueError, in one line that names the field."""
    hashable: Any = kind
    try:
        value: T = _adapter(hashable).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"] if part != "[key]")
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    return value


def one_of(*words: str) -> StringConstraints:
    """Return the constraint of a word that is one of these."""
    return StringConstraints(pattern=f"^({'|'.join(words)})$")


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a sweep or a data set, and so part of a path."""
    return NAME.fullmatch(text) is not None and len(os.fsencode(text)) <= MAX_NAME


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    has_config = hasattr(kind, "__pydantic_config__")
    return TypeAdapter(kind, config=None if has_config else STRICT)

"""Errors that the user can fix. The message is one line: what is wrong, which value, what to type next."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # no line of UTF-8 has these


def printable(text: str) -> str:
    """Return a text in one line, with escapes for control characters and for what is not UTF-8."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class UserError(Exception):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class NotFiniteError(UserError):
    """The generator diverged: its images are NaN or infinite."""


class SpoiledError(UserError):
    """A file is missing, damaged, or not the one that was recorded. The caller says what to type, or makes it again."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path


class LostClaimError(UserError):
    """Another command has taken the store, because this one gave no sign of life. Nothing more may be written."""


class NotYetError(UserError):
    """Another command must run first (exit code 4)."""

    exit_code = 4


class EnvironmentUserError(UserError):
    """The machine lacks something: a weights file, a data set, a device (exit code 5)."""

    exit_code = 5


class DiskError(EnvironmentUserError, OSError):
    """A file cannot be written or read: the disk is full, read-only, of another user, or broken.

    Arguments: as of OSError: errno, its text, and the folder or file.
    """

    def __str__(self) -> str:
        advice = _ADVICE.get(self.errno or 0, "check it, then run the same command again")
        return f"{self.filename or 'a file'}: {self.strerror}; {advice}"


FULL = {errno.ENOSPC, errno.EDQUOT}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
_ADVICE = {
    errno.ENOSPC: "free some space (`sweeper clean` lists what can go), then run the same command again",
    errno.EDQUOT: "free some space (`sweeper clean` lists what can go), then run the same command again",
    errno.EROFS: "name another folder, or mount it for writing",
    errno.EACCES: "name another folder, or ask its owner for the permission",
    errno.EPERM: "name another folder, or ask its owner for the permission",
}


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Turn an error of the disk in the block into one that names the folder. Raises DiskError."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        number = error_number(error)
        if number not in DISK_ERRORS:
            raise
        raise DiskError(number, os.strerror(number), str(folder)) from error


def error_number(error: Exception) -> int | None:
    """Return the number of an error of the operating system, which Rust and numpy write into the text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1])
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC
    return None


class MissingPluginError(UserError):
    """A trial needs a plug-in that is not loaded."""

    def __init__(self, plugin: str, what: str, copy: str | None = None) -> None:
        """plugin: NAME-HASH. what: the field that names it, as FIELD=VALUE. copy: path of a copy of the plug-in."""
        files = " --plugin ".join(f"{identity.rpartition('-')[0]}.py" for identity in plugin.split("+"))
        source = copy or f"{files}, or its module"
        super().__init__(f"{what} is defined by plug-in {plugin}, which is not loaded; add --plugin {source}")
        self.plugin, self.what = plugin, what


class Interrupted(Exception):
    """A training was asked to stop. Its checkpoint is saved."""

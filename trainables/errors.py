"""Errors that the user can fix. The message is one line: what is wrong, which value, what to type next."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # no line of UTF-8 has these


def printable(text: str) -> str:
    """Return a text in one line, with escapes for control characters and for what is not UTF-8."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class UserError(Exception):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class NotFiniteError(UserError):
    """The generator diverged: its images are NaN or infinite."""


class NotYetError(UserError):
    """Another command must run first (exit code 4)."""

    exit_code = 4


class EnvironmentUserError(UserError):
    """The machine lacks something: a weights file, a data set, a device (exit code 5)."""

    exit_code = 5


class MissingPluginError(UserError):
    """A trial needs a plug-in that is not loaded."""

    def __init__(self, plugin: str, what: str, copy: str | None = None) -> None:
        """plugin: NAME-HASH. what: the field that names it, as FIELD=VALUE. copy: path of a copy of the plug-in."""
        files = " --plugin ".join(f"{identity.rpartition('-')[0]}.py" for identity in plugin.split("+"))
        source = copy or f"{files}, or its module"
        super().__init__(f"{what} is defined by plug-in {plugin}, which is not loaded; add --plugin {source}")
        self.plugin, self.what = plugin, what

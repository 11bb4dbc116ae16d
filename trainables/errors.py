"""Errors that the user can fix. The message is one line: what is wrong, which value, what to type next."""


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


class Interrupted(Exception):
    """A training was asked to stop. Its checkpoint is saved."""

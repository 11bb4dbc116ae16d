"""Errors that are the user's to mend: one line that says what is wrong, with which value, and what to type next."""


class UserError(Exception):
    """Usage or configuration (exit code 2)."""

    exit_code = 2


class NotFiniteError(UserError):
    """A generator's images are NaN or infinite: it has diverged."""


class NotYetError(UserError):
    """Something must be run first (exit code 4)."""

    exit_code = 4


class EnvironmentUserError(UserError):
    """The machine lacks something: a weights file, a data set, a device (exit code 5)."""

    exit_code = 5


class MissingPluginError(UserError):
    """A trial needs a plug-in that is not loaded."""

    def __init__(self, plugin: str, what: str, copy: str | None = None) -> None:
        """plugin: NAME-HASH. what: the field that the plug-in defines, with its value. copy: a copy of its file."""
        where = copy or f"{plugin.rpartition('-')[0]}.py or its module"
        super().__init__(f"{what} is defined by plug-in {plugin}, which is not loaded; add --plugin {where}")
        self.plugin, self.what = plugin, what

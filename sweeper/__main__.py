"""The entry of `sweeper` and of `python -m sweeper`: runs the command line, and turns errors and signals into lines."""

import io
import os
import sys
from typing import TYPE_CHECKING

from sweeper.execution import interruption
from sweeper.typed_command import command
from trainables.errors import DISK_ERRORS, DiskError, EnvironmentUserError, UserError, error_number, printable

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the command line. Report a mistake of the user in one line, and exit with its code."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: whatever its encoding, no character is an error
    for word in sys.argv[1:]:
        if word != printable(word):  # records and messages hold the command in one line of UTF-8
            print(f"error: {printable(word)}: has characters that cannot be printed; rename it", file=sys.stderr)
            sys.exit(UserError.exit_code)
    interruption.handle(f"interrupted; continue with `{command()}`" if sys.argv[1:2] == ["run"] else "")
    try:
        code = _run()
        if code == interruption.EXIT_CODE:
            interruption.end()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it exits
        sys.exit(1)
    except Exception as error:
        # The one place where an error of a file becomes a line. Any other error is a defect and shows its traceback.
        number, file = error_number(error), getattr(error, "filename", None)
        if number is None or (file is None and number not in DISK_ERRORS):
            raise
        failed = DiskError(number, os.strerror(number), file)
        print(f"error: {printable(str(failed))}", file=sys.stderr)
        sys.exit(failed.exit_code)
    except KeyboardInterrupt:
        interruption.end()


def _run() -> int:
    """Return the exit code of the command line. Raises what the user can correct, KeyboardInterrupt after a signal."""
    try:
        os.getcwd()
    except OSError:
        raise EnvironmentUserError("the current folder is gone; change to another one") from None
    # These imports take a moment, in which a signal may come.
    import typer

    from sweeper.cli import app

    try:
        # Without standalone_mode Typer returns exit codes (also after Ctrl-C), and raises errors of usage instead of
        # printing them.
        return int(app(prog_name="sweeper", standalone_mode=False) or 0)
    except typer.TyperException as error:
        print(_usage_error(error), file=sys.stderr)
        return error.exit_code


def _usage_error(error: "typer.TyperException") -> str:
    """The error in one line that names the help. For a group without a command, its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer does not export the class
        return str(error.format_message())
    said = printable(" ".join(error.format_message().split()).removesuffix("."))
    context = getattr(error, "ctx", None)
    return f"error: {said}; see `{context.command_path if context else 'sweeper'} --help`"


if __name__ == "__main__":
    main()

"""Ctrl-C and SIGTERM in the command: what runs is stopped in order, and the command ends within seconds.

The first signal raises KeyboardInterrupt, or inside `deferred` is only noted. A second one, or the first one after
SECONDS, ends the process wherever it is, with its children. A thread sees to that: the handlers of Python wait for a
call of C to return.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
SECONDS = 13.0  # from the first signal to the exit, at most
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interruption:
    """The state of this process."""

    def __init__(self) -> None:
        self.handled = self.requested = self.deferred = False
        self.hint = ""  # what the command prints when it ends by a signal
        self.printed = False


_STATE = _Interruption()


def handle(hint: str) -> None:
    """Handle the signals from now on, in the main thread. hint: one line that says how to continue, or empty."""
    _STATE.hint = hint
    if _STATE.handled:
        return
    _STATE.handled = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    install()


def install() -> None:
    """Set the handlers (again: ray.init replaces one). A signal that the parent process ignores stays ignored."""
    for number in _SIGNALS if _STATE.handled else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Raise nothing inside the block. Yield a function that returns whether a signal has arrived."""
    _STATE.deferred = True
    try:
        yield lambda: _STATE.requested
    finally:
        _STATE.deferred = False


def print_hint() -> None:
    """Print how to continue, once."""
    if _STATE.hint and not _STATE.printed:
        _STATE.printed = True
        print(_STATE.hint, file=sys.stderr, flush=True)


def end() -> NoReturn:
    """Print how to continue, and exit.

    After a signal at once: Python ends by the signal itself, whatever exit code it is given, if KeyboardInterrupt was
    raised inside code that is compiled at run time, as that of data classes is.
    """
    print_hint()
    if _STATE.requested:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(EXIT_CODE)
    sys.exit(EXIT_CODE)


def _on_signal(number: int, frame: FrameType | None) -> None:
    first, _STATE.requested = not _STATE.requested, True
    if first and not _STATE.deferred:
        raise KeyboardInterrupt


def _watch(reading: int) -> None:
    """Wait for the first signal, then for a second one or the end of the time. The file gets a byte per signal."""
    while not set(os.read(reading, 64)) & set(_SIGNALS):
        pass
    last = threading.Timer(SECONDS, _exit)
    last.daemon = True
    last.start()
    while not set(os.read(reading, 64)) & set(_SIGNALS):
        pass
    _exit()


def _exit() -> None:
    """End this process and its descendants at once."""
    kill(set(descendants()))
    if sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr)  # the live view hides the cursor
    print_hint()
    os._exit(EXIT_CODE)


def kill(processes: set[int]) -> None:
    """Kill the processes that have not ended yet, and empty the set: their numbers may soon be those of others."""
    while processes:
        with suppress(ProcessLookupError):
            os.kill(processes.pop(), signal.SIGKILL)


def descendants(process: int | None = None) -> list[int]:
    """Return the processes below a process, by default this one. None are below one that has ended."""
    import psutil  # here, because `sweeper --help` imports this module

    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    return []

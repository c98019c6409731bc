"""What a user sees when something goes wrong: one line on standard error, and an exit code that says whose fault."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

MACHINE, USER, INTERRUPTED, PIPE = 1, 2, 130, 141


class Failure(Exception):
    """Not the user's mistake: training diverged, a check of the demo did not hold."""


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with errors that a user can do something about as one line. A bug keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = exit_code(error)
            if code is None or os.environ.get("RUNNEL_TRACEBACK"):
                raise
            if code != PIPE:  # the reader has gone (`| head`), and with it the need to say anything
                say(message(error))
            raise typer.Exit(code) from None

    return run


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error; None when it is not one that a user is told of in one line."""
    table: list[tuple[tuple[type[BaseException], ...], int]] = [
        ((KeyboardInterrupt,), INTERRUPTED),
        ((BrokenPipeError,), PIPE),
        ((FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError), USER),
        ((ValueError,), USER),
        ((OSError, MemoryError, Failure), MACHINE),
    ]
    if isinstance(error, RuntimeError) and "not enough memory" in str(error).lower():  # as torch says it on a CPU
        return MACHINE
    return next((code for kinds, code in table if isinstance(error, kinds)), None)


def message(error: BaseException) -> str:
    """One line, whatever the error has to say."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    defaults = {"KeyboardInterrupt": "stopped; the same command again starts over", "MemoryError": "not enough memory"}
    return " ".join(str(error).split()) or defaults.get(type(error).__name__, type(error).__name__)


def say(text: str) -> None:
    """One line to standard error, with the name of the program before it; of several ranks the first speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    print(f"runnel: {text}", file=sys.stderr)

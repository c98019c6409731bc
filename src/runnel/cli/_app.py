"""The command line as a whole: finds the commands by looking at this folder, runs one, turns errors into exit codes."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from runnel.cli._errors import USER, guarded, say

HELP = """A small state, a long stream: train, run and study autoregressive sequence models of any architecture.

Start with `runnel demo`: it trains a model on real text in 90 seconds. Each command has --help with an example.

\b
Exit codes: 0 done; 2 a mistake in what was asked; 1 the machine or the training failed; 130 stopped by Ctrl-C.
Errors are one line on standard error; RUNNEL_TRACEBACK=1 shows where they come from."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 must not end a run
    try:
        return application()(list(arguments) or ["--help"], prog_name="runnel", standalone_mode=False) or 0
    except Exception as error:
        # Usage errors are click's own or typer's copies of them, by version; both have these.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        say(f"{error.format_message().rstrip('.')} (see: {context.command_path if context else 'runnel'} --help)")
        return USER


def application() -> typer.Typer:
    """All commands. Every file of this folder that does not begin with an underscore is one."""
    app = typer.Typer(
        add_completion=False, no_args_is_help=False, rich_markup_mode="rich", pretty_exceptions_enable=False
    )
    app.callback(help=HELP)(_top)
    for name in command_names():
        module = importlib.import_module(f"runnel.cli.{name}")
        app.command(name)(guarded(module.command))
    return app


def command_names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def _print_version(asked: bool) -> bool:
    if asked:
        print(version("runnel"))
        raise typer.Exit
    return asked


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `runnel` itself."""

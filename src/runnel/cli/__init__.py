"""The `runnel` command: one command a file, `command` being its function. Nothing heavy is imported before it is used."""

from __future__ import annotations

import sys

from runnel.cli._app import run

__all__ = ["main"]


def main() -> None:
    """Entry point of the `runnel` script."""
    sys.exit(run(sys.argv[1:]))

"""The `runnel` command: one command a file, its function called `command`. Heavy imports wait until they are used."""

from __future__ import annotations

import sys

from runnel.cli._app import run

__all__ = ["main"]


def main() -> None:
    """Entry point of the `runnel` script."""
    sys.exit(run(sys.argv[1:]))

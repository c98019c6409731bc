"""The `runnel` command: one command a file, its function called `command`. Heavy imports wait until they are used."""

from __future__ import annotations

import os
import sys

from runnel.cli._app import run

__all__ = ["main"]

# OpenMP's threads wait for each other by spinning. Where another program wants a core too, that made training twenty
# times slower here; a short spin costs little on an idle machine. It must be set before PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    """Entry point of the `runnel` script."""
    sys.exit(run(sys.argv[1:]))

"""The command line without a process of its own."""

from tests.cli.conftest import in_process

__all__ = ["in_process"]

"""What a command was given to read."""

from __future__ import annotations

import sys
from pathlib import Path


def text(text: str | None, file: str | None) -> str | None:
    """The text itself, or that of a file ("-": standard input); bytes that are not UTF-8 survive as surrogates."""
    if file is None:
        return text
    raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return raw.decode("utf-8", errors="surrogateescape")

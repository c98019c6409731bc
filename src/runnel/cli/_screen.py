"""What the commands print with: aligned columns, streamed text, and a progress bar that is plain lines in a pipe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

PLAIN_SECONDS = 10.0
"""Time between progress lines where there is no terminal."""


def heading(text: str) -> None:
    """A line that begins a part of the output."""
    print()
    Console(highlight=False).print(Text(text, style="bold"), soft_wrap=True)


def note(text: str) -> None:
    """A line for people, to standard error, so that standard output stays for results."""
    print(text, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as aligned lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


class TextOut:
    """Standard output for text as it is made: coloured and made harmless on a terminal; into a pipe exactly as it is,
    or without control characters when it is not `raw`.
    """

    def __init__(self, raw: bool = True) -> None:
        self.raw = raw
        self.console = Console(highlight=False) if sys.stdout.isatty() else None

    def write(self, text: str, style: str = "") -> None:
        if self.console is None:
            sys.stdout.write(text if self.raw else printable(text))
        else:
            self.console.print(Text(printable(text), style=style), end="", soft_wrap=True)
        sys.stdout.flush()

    def decorate(self, text: str, style: str) -> None:
        """Text for a reader at a terminal only."""
        if self.console is not None:
            self.write(text, style)


def printable(text: str) -> str:
    """The text with control characters spelled out: a model of bytes may write what would upset a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class Bar:
    """A progress bar with a line of text; `update` may be called as often as one likes."""

    def __init__(self, live: Progress | None, title: str) -> None:
        self.live, self.title, self.printed = live, title, time.monotonic()
        self.task = live.add_task(title, total=1.0, text="") if live else None

    def update(self, progress: float, text: str) -> None:
        """progress: in [0, 1]."""
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=progress, text=text)
        elif progress >= 1 or time.monotonic() - self.printed >= PLAIN_SECONDS:
            self.printed = time.monotonic()
            note(f"{self.title} {progress:4.0%}  {text}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A bar on standard error: live on a terminal, a plain line now and then elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield Bar(None, title)
        return
    parts = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.percentage:3.0f}%"))
    wrapped = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=False))
    with Progress(*parts, wrapped, console=console) as live:
        yield Bar(live, title)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done while its length is not known: a spinner on a terminal, a plain line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        note(f"{what} ...")
        yield
        return
    with console.status(what):
        yield


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 2:00:03."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n_bytes: float) -> str:
    """Bytes as 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError

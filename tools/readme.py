"""Write the table that `runnel methods --markdown` prints into README.md: `python tools/readme.py`."""

from __future__ import annotations

from pathlib import Path

import runnel
from runnel.cli import methods

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods -->\n", "\n<!-- /methods -->"


def filled(text: str) -> str:
    """The text with today's table between its markers. ValueError unless it has one pair of them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after:
        raise ValueError(f"{README.name} must have {BEGIN.strip()} and {END.strip()} once each")
    return before + begin + methods.table(runnel.methods()) + end + after


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")

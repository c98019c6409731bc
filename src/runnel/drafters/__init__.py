"""Drafters: who guesses continuations for the model to verify, one proposer a file.

A page defines a frozen `Config`, a `Drafter` (see `runnel.drafter`) and `PAPERS`; one that is trained for a target says
`TRAINED = True`, is a `TrainedDrafter` (see `runnel.trained`) and has its loss in `runnel.objectives`.
A drafter changes how fast a text is written, never the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from runnel.draft import Draft, Draw, Seen
from runnel.drafter import Drafter
from runnel.trained import load, save

__all__ = ["Draft", "Drafter", "Draw", "Seen", "copied", "load", "save"]


def copied(text: Sequence[int], start: int, count: int) -> list[int]:
    """`count` tokens of the text from `start` < len(text) on; past its end, the copy reads itself (a period goes
    on).
    """
    assert start < len(text)
    period = len(text) - start
    return [text[start + i % period] for i in range(count)]

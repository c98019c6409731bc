"""Length policies: how much is drafted in a round, one policy a file.

A page defines a frozen `Config`, a `LengthPolicy` and `PAPERS`. A policy gives every row a budget before its drafter
guesses, may cut what was guessed, and sees what became of it. It changes how fast a text is written, never the text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from runnel.draft import Draft
from runnel.rows import Forest, Walk


class Round(NamedTuple):
    """What a round of the loop was. rows: the index of each row in it. forest: what was verified. walks: one per row.

    draft_seconds, verify_seconds: wall time of proposing, and of what came after the choice: the call of the model,
    acceptance, commit, and telling who wants to know. seconds: of the whole round.
    """

    rows: Sequence[int]
    forest: Forest
    walks: Sequence[Walk]
    draft_seconds: float
    verify_seconds: float
    seconds: float


class LengthPolicy(ABC):
    """A policy. One object serves one call of `generate`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def budgets(self, rows: Sequence[int], room: Sequence[int]) -> list[int]:
        """How long a path each row may draft: at most its room, 0 for nothing."""

    def trimmed(self, rows: Sequence[int], drafts: Sequence[Draft]) -> list[Draft]:
        """What of the drafts is worth its verification. It is asked when there is any."""
        return list(drafts)

    def observe(self, round: Round) -> None:
        """Note what a round cost and what it gained."""
        return

    def rest(self) -> int:
        """Rounds from now on that draft nothing, of which the policy is neither asked nor told."""
        return 0

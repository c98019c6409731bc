"""Drafter: what every page of `drafters/` is.

What a drafter remembers of a row is a plain object, its *memory*: `begin` makes it from the prompt, `propose` guesses
from it, `advance` tells it what was really written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from runnel.draft import Draft, Draw, Seen
from runnel.state import Place


class Drafter(ABC):
    """A proposer. vocab_size: how many tokens it knows, when that is a number of its own (a draft model's).

    reads_hidden: it is to be given the model's hidden vectors of the prompt (`read`). looks_back: it is to be told
    what the model said in every round (`look_back`). policy: the length policy that it is meant for.
    """

    vocab_size: int | None = None
    reads_hidden = False
    looks_back = False
    policy = "fixed"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def begin(self, prompt: Sequence[int], draw: Draw) -> Any:
        """The memory of a row whose text so far is `prompt` (at least one token)."""

    def read(self, memory: Any, hidden: Tensor) -> None:
        """Note the model's hidden vectors (T, D) after the last T tokens of the prompt but its newest."""
        return

    @abstractmethod
    def propose(self, memory: Any, budget: int) -> Draft:
        """Guess what follows. Paths longer than `budget` >= 1 tokens cannot be accepted, so that more is waste."""

    @abstractmethod
    def advance(self, memory: Any, tokens: Sequence[int]) -> None:
        """Note the tokens that followed, whether proposed or not: those of several rounds together, unless it looks
        back. Changes the memory in place.
        """

    def look_back(self, memory: Any, seen: Seen) -> None:
        """Note what the model said in a round, before `advance` tells what followed."""
        return

    def stand(self, memory: Any, place: Place) -> None:
        """Note the place of the model's state that has read the row but its newest token: after the prompt, and
        before every `advance`.
        """
        return

    def propose_all(self, memories: Sequence[Any], budgets: Sequence[int]) -> list[Draft]:
        """One draft per row; empty where the budget is 0. Drafters that gain from a batch override this."""
        return [
            self.propose(memory, budget) if budget > 0 else Draft([], [])
            for memory, budget in zip(memories, budgets, strict=True)
        ]

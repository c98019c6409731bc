"""Drafters: who guesses continuations for the model to verify, one proposer a file.

A page defines a frozen `Config`, a `Drafter` and `PAPERS`. What a drafter remembers of a row is a plain object, its
*memory*: `begin` makes it from the prompt, `propose` guesses from it, `advance` tells it what was really written.
A drafter changes how fast a text is written, never the text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Draw(Protocol):
    """The row's own way to pick a token. A drafter with a law of its own draws with it, so that it errs only where its
    law does.
    """

    def __call__(self, logits: Tensor, ahead: int, path: Sequence[int] = ()) -> int:
        """The token that the row's decoder and noise would pick from logits (V,), `ahead` places after the next one.

        path: the tokens guessed for the places in between. They matter to a decoder that looks at the text; left out,
        the guess is only less likely to be right.
        """


class Draft(NamedTuple):
    """A tree of guesses after the newest token of a row.

    tokens: the nodes. parents: for each the index of the node that it follows, an earlier one, or -1 for the newest
    token.
    """

    tokens: list[int]
    parents: list[int]

    @classmethod
    def chain(cls, tokens: Sequence[int]) -> Draft:
        """One continuation, each token after the one before it."""
        return cls(list(tokens), list(range(-1, len(tokens) - 1)))


class Drafter(ABC):
    """A proposer. vocab_size: how many tokens it knows, when that is a number of its own (a draft model's)."""

    vocab_size: int | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def begin(self, prompt: Sequence[int], draw: Draw) -> Any:
        """The memory of a row whose text so far is `prompt` (at least one token)."""

    @abstractmethod
    def propose(self, memory: Any, budget: int) -> Draft:
        """Guess what follows. Paths longer than `budget` >= 1 tokens cannot be accepted, so that more is waste."""

    @abstractmethod
    def advance(self, memory: Any, tokens: Sequence[int]) -> None:
        """Note the tokens that followed, whether proposed or not. Changes the memory in place."""

    def propose_all(self, memories: Sequence[Any], budgets: Sequence[int]) -> list[Draft]:
        """One draft per row; empty where the budget is 0. Drafters that gain from a batch override this."""
        return [
            self.propose(memory, budget) if budget > 0 else Draft([], [])
            for memory, budget in zip(memories, budgets, strict=True)
        ]


def copied(text: Sequence[int], start: int, count: int) -> list[int]:
    """`count` tokens of the text from `start` < len(text) on; past its end, the copy reads itself (a period goes
    on).
    """
    assert start < len(text)
    period = len(text) - start
    return [text[start + i % period] for i in range(count)]

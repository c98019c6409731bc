"""Prompt lookup: what followed the last time that the newest few tokens stood in the text, copied.

Paper: "Inference with Reference: Lossless Acceleration of Large Language Models" (2023, 2304.04487), section 3.

    for n = max_ngram .. min_ngram: if y_{t-n+1..t} = y_{j-n+1..j} for some j < t, take the largest such j and draft
    y_{j+1}, ..., y_{j+k}                                                              (1)

| code | paper |
|---|---|
| max_ngram, min_ngram | the trigger: matched length n |
| max_draft | copy length k |

Deviates: the reference is the row's own text, prompt and output alike (the paper also copies from retrieved documents);
the newest match wins, longer triggers first; a copy that reaches the end of the text goes on with itself.
The last place of every n-gram is kept in a table, so that a token costs max_ngram look-ups however long the text is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runnel.drafters import Draft, Drafter, Draw, copied

PAPERS = {"Inference with Reference: Lossless Acceleration of Large Language Models": "2304.04487"}


@dataclass(frozen=True)
class Config:
    """1 <= min_ngram <= max_ngram; max_draft >= 1."""

    max_ngram: int = 4
    min_ngram: int = 2
    max_draft: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.min_ngram <= self.max_ngram:
            raise ValueError(f"min_ngram must lie in [1, max_ngram = {self.max_ngram}]; got {self.min_ngram}")
        if self.max_draft < 1:
            raise ValueError(f"max_draft must be at least 1; got {self.max_draft}")


@dataclass
class Memory:
    """seen: where the text went on after the last place of an n-gram. match: where it did for the newest n-gram, or
    None.
    """

    text: list[int] = field(default_factory=list)
    seen: dict[tuple[int, ...], int] = field(default_factory=dict)
    match: int | None = None


class PromptLookup(Drafter):
    config: Config

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        memory = Memory()
        self.advance(memory, prompt)
        return memory

    def propose(self, memory: Memory, budget: int) -> Draft:
        if memory.match is None:
            return Draft([], [])
        return Draft.chain(copied(memory.text, memory.match, min(budget, self.config.max_draft)))

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.text.append(token)
            memory.match = self._note(memory)

    def _note(self, memory: Memory) -> int | None:
        """Enter the n-grams that end here; where the longest one known went on, if any."""
        end, found = len(memory.text), None
        for n in range(self.config.min_ngram, min(self.config.max_ngram, end) + 1):
            ngram = tuple(memory.text[end - n :])
            found = memory.seen.get(ngram, found)
            memory.seen[ngram] = end
        return found


def reference(text: Sequence[int], config: Config) -> int | None:
    """Where the text went on after the newest match of its last tokens, by scanning it; None without a match."""
    size = len(text)
    for n in range(min(config.max_ngram, size), config.min_ngram - 1, -1):
        for end in range(size - 1, n - 1, -1):
            if list(text[end - n : end]) == list(text[size - n :]):
                return end
    return None

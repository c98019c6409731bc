"""Suffix automaton: what followed the longest suffix of the text that had occurred before, copied.

Paper: "SAM Decoding: Speculative Decoding via Suffix Automaton" (2024, 2411.10666), section 3, the dynamic automaton.

    match_t = the longest suffix of y_1..y_t that is a substring of y_1..y_{t-1}       (1)
    draft   = y_{e+1}, ..., y_{e+k},  e the first place where match_t ends             (2)

The automaton (`runnel.ops.suffix_automaton`) costs O(1) a token, amortised, and O(t) in space.

| code | paper |
|---|---|
| edges, link, longest, first_end | next, link, length, min_endpos |
| min_match | threshold on the match length below which the draft is not worth it |
| max_draft | n_predicts |

Deviates: a copy that reaches the end of the text goes on with itself, instead of falling back to a shorter match with
more text after it; a match that a split has moved to the new state is followed there. The static automaton, and what is
drafted below the threshold, is the page `corpus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnel.drafters import Draft, Drafter, Draw, copied
from runnel.ops import suffix_automaton
from runnel.ops.suffix_automaton import RepeatingText

PAPERS = {"SAM Decoding: Speculative Decoding via Suffix Automaton": "2411.10666"}


@dataclass(frozen=True)
class Config:
    min_match: int = 3
    max_draft: int = 16

    def __post_init__(self) -> None:
        for name, value in (("min_match", self.min_match), ("max_draft", self.max_draft)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")


class Suffix(Drafter):
    config: Config

    def begin(self, prompt: Sequence[int], draw: Draw) -> RepeatingText:
        return RepeatingText(prompt)

    def propose(self, memory: RepeatingText, budget: int) -> Draft:
        if memory.match[1] < self.config.min_match:
            return Draft([], [])
        start, length = memory.end(memory.match), memory.match[1]
        return Draft.chain(copied(memory.text, start, min(budget, self.config.max_draft)), trust=length)  # eq. (2)

    def advance(self, memory: RepeatingText, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.append(token)  # eq. (1)


def reference(text: Sequence[int]) -> tuple[int, int]:
    """(length, end) of eq. (1) and (2), by trying everything."""
    return suffix_automaton.reference(text[:-1], text)

"""Auto: for whoever does not want to choose: copies where the text repeats, as far as copying pays.

Paper: the copies are those of `suffix` ("SAM Decoding: Speculative Decoding via Suffix Automaton", 2024, 2411.10666);
how much of them is verified, if any, is up to `policies/goodput`.

    draft = what followed the longest suffix of the text that had occurred before, if it is at least min_match long  (1)

It needs no training and no second model, and costs microseconds. min_match is short, because the policy learns how
often short matches hold. Guesses from elsewhere (`token_recycling`, `adaptive`) are right more often on text that does
not repeat, but their trees cost more on a CPU than they gain; give them by name where that is otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runnel import catalog
from runnel.drafters import Draft, Drafter, Draw

PAPERS = {"SAM Decoding: Speculative Decoding via Suffix Automaton": "2411.10666"}


@dataclass(frozen=True)
class Config:
    """min_match, max_draft >= 1."""

    min_match: int = 2
    max_draft: int = 24

    def __post_init__(self) -> None:
        for name in ("min_match", "max_draft"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")


class Auto(Drafter):
    config: Config
    policy = "goodput"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        copying = catalog.page("drafters", "suffix").Config(config.min_match, config.max_draft)
        self.drafter: Drafter = catalog.make("drafters", Drafter, copying)

    def begin(self, prompt: Sequence[int], draw: Draw) -> Any:
        return self.drafter.begin(prompt, draw)

    def propose(self, memory: Any, budget: int) -> Draft:
        return self.drafter.propose(memory, budget)

    def advance(self, memory: Any, tokens: Sequence[int]) -> None:
        self.drafter.advance(memory, tokens)


def reference(match_length: int, config: Config) -> bool:
    """Whether eq. (1) drafts after a match of this length."""
    return match_length >= config.min_match

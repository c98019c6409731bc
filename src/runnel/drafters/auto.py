"""Auto: for whoever does not want to choose: copies where the text repeats, elsewhere what the model ranked high.

Papers: the parts are `corpus` ("SAM Decoding: Speculative Decoding via Suffix Automaton", 2024, 2411.10666) without a
corpus, over `token_recycling` ("Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token
Recycling", 2024, 2408.08696); how much of their guesses is verified, if any, is up to `policies/goodput`.

    draft = a copy of what followed the longest earlier match, if it is at least min_match long      (1)
            else the tree of recycled tokens                                                         (2)

Neither needs training or a second model. min_match is short, because the policy knows how often short matches hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runnel import catalog
from runnel.drafters import Draft, Drafter, Draw, Seen

PAPERS = {
    "SAM Decoding: Speculative Decoding via Suffix Automaton": "2411.10666",
    "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling": "2408.08696",
}


@dataclass(frozen=True)
class Config:
    """min_match, max_draft >= 1; nodes >= 1: of the tree of eq. (2)."""

    min_match: int = 2
    max_draft: int = 24
    nodes: int = 15


class Auto(Drafter):
    config: Config
    policy = "goodput"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        recycling = catalog.page("drafters", "token_recycling").Config(nodes=config.nodes)
        copying = catalog.page("drafters", "corpus").Config(
            min_match=config.min_match, max_draft=config.max_draft, otherwise=recycling
        )
        self.drafter: Drafter = catalog.make("drafters", Drafter, copying)
        self.looks_back = self.drafter.looks_back

    def begin(self, prompt: Sequence[int], draw: Draw) -> Any:
        return self.drafter.begin(prompt, draw)

    def read(self, memory: Any, hidden: Tensor) -> None:
        self.drafter.read(memory, hidden)

    def propose(self, memory: Any, budget: int) -> Draft:
        return self.drafter.propose(memory, budget)

    def advance(self, memory: Any, tokens: Sequence[int]) -> None:
        self.drafter.advance(memory, tokens)

    def look_back(self, memory: Any, seen: Seen) -> None:
        self.drafter.look_back(memory, seen)


def reference(match_length: int, config: Config) -> str:
    """Which of (1) and (2) drafts after a match of this length."""
    return "copy" if match_length >= config.min_match else "recycle"

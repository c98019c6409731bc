"""Copy-constrained: what is written must be a run of tokens of a corpus.

Paper: "Autoregressive Search Engines: Generating Substrings as Document Identifiers" (2022, 2204.10628), section 3.

    l'_v = -inf  unless y_1..y_t v occurs in a text of the corpus                      (1)

The text may end anywhere. A run does not cross from one text of the corpus to the next.

Deviates: the index is a suffix automaton (`runnel.ops.suffix_automaton`) where the paper has an FM-index: a token costs
one step, whatever the corpus and the length of the run, at more memory. Only the constrained decoding is here, with
`count`, how often a run occurs; how the paper ranks documents by the runs that were written is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from runnel.ops.suffix_automaton import SuffixAutomaton
from runnel.processors import Constraint

PAPERS = {"Autoregressive Search Engines: Generating Substrings as Document Identifiers": "2204.10628"}
BORDER = -1
"""What stands between the texts of the corpus: no token."""


@dataclass(frozen=True)
class Config:
    """corpus: texts, of at least one token altogether."""

    corpus: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if not any(len(text) for text in self.corpus):
            raise ValueError("the corpus of copy_constrained must have at least one token; got none")


class CopyConstrained(Constraint):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.index = SuffixAutomaton([token for text in config.corpus for token in (*text, BORDER)])

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        super().check(vocab_size, stops, limit)
        for token in sorted({token for text in self.config.corpus for token in text}):
            if not 0 <= token < vocab_size:
                raise ValueError(f"the corpus of copy_constrained must be of tokens in [0, {vocab_size}); got {token}")

    def begin(self) -> int:
        return 0

    def follow(self, memory: int, token: int) -> int | None:
        return self.index.edges[memory].get(token)

    def allowed(self, memory: int, vocab_size: int) -> Tensor:
        found = [token for token in self.index.edges[memory] if token != BORDER]  # eq. (1)
        return torch.zeros(vocab_size, dtype=torch.bool).index_fill_(0, torch.tensor(found, dtype=torch.long), True)

    def accepts(self, memory: int) -> bool:
        return True

    def count(self, run: Sequence[int]) -> int:
        """How often a run of at least one token occurs in the corpus."""
        state: int | None = self.begin()
        for token in run:
            state = None if state is None else self.follow(state, token)
        return 0 if state is None else self._counts[state]

    @cached_property
    def _counts(self) -> list[int]:
        """For each state the places where it ends: its own, and those of the states that link to it."""
        index = self.index
        counts = [0] * len(index.edges)
        state = 0
        for token in index.text:
            state = index.edges[state][token]
            counts[state] = 1
        for state in sorted(range(1, len(counts)), key=lambda state: -index.longest[state]):
            counts[index.link[state]] += counts[state]
        return counts


def reference(run: Sequence[int], config: Config) -> int:
    """How often a run occurs, by looking at every place."""
    places = [text[at : at + len(run)] for text in config.corpus for at in range(len(text))]
    return sum(list(place) == list(run) for place in places)

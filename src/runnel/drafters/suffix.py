"""Suffix automaton: what followed the longest suffix of the text that had occurred before, copied.

Paper: "SAM Decoding: Speculative Decoding via Suffix Automaton" (2024, 2411.10666), section 3, the dynamic automaton.

A state of the automaton is a set of substrings that end at the same places of the text. It holds the length of the
longest of them, a link to the state of its longest suffix that ends elsewhere too, and the first place where it ends.

    match_t = the longest suffix of y_1..y_t that is a substring of y_1..y_{t-1}       (1)
    draft   = y_{e+1}, ..., y_{e+k},  e the first place where match_t ends             (2)

Appending a token follows links from match_{t-1} for (1), then extends the automaton: O(1) amortised, O(t) in space.

| code | paper |
|---|---|
| edges, link, longest, first_end | next, link, length, min_endpos |
| min_match | threshold on the match length below which the draft is not worth it |
| max_draft | n_predicts |

Deviates: a copy that reaches the end of the text goes on with itself, instead of falling back to a shorter match with
more text after it; a match that a split has moved to the new state is followed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnel.drafters import Draft, Drafter, Draw, copied

PAPERS = {"SAM Decoding: Speculative Decoding via Suffix Automaton": "2411.10666"}


@dataclass(frozen=True)
class Config:
    min_match: int = 3
    max_draft: int = 16

    def __post_init__(self) -> None:
        for name, value in (("min_match", self.min_match), ("max_draft", self.max_draft)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")


class Automaton:
    """The suffix automaton of a text that grows. State 0 is the empty string; lists are indexed by state."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.edges: list[dict[int, int]] = [{}]
        self.link, self.longest, self.first_end = [-1], [0], [0]
        self.whole = 0  # the state of the whole text
        self.match, self.match_length = 0, 0  # eq. (1)

    def append(self, token: int) -> None:
        self._follow(token)
        self.text.append(token)
        self._extend(token)
        while self.match and self.match_length <= self.longest[self.link[self.match]]:
            self.match = self.link[self.match]  # a split moved the match to the new, shorter state

    @property
    def match_end(self) -> int:
        """How many tokens stand before the first continuation of the match."""
        return self.first_end[self.match]

    def _follow(self, token: int) -> None:
        """Eq. (1): lengthen the match by the token, shortening it from the left as far as needed."""
        while self.match and token not in self.edges[self.match]:
            self.match = self.link[self.match]
            self.match_length = self.longest[self.match]
        if token in self.edges[self.match]:
            self.match, self.match_length = self.edges[self.match][token], self.match_length + 1

    def _extend(self, token: int) -> None:
        size = len(self.text)
        new = self._state({}, 0, size, size)
        p, self.whole = self.whole, new
        while p >= 0 and token not in self.edges[p]:
            self.edges[p][token] = new
            p = self.link[p]
        if p >= 0:
            self.link[new] = self._ending_at(p, token)

    def _ending_at(self, p: int, token: int) -> int:
        """The state whose longest string is that of p and the token; split off when it shares one with longer
        strings.
        """
        q = self.edges[p][token]
        if self.longest[q] == self.longest[p] + 1:
            return q
        split = self._state(dict(self.edges[q]), self.link[q], self.longest[p] + 1, self.first_end[q])
        self.link[q] = split
        while p >= 0 and self.edges[p].get(token) == q:
            self.edges[p][token] = split
            p = self.link[p]
        return split

    def _state(self, edges: dict[int, int], link: int, longest: int, first_end: int) -> int:
        self.edges.append(edges)
        self.link.append(link)
        self.longest.append(longest)
        self.first_end.append(first_end)
        return len(self.edges) - 1


class Suffix(Drafter):
    config: Config

    def begin(self, prompt: Sequence[int], draw: Draw) -> Automaton:
        memory = Automaton()
        self.advance(memory, prompt)
        return memory

    def propose(self, memory: Automaton, budget: int) -> Draft:
        if memory.match_length < self.config.min_match:
            return Draft([], [])
        return Draft.chain(copied(memory.text, memory.match_end, min(budget, self.config.max_draft)))  # eq. (2)

    def advance(self, memory: Automaton, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.append(token)


def reference(text: Sequence[int]) -> tuple[int, int]:
    """(length, end) of eq. (1) and (2) by trying every suffix at every place; (0, 0) when the newest token is new."""
    size = len(text)
    for length in range(size - 1, 0, -1):
        for end in range(length, size):
            if list(text[end - length : end]) == list(text[size - length :]):
                return length, end
    return 0, 0

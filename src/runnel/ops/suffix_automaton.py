"""Suffix automaton of a text that grows: every substring is a path, and following a text along it is O(1) a token.

A state is a set of substrings that end at the same places of the text. It holds the length of the longest of them, a
link to the state of its longest suffix that ends elsewhere too, and the first place where it ends. Appending a token
makes at most two states ("The smallest automaton recognizing the subwords of a text", 1985): O(t) in time and space.

What of another text is found in this one is a *match*, a state and a length: the longest suffix read so far that is a
substring here. `follow` lengthens it by a token, and shortens it from the left as far as needed: O(1) amortised.
"""

from __future__ import annotations

from collections.abc import Sequence

Match = tuple[int, int]
"""A state and how many tokens are matched; (0, 0) when nothing is."""


class SuffixAutomaton:
    """State 0 is the empty string; lists are indexed by state. A state that was made is never taken away, but what
    leads to it may be: a match that is kept while the text grows must be `settled` after every token.
    """

    def __init__(self, text: Sequence[int] = ()) -> None:
        self.text: list[int] = []
        self.edges: list[dict[int, int]] = [{}]
        self.link, self.longest, self.first_end = [-1], [0], [0]
        self.whole = 0  # the state of the whole text
        for token in text:
            self.append(token)

    def append(self, token: int) -> None:
        self.text.append(token)
        size = len(self.text)
        new = self._state({}, 0, size, size)
        p, self.whole = self.whole, new
        while p >= 0 and token not in self.edges[p]:
            self.edges[p][token] = new
            p = self.link[p]
        if p >= 0:
            self.link[new] = self._ending_at(p, token)

    def follow(self, match: Match, token: int) -> Match:
        """The match of the text that was read once the token is read too."""
        state, length = match
        while state and token not in self.edges[state]:
            state = self.link[state]
            length = self.longest[state]
        found = self.edges[state].get(token)
        return (0, 0) if found is None else (found, length + 1)

    def settled(self, match: Match) -> Match:
        """The same substring, where a split has moved it to the new, shorter state."""
        state, length = match
        while state and length <= self.longest[self.link[state]]:
            state = self.link[state]
        return state, length

    def end(self, match: Match) -> int:
        """How many tokens stand before the first continuation of a match."""
        return self.first_end[match[0]]

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


class RepeatingText(SuffixAutomaton):
    """The automaton of a text, and the longest end of the text that occurred in it before."""

    def __init__(self, text: Sequence[int] = ()) -> None:
        self.match: Match = (0, 0)
        super().__init__(text)

    def append(self, token: int) -> None:
        self.match = self.follow(self.match, token)
        super().append(token)
        self.match = self.settled(self.match)


def reference(text: Sequence[int], read: Sequence[int]) -> tuple[int, int]:
    """(length, first end in the text) of the longest suffix of what was read that is a substring of the text; (0, 0)
    when its last token is new. Every suffix is tried at every place.
    """
    for length in range(len(read), 0, -1):
        for end in range(length, len(text) + 1):
            if list(text[end - length : end]) == list(read[len(read) - length :]):
                return length, end
    return 0, 0

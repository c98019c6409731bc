"""Tri-gram counts of a text that grows, ranked while they are counted: which tokens followed the newest two, how often.

A token costs O(1) look-ups, and as many steps in two ranked lists as it overtakes other tokens.
"""

from __future__ import annotations

Context = tuple[int, ...]


class Followers:
    """How often each token followed: `tokens` by frequency, of equals first the one that came to it first."""

    __slots__ = ("counts", "tokens", "total")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, token: int) -> None:
        tokens, counts = self.tokens, self.counts
        count = counts.get(token, 0) + 1
        counts[token] = count
        self.total += 1
        if count == 1:
            tokens.append(token)
            return
        at = tokens.index(token)
        while at > 0 and counts[tokens[at - 1]] < count:
            tokens[at] = tokens[at - 1]
            at -= 1
        tokens[at] = token


class Trigrams:
    """newest: the last two tokens, or the only one. counts: by the pair, and by the token, that was followed."""

    def __init__(self) -> None:
        self.newest: Context = ()
        self.counts: dict[Context, Followers] = {}

    def after(self, context: Context) -> Followers:
        """What followed the last two tokens of a context, or, where nothing has, the last."""
        return self.counts.get(context[-2:]) or self.counts.get(context[-1:]) or Followers()

    def count(self, token: int) -> None:
        """Note what followed the newest tokens."""
        for size in range(1, len(self.newest) + 1):
            context = self.newest[-size:]
            found = self.counts.get(context)
            if found is None:
                found = self.counts[context] = Followers()
            found.add(token)

    def move(self, token: int) -> None:
        """Go on to the next token."""
        self.newest = (*self.newest[-1:], token)

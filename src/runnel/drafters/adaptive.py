"""Adaptive draft: tri-gram counts of the text as it grows, searched for a tree that weighs chance against exploration.

Paper: "Adaptive Draft-Verification for Efficient Large Language Model Decoding" (2024, 2407.12021).

    P(c | a, b) = C(a, b, c) / C(a, b),  counted over prompt and text, after every round           (1)
    each visit walks from the newest token to the child of largest
    P(c | s) (1 + explore sqrt(sum_b N(s, b)) / (1 + N(s, c))),  N counting the visits,            (2)
    until it leaves the tree, and adds the token where it left

| code | paper |
|---|---|
| counts | the tri-gram matrix |
| nodes | the number of visits, and so of draft tokens at most |
| explore | c_1 of the PUCT score |

Deviates: the paper's matrix begins with the counts of a corpus; here it begins with those of the prompt, and a pair
that never occurred is answered by the bi-grams of its last token. PUCT's value Q of a token is its probability (1); its
slowly growing factor of log((sum N + c_2 + 1) / c_2) is 1 for so few visits. The guesses are given, not drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runnel.drafters import Draft, Drafter, Draw
from runnel.ops.trigrams import Context, Followers, Trigrams

PAPERS = {"Adaptive Draft-Verification for Efficient Large Language Model Decoding": "2407.12021"}


@dataclass(frozen=True)
class Config:
    """nodes, width >= 1; explore >= 0. width: how many of the likeliest followers of a pair are looked at."""

    nodes: int = 15
    explore: float = 1.25
    width: int = 6

    def __post_init__(self) -> None:
        for name, value in (("nodes", self.nodes), ("width", self.width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.explore < 0:
            raise ValueError(f"explore must be at least 0; got {self.explore}")


class Place:
    """A place of the tree: the likeliest tokens there, how often each was visited, and the nodes made of them."""

    __slots__ = ("followers", "nodes", "visited", "visits")

    def __init__(self, followers: Followers, width: int) -> None:
        count = min(width, len(followers.tokens))
        self.followers, self.visited = followers, 0
        self.visits, self.nodes = [0] * count, [-1] * count

    def visit(self, explore: float) -> int:
        """The index of the follower of eq. (2), whose visit is counted; the likelier of equals. Counts compare as
        probabilities do.
        """
        tokens, counts = self.followers.tokens, self.followers.counts
        spread = explore * math.sqrt(self.visited)
        best, most = 0, -1.0
        for at, visits in enumerate(self.visits):
            score = counts[tokens[at]] * (1 + spread / (1 + visits))
            if score > most:
                best, most = at, score
            if visits == 0:  # the others are less likely and not visited either
                break
        self.visits[best] += 1
        self.visited += 1
        return best


class Adaptive(Drafter):
    config: Config

    def begin(self, prompt: Sequence[int], draw: Draw) -> Trigrams:
        memory = Trigrams()
        self.advance(memory, prompt)
        return memory

    def propose(self, memory: Trigrams, budget: int) -> Draft:
        tokens: list[int] = []
        parents: list[int] = []
        places: dict[int, Place] = {}
        for _ in range(self.config.nodes):
            self._visit(memory, budget, tokens, parents, places)
        return Draft(tokens, parents)

    def advance(self, memory: Trigrams, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.count(token)  # eq. (1)
            memory.move(token)

    def _visit(
        self, memory: Trigrams, budget: int, tokens: list[int], parents: list[int], places: dict[int, Place]
    ) -> None:
        """Walk down from the newest token, and add a node where the tree ends."""
        node, context = -1, memory.newest
        for _ in range(budget):
            place = places.get(node)
            if place is None:
                place = places[node] = Place(memory.after(context), self.config.width)
            if not place.nodes:
                return
            best = place.visit(self.config.explore)
            context = (context[-1], place.followers.tokens[best])
            if place.nodes[best] < 0:
                place.nodes[best] = len(tokens)
                tokens.append(context[-1])
                parents.append(node)
                return
            node = place.nodes[best]


def reference(text: Sequence[int], config: Config, budget: int) -> list[Context]:
    """The nodes, as paths from the newest token in the order in which they are added, from counts made anew by scanning
    the text for every place.
    """
    visits: Counter[Context] = Counter()
    tree: list[Context] = []

    def likeliest(path: Context) -> dict[int, int]:
        ending = [*text, *path]
        for size in (2, 1):
            places = [at for at in range(size, len(text)) if [*text[at - size : at]] == ending[len(ending) - size :]]
            if places:
                counts = Counter(text[at] for at in places)
                last = {text[at]: at for at in places}  # where its count was reached
                order = sorted(counts, key=lambda token: (-counts[token], last[token]))
                return {token: counts[token] for token in order[: config.width]}
        return {}

    for _ in range(config.nodes):
        path: Context = ()
        while len(path) < budget and (counted := likeliest(path)) and (not path or path in tree):
            spread = config.explore * math.sqrt(sum(visits[*path, token] for token in counted))
            best = max(counted, key=lambda token: counted[token] * (1 + spread / (1 + visits[*path, token])))
            path = (*path, best)
            visits[path] += 1
            if path not in tree:
                tree.append(path)
                break
    return tree

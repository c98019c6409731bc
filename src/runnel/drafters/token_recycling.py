"""Token recycling: what the model ranked high after a token the last time is guessed when the token comes again.

Paper: "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling" (2024,
2408.08696), section 3.

    M[x] = the k tokens that were likeliest after x, likeliest first, when x was last verified    (1)
    draft: a fixed tree of rank paths; the node of path (r_1, ..., r_d) is M[parent's token][r_d],
    expanded breadth first from the newest token                                                  (2)

Every verified row of logits rewrites a row of M, of rejected guesses too: nothing that the model said is thrown away.

| code | paper |
|---|---|
| table, top_k | the adjacency matrix M, k |
| nodes | the number of nodes of the tree template |

Deviates: the template is not a list but a rule, the `nodes` paths of largest 0.66^d / ((1 + r_1) ... (1 + r_d)): with
80 nodes its first two levels are the paper's, and it goes down to the sizes that pay on a CPU. A token that was
verified at several nodes keeps the row of the accepted path; the paper keeps any. M starts empty.

Every row of a batch has an M of its own, of vocabulary x k x 4 bytes. One for all would learn faster. But a rule that
accepts by chance may only meet drafts that know nothing of the noise to come, and rows of one seed share their noise:
what the model said to the row that is ahead would tell the row behind what it is about to draw. For the same reason
nothing is kept from one text to the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runnel.drafters import Draft, Drafter, Draw, Seen

PAPERS = {
    "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling": "2408.08696"
}
PER_LEVEL = 0.66
"""How much less a path is worth for every token that it is longer."""


@dataclass(frozen=True)
class Config:
    """top_k, nodes >= 1."""

    top_k: int = 8
    nodes: int = 15

    def __post_init__(self) -> None:
        for name, value in (("top_k", self.top_k), ("nodes", self.nodes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")


RankPath = tuple[int, ...]


def template(config: Config) -> list[RankPath]:
    """The rank paths of eq. (2), breadth first: best first search, as a path is worth less than its beginning."""
    paths: list[RankPath] = []
    open_paths: list[tuple[float, RankPath]] = [(-1.0, ())]
    while len(paths) <= config.nodes:
        minus_worth, path = heapq.heappop(open_paths)
        paths.append(path)
        for rank in range(config.top_k):
            heapq.heappush(open_paths, (minus_worth * PER_LEVEL / (1 + rank), (*path, rank)))
    return sorted(paths, key=lambda path: (len(path), path))[1:]  # without the newest token


class Place(NamedTuple):
    """A node of the template. above: the place before it, -1 for the newest token."""

    above: int
    rank: int
    depth: int


@dataclass
class Memory:
    """table (V, k) int32, -1 in rows of tokens that were never verified; None before the first round."""

    newest: int
    table: npt.NDArray[np.int32] | None = None

    def after(self, token: int) -> list[int]:
        """M[token]."""
        row: list[int] = [] if self.table is None else self.table[token].tolist()
        return row if row and row[0] >= 0 else []


class TokenRecycling(Drafter):
    config: Config
    looks_back = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        paths = template(config)
        at = {path: place for place, path in enumerate(paths)}
        self.places = [Place(at.get(path[:-1], -1), path[-1], len(path)) for path in paths]

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(prompt[-1])

    def propose(self, memory: Memory, budget: int) -> Draft:
        tokens: list[int] = []
        parents: list[int] = []
        nodes = {-1: -1}  # by place
        rows = {-1: memory.after(memory.newest)}  # by node
        for place, (above, rank, depth) in enumerate(self.places):
            if depth > budget:
                break
            if above not in nodes:
                continue
            parent = nodes[above]
            if parent not in rows:
                rows[parent] = memory.after(tokens[parent])
            if rank < len(rows[parent]):
                nodes[place] = len(tokens)
                tokens.append(rows[parent][rank])
                parents.append(parent)
        return Draft(tokens, parents)

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        memory.newest = tokens[-1]

    def look_back(self, memory: Memory, seen: Seen) -> None:
        vocab_size = seen.logits.shape[-1]
        best = seen.logits.topk(min(self.config.top_k, vocab_size)).indices.numpy()
        if memory.table is None:
            memory.table = np.full((vocab_size, best.shape[-1]), -1, dtype=np.int32)
        accepted = set(seen.path)
        order = [node for node in range(len(seen.tokens)) if node not in accepted] + seen.path  # the last write stays
        memory.table[[seen.tokens[node] for node in order]] = best[order]  # eq. (1)


def reference(rows: dict[int, list[int]], newest: int, paths: Sequence[RankPath], budget: int) -> set[tuple[int, ...]]:
    """The texts of all nodes of eq. (2), each path walked from the newest token. rows: M, where it is known."""
    texts = set()
    for path in paths:
        text = [newest]
        for rank in path:
            if rank < len(rows.get(text[-1], [])):
                text.append(rows[text[-1]][rank])
        if len(text) == len(path) + 1 and len(path) <= budget:
            texts.add(tuple(text[1:]))
    return texts

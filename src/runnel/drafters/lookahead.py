"""Lookahead: a window of Jacobi trajectories, whose n-grams are kept and tried when their first token comes again.

Paper: "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding" (2024, 2402.02057), section 3.

    window: w_{l,i}, levels l = 1..N-1 of past iterates, columns i = 1..W
    lookahead branch: w_{N,i} = argmax p(. | text, w_{1,1}, ..., w_{1,i}, w_{2,i}, ..., w_{N-1,i})     (1)
    the n-gram (w_{1,i}, ..., w_{N,i}) goes to the pool, and the oldest level leaves the window         (2)
    verification branch: at most G n-grams of the pool that begin with the newest token                 (3)

The context of (1) is a path, so that both branches are one draft tree: a chain of the oldest level, below its i-th
token the rest of column i, and beside it the n-grams of (3), common beginnings shared. Nodes of the window that turn
out right are accepted like any other.

| code | paper |
|---|---|
| window, ngram, guesses | W, N, G |
| levels | the 2D window |
| pool | the n-gram pool C, by first token |

Deviates: the pool also takes the n-grams of the text itself, and the window begins with tokens of the prompt (the
paper: any). A column that the tree had no room for keeps its last token. (1) is the argmax also when the text is
sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from runnel.drafters import Draft, Drafter, Draw, Seen

PAPERS = {"Break the Sequential Dependency of LLM Inference Using Lookahead Decoding": "2402.02057"}


@dataclass(frozen=True)
class Config:
    """window, guesses >= 1; ngram >= 2."""

    window: int = 3
    ngram: int = 4
    guesses: int = 3

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("ngram", 2), ("guesses", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")


Ngram = tuple[int, ...]


@dataclass
class Memory:
    """newest: the last tokens of the text, an n-gram at most. levels: ngram - 1 lists of `window` tokens, the oldest
    first. pool: by first token the n-grams without it, the one met last at the end.
    """

    newest: Ngram = ()
    levels: list[list[int]] = field(default_factory=list)
    pool: dict[int, dict[Ngram, None]] = field(default_factory=dict)

    def column(self, at: int) -> list[int]:
        """The path of eq. (1) from the newest token."""
        return [*self.levels[0][: at + 1], *[level[at] for level in self.levels[1:]]]

    def keep(self, ngram: Ngram, most: int) -> None:
        """Eq. (2): put it last, and forget the oldest beyond `most`."""
        known = self.pool.setdefault(ngram[0], {})
        known.pop(ngram[1:], None)
        known[ngram[1:]] = None
        if len(known) > most:
            del known[next(iter(known))]


class Lookahead(Drafter):
    config: Config
    looks_back = True

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        memory, width = Memory(), self.config.window
        for first in range(0, width * (self.config.ngram - 1), width):
            memory.levels.append([prompt[at % len(prompt)] for at in range(first, first + width)])
        self.advance(memory, prompt)
        return memory

    def propose(self, memory: Memory, budget: int) -> Draft:
        draft, nodes = Draft([], []), dict[tuple[int, int], int]()
        for ngram in reversed(memory.pool.get(memory.newest[-1], {})):
            _hang(draft, nodes, ngram[:budget])  # eq. (3)
        for at in range(self.config.window):
            _hang(draft, nodes, memory.column(at)[:budget])
        return draft

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.newest = (*memory.newest, token)[-self.config.ngram :]
            if len(memory.newest) == self.config.ngram:
                memory.keep(memory.newest, self.config.guesses)

    def look_back(self, memory: Memory, seen: Seen) -> None:
        nodes = {place: node for node, place in enumerate(zip(seen.parents, seen.tokens, strict=True))}
        ends = {at: end for at in range(self.config.window) if (end := _end(nodes, memory.column(at))) is not None}
        if not ends:
            return
        said = dict(zip(ends, seen.logits[list(ends.values())].argmax(-1).tolist(), strict=True))  # eq. (1)
        for at, token in said.items():
            memory.keep((*[level[at] for level in memory.levels], token), self.config.guesses)
        memory.levels = [*memory.levels[1:], [said.get(at, memory.levels[-1][at]) for at in range(self.config.window)]]


def _hang(draft: Draft, nodes: dict[tuple[int, int], int], path: Sequence[int]) -> None:
    """Add a path to a draft, sharing its beginning with those that are there. nodes: by parent and token."""
    node = -1
    for token in path:
        below = nodes.get((node, token))
        if below is None:
            below = nodes[node, token] = len(draft.tokens)
            draft.tokens.append(token)
            draft.parents.append(node)
        node = below


def _end(nodes: dict[tuple[int, int], int], path: Sequence[int]) -> int | None:
    """The node at the end of a path below the newest token, which is node 0; None where the tree ends before."""
    node: int | None = 0
    for token in path:
        node = None if node is None else nodes.get((node, token))
    return node


def reference(after: Callable[[Sequence[int]], Tensor], levels: Sequence[Sequence[int]]) -> list[int]:
    """Eq. (1) for every column. after: the model's logits (V,) after the text and a path."""
    new = []
    for at in range(len(levels[0])):
        path = list(levels[0][: at + 1])
        for level in levels[1:]:
            path.append(level[at])
        new.append(int(after(path).argmax()))
    return new

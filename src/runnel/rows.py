"""What is being written: a row's text, the forest of its guesses, and its walk down the tree.

The tokens of a forest are the newest token of every row, the roots, and below them the drafts. A row walks down its
tree: at every node an acceptance rule (`runnel.acceptance`) says which child to go on to, or which token ends the walk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from runnel.decoders import Decoder
from runnel.draft import Draft, Seen
from runnel.ops.sampling import gumbel, uniform
from runnel.prefill import likeliest
from runnel.processors import Exhausted, Text, Trail
from runnel.stopping import StopText
from runnel.tree import DraftTree

CHANCES, DRAWS, FRESH = 1, 2, 3
"""Streams of noise: of acceptance, of what is drawn after a rejection, and, from here on, of drafts 0, 1, ... ahead.
The upper 64 bits of a draft's stream are the path that it follows.
"""


@dataclass
class Row:
    """One text. prompt: all that is known to stand before it. newest: its last token, not yet in the state. position:
    where the next token will stand. decoder: who picks its tokens. stop_text: what looks for stop strings in it.

    memory: what the drafter remembers of it; told: how many of the tokens it knows of; recalled: what its decoder
    remembers; trail: what its constraints do.
    ended: why nothing more is written: "eos", "stop" (a stop string) or "length"; None while the row goes on.
    """

    index: int
    seed: int
    prompt: Sequence[int]
    position: int
    limit: int
    stops: frozenset[int]
    decoder: Decoder
    stop_text: StopText | None = None
    top: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    memory: Any = None
    told: int = 0
    recalled: Mapping[str, Any] = field(default_factory=dict)
    trail: Trail = field(default_factory=Trail)
    ended: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.ended = self._ended()

    @property
    def newest(self) -> int:
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    def _ended(self) -> str | None:
        if self.tokens and self.newest in self.stops:
            return "eos"
        if self.stop_text is not None and self.stop_text.found:
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

    @property
    def done(self) -> bool:
        return self.ended is not None

    def text(self, path: Sequence[int] = ()) -> Text:
        """The row as its decoder sees it, after a path of tokens that are not yet its own."""
        written = [*self.tokens, *path] if path else self.tokens
        return Text(self.prompt, written, self.stops, self.recalled, self.trail)

    def take(self, token: int, logits: Tensor, node: int, logprob: float) -> None:
        """Add a token, written after a node of logits (N, V), which give it this log-probability."""
        if self.decoder.remembers:
            self.recalled = self.decoder.remember(self.text(), logits[node], token)
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self.top:
            self.top_logprobs += likeliest(logits[node].log_softmax(-1)[None], self.top)
        if self.stop_text is not None:
            self.stop_text.push(token)
        self.position += 1
        self.ended = self._ended()

    def back_to(self, count: int, recalled: Mapping[str, Any]) -> None:
        """Forget all tokens but the first `count`. recalled: what the decoder remembered then."""
        self.position -= len(self.tokens) - count
        del self.tokens[count:], self.logprobs[count:], self.top_logprobs[count:]
        self.recalled = recalled
        if self.stop_text is not None:
            self.stop_text = self.stop_text.after(self.tokens)
        self.ended = self._ended()


class RowDraw:
    """How a row would pick tokens from other logits than its model's: the `Draw` of a drafter, with the row's noise."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def __call__(self, logits: Tensor, ahead: int, path: Sequence[int] = (), branch: int = 0) -> int:
        return int(self.scores(logits, ahead, path, branch).argmax())

    def scores(self, logits: Tensor, ahead: int, path: Sequence[int] = (), branch: int = 0) -> Tensor:
        try:
            return self._afresh(logits, ahead, path, branch) if branch else self._picked(logits, ahead, path)
        except Exhausted:  # after a path that the row may never take
            return logits.log_softmax(-1)

    def along(self, logits: Tensor) -> list[int]:
        """At once where nothing depends on what was drawn before."""
        row, count = self.row, len(logits)
        if row.decoder.reads_text:
            return self._one_by_one(logits)
        return row.decoder.pick(logits, [row.seed] * count, [row.position + ahead for ahead in range(count)])

    def _one_by_one(self, logits: Tensor) -> list[int]:
        tokens = list[int]()
        for ahead, own in enumerate(logits):
            tokens.append(self(own, ahead, tokens))
        return tokens

    def chances(self, logits: Tensor, ahead: int, path: Sequence[int] = ()) -> Tensor:
        """The noise is known before anything is drawn, and counts."""
        return self.scores(logits, ahead, path).exp()

    def _picked(self, logits: Tensor, ahead: int, path: Sequence[int]) -> Tensor:
        row = self.row
        scores = row.decoder.scores(logits[None], [row.seed], [row.position + ahead], [row.text(path)])[0]
        return scores.log_softmax(-1)

    def _afresh(self, logits: Tensor, ahead: int, path: Sequence[int], branch: int) -> Tensor:
        row, law = self.row, self._law(logits, path)
        if _is_certain(law):  # nothing to draw: what is left of the scores ranks the other tokens
            return self._picked(logits, ahead, path)
        stream = FRESH + ahead + (_code(path, branch) << 64)
        return law + gumbel([row.seed], [row.position + ahead], law.numel(), stream)[0]

    def _law(self, logits: Tensor, path: Sequence[int]) -> Tensor:
        return self.row.decoder.law(logits[None], [self.row.text(path)])[0]


class FreshDraw(RowDraw):
    """The same with noise that is drawn anew in every round and after every path, for rules that accept by chance: what
    a round rejects must say nothing about what the next one drafts, nor one branch of a tree about another.
    """

    def scores(self, logits: Tensor, ahead: int, path: Sequence[int] = (), branch: int = 0) -> Tensor:
        try:
            return self._afresh(logits, ahead, path, branch)
        except Exhausted:
            return logits.log_softmax(-1)

    def along(self, logits: Tensor) -> list[int]:
        return self._one_by_one(logits)

    def chances(self, logits: Tensor, ahead: int, path: Sequence[int] = ()) -> Tensor:
        try:
            law = self._law(logits, path)
        except Exhausted:
            return logits.softmax(-1)
        return super().chances(logits, ahead, path) if _is_certain(law) else law.exp()


def _is_certain(law: Tensor) -> bool:
    return int((law > -math.inf).sum()) == 1


def _code(path: Sequence[int], branch: int) -> int:
    """A number below 2^64 for a path of a branch: of one length, two rarely share one."""
    code = branch
    for token in path:
        code = (code * 6364136223846793005 + token + 1) % 2**64
    return code


class Forest:
    """One tree per row: the newest token of each row, then its drafts, as the flat lists of a DraftTree.

    The root of row r is node r. children: the nodes below each node, in the order in which they were drafted. depths:
    how many nodes stand above each.
    guessed_from: for each node the drafter's logits (V,) from which it was drawn, or None when it was not drawn.
    independent: for each row whether siblings were drawn independently of each other.
    """

    def __init__(self, rows: Sequence[Row], drafts: Sequence[Draft]) -> None:
        self.tokens = [row.newest for row in rows]
        self.parents, self.rows, self.depths = [-1] * len(rows), list(range(len(rows))), [0] * len(rows)
        self.children: dict[int, list[int]] = {}
        self.guessed_from: list[Tensor | None] = [None] * len(rows)
        self.independent = [draft.independent for draft in drafts]
        for row, draft in enumerate(drafts):
            self._hang(row, draft)

    def _hang(self, row: int, draft: Draft) -> None:
        first = len(self.tokens)
        for token, parent in zip(draft.tokens, draft.parents, strict=True):
            parent = row if parent < 0 else first + parent
            self.children.setdefault(parent, []).append(len(self.tokens))
            self.tokens.append(token)
            self.parents.append(parent)
            self.depths.append(self.depths[parent] + 1)
            self.rows.append(row)
        self.guessed_from += draft.logits or [None] * len(draft.tokens)

    def child(self, node: int, token: int) -> int | None:
        """The first child of a node that holds the token."""
        for child in self.children.get(node, ()):
            if self.tokens[child] == token:
                return child
        return None

    @property
    def tree(self) -> DraftTree:
        return DraftTree(self.tokens, self.parents, self.rows)


class Said(NamedTuple):
    """What the model said after every node of a forest: logits (N, V) float64 on the CPU, and the hidden vectors (N, D)
    that its head saw.
    """

    logits: Tensor
    hidden: Tensor


class Walk:
    """A row on its way down its tree. It stands on `node`; path: the nodes walked over, the root first.

    An acceptance rule looks at `logits`, `law`, `children` and moves: `go` to a child, or `end` with a token that is
    written below the last accepted node.
    """

    def __init__(self, row: Row, root: int, forest: Forest, said: Said) -> None:
        self.row, self.forest, self.said = row, forest, said
        self.path = [root]
        self.walking = True
        self.drafted_with = row.recalled

    @property
    def node(self) -> int:
        return self.path[-1]

    @property
    def logits(self) -> Tensor:
        """(V,) what the model said after this node."""
        return self.said.logits[self.node]

    @property
    def children(self) -> Sequence[int]:
        return self.forest.children.get(self.node, ())

    @property
    def independent(self) -> bool:
        """Whether the children were drawn independently of each other, not each without those before it."""
        return self.forest.independent[self.path[0]]

    def token(self, node: int) -> int:
        return self.forest.tokens[node]

    def law(self, below: Sequence[int] = ()) -> Tensor:
        """(V,) probabilities of what the row's decoder may pick here, or after the path of nodes `below` this one."""
        logits = self.said.logits[[self.node, *below][-1]]
        return self.row.decoder.law(logits[None], [self._text(below)])[0].exp()

    def draft_law(self, child: int, below: Sequence[int] = ()) -> Tensor | None:
        """(V,) probabilities with which the drafter drew a child of this node (or of the last node `below`); None for a
        child that was not drawn. They are those of the time when it was drawn: `drafted_with` is what the row's decoder
        remembered then.
        """
        logits = self.forest.guessed_from[child]
        if logits is None:
            return None
        text = replace(self.row.text([self.token(node) for node in below]), memory=self.drafted_with)
        return self.row.decoder.law(logits[None], [text])[0].exp()

    def _text(self, below: Sequence[int]) -> Text:
        """The row's text after the path of nodes `below` this one, with what its decoder would remember there."""
        text = self.row.text()
        for i, (node, child) in enumerate(pairwise([self.node, *below]), start=1):
            memory = self.row.decoder.remember(text, self.said.logits[node], self.token(child))
            text = replace(self.row.text([self.token(node) for node in below[:i]]), memory=memory)
        return text

    def chances(self, count: int, stream: int = CHANCES) -> list[float]:
        """Uniform noise of this place, keyed as the draws of tokens are, independent of them."""
        return uniform([self.row.seed], [self.row.position], count, stream)[0].tolist()

    def draw(self, law: Tensor, stream: int = DRAWS) -> int:
        """A token drawn from probabilities (V,) that need not sum to one, with noise of this place."""
        return int((law.log() + gumbel([self.row.seed], [self.row.position], law.numel(), stream)[0]).argmax())

    def go(self, child: int, logprob: float | None = None) -> None:
        """Accept a child. logprob: of its token, where that is known."""
        self._take(self.token(child), logprob)
        self.walking = not self.row.done
        if self.walking:
            self.path.append(child)

    def end(self, token: int, logprob: float | None = None) -> None:
        """Write a token that no child stands for."""
        self._take(token, logprob)
        self.walking = False

    def step(self, token: int, logprob: float | None = None) -> None:
        """Write a token: go to the child that holds it, or end. logprob: of the token, where that is known."""
        child = self.forest.child(self.node, token)
        if child is None:
            self.end(token, logprob)
        else:
            self.go(child, logprob)

    def seen(self) -> Seen:
        """The row's part of the forest, for its drafter."""
        nodes = [node for node, row in enumerate(self.forest.rows) if row == self.path[0]]
        at = {node: i for i, node in enumerate(nodes)}
        return Seen(
            tokens=[self.forest.tokens[node] for node in nodes],
            parents=[at.get(self.forest.parents[node], -1) for node in nodes],
            path=[at[node] for node in self.path],
            logits=self.said.logits[nodes],
            hidden=self.said.hidden[nodes],
        )

    def _take(self, token: int, logprob: float | None) -> None:
        logprob = float(self.logits.log_softmax(-1)[token]) if logprob is None else logprob
        if math.isnan(logprob):  # one NaN among its logits makes a row's whole law NaN
            raise ValueError(
                f"the model's logits must be finite; got NaN for row {self.row.index}, position {self.row.position}"
            )
        self.row.take(token, self.said.logits, self.node, logprob)

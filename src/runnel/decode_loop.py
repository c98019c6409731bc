"""The one loop of decoding: draft -> verify -> accept -> commit, for every model, decoder and drafter.

The state covers all tokens of a row but the newest. Each round the newest token of every row is the root of that row's
tree and the drafts hang below it; one call of the model gives the logits after every node. A row then walks down its
tree: the row's decoder picks a token, and while that token is a node, the walk goes on there. What was walked over is
committed, and the last token picked is the newest. Plain decoding is the tree of one root, for which the one-token form
of the model is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runnel.decoders import Decoder
from runnel.drafters import Draft, Drafter, Draw
from runnel.model import Model
from runnel.prefill import likeliest
from runnel.processors import Exhausted, Text
from runnel.state import State
from runnel.stopping import StopText
from runnel.tree import DraftTree

OnTokens = Callable[[int, list[int]], None]
"""on_tokens(row, tokens): what a row gained in a round; all but the last token are accepted drafts."""

STOP = -1
"""Where a row's walk ends: below its last accepted node."""


@dataclass
class Row:
    """One text. prompt: all that is known to stand before it. newest: its last token, not yet in the state. position:
    where the next token will stand. decoder: who picks its tokens. stop_text: what looks for stop strings in it.

    memory: what the drafter remembers of it; recalled: what its decoder does.
    """

    index: int
    seed: int
    prompt: Sequence[int]
    position: int
    limit: int
    stops: frozenset[int]
    decoder: Decoder
    stop_text: StopText | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    memory: Any = None
    recalled: Mapping[str, Any] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    @property
    def ended(self) -> str | None:
        """Why nothing more is written: "eos", "stop" (a stop string) or "length"; None while the row goes on."""
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
        return Text(self.prompt, [*self.tokens, *path] if path else self.tokens, self.stops, self.recalled)

    def take(self, token: int, logits: Tensor, law: Tensor, top: int) -> None:
        """Add a token, picked from logits (V,); law: their log-probabilities."""
        self.recalled = self.decoder.remember(self.text(), logits, token)
        self.tokens.append(token)
        self.logprobs.append(float(law[token]))
        if top:
            self.top_logprobs += likeliest(law[None], top)
        if self.stop_text is not None:
            self.stop_text.push(token)
        self.position += 1


class Forest:
    """One tree per row: the newest token of each row, then its drafts, as the flat lists of a DraftTree.

    The root of row r is node r. children: node of each (parent, token); the first of equal siblings counts.
    """

    def __init__(self, rows: Sequence[Row], drafts: Sequence[Draft]) -> None:
        self.tokens = [row.newest for row in rows]
        self.parents, self.rows = [-1] * len(rows), list(range(len(rows)))
        self.children: dict[tuple[int, int], int] = {}
        for row, draft in enumerate(drafts):
            self._hang(row, draft)

    def _hang(self, row: int, draft: Draft) -> None:
        first = len(self.tokens)
        for token, parent in zip(draft.tokens, draft.parents, strict=True):
            parent = row if parent < 0 else first + parent
            self.children.setdefault((parent, token), len(self.tokens))
            self.tokens.append(token)
            self.parents.append(parent)
            self.rows.append(row)

    @property
    def tree(self) -> DraftTree:
        return DraftTree(self.tokens, self.parents, self.rows)


class Loop:
    """The loop with what it counts."""

    def __init__(self, model: Model, drafter: Drafter | None, on_tokens: OnTokens | None, top: int = 0) -> None:
        self.model, self.drafter, self.on_tokens, self.top = model, drafter, on_tokens, top
        self.target_calls = self.drafted = self.accepted = 0

    def draw_for(self, row: Row) -> Draw:
        """The row's own way to pick a token, for drafters that draw."""

        def draw(logits: Tensor, ahead: int, path: Sequence[int] = ()) -> int:
            try:
                return row.decoder.pick(logits[None], [row.seed], [row.position + ahead], [row.text(path)])[0]
            except Exhausted:  # after a path that the row may never take
                return int(logits.argmax())

        return draw

    def until_done(self, rows: Sequence[Row], state: State) -> State:
        """Run rounds until every row is done; rows leave the batch as they finish. Returns their states, in order."""
        left: list[Row] = []
        states: list[State] = []
        rows = list(rows)
        while True:
            leaving = [i for i, row in enumerate(rows) if row.done]
            if leaving:
                states.append(_rows_of(state, leaving))
                left.extend(rows[i] for i in leaving)
            staying = [i for i, row in enumerate(rows) if not row.done]
            if not staying:
                return _in_order(states, left)
            state, rows = _rows_of(state, staying), [rows[i] for i in staying]
            state = self.round(rows, state)

    def round(self, rows: Sequence[Row], state: State) -> State:
        """Draft, verify, accept, commit."""
        before = [len(row.tokens) for row in rows]
        forest = Forest(rows, self._drafts(rows))
        logits, commit = self._verify(state, forest)
        paths = self._accept(rows, forest, logits)
        state = commit(paths)
        self.target_calls += 1
        self.drafted += len(forest.tokens) - len(rows)
        self.accepted += sum(len(path) - 1 for path in paths)
        for row, count in zip(rows, before, strict=True):
            self._report(row, row.tokens[count:])
        return state

    def _drafts(self, rows: Sequence[Row]) -> list[Draft]:
        if self.drafter is None:
            return []
        return self.drafter.propose_all([row.memory for row in rows], [row.limit - len(row.tokens) - 1 for row in rows])

    def _verify(self, state: State, forest: Forest) -> tuple[Tensor, Callable[[list[list[int]]], State]]:
        """Logits (N, V) after every node, float64 on the CPU, and what makes the next state of the accepted paths."""
        if not forest.children:
            tokens = torch.tensor(forest.tokens, device=self.model.device)[:, None]
            logits, after = self.model(tokens, state)
            return logits[:, -1].double().cpu(), lambda paths: after
        out = self.model.verify(state, forest.tree)
        return out.logits.double().cpu(), lambda paths: state.commit(out.pending, paths)

    def _accept(self, rows: Sequence[Row], forest: Forest, logits: Tensor) -> list[list[int]]:
        """Walk every row down its tree, all rows one step at a time. Returns the nodes walked over, roots first."""
        paths = [[row] for row in range(len(rows))]
        walking = list(range(len(rows)))
        while walking:
            here = logits[[paths[i][-1] for i in walking]]
            law = here.log_softmax(-1)
            _refuse_nan([rows[i] for i in walking], law)
            picked = _pick([rows[i] for i in walking], here)
            for at, (i, token) in enumerate(zip(walking, picked, strict=True)):
                rows[i].take(token, here[at], law[at], self.top)
                child = None if rows[i].done else forest.children.get((paths[i][-1], token))
                paths[i].append(STOP if child is None else child)
            walking = [i for i in walking if paths[i][-1] != STOP]
        return [path[:-1] for path in paths]

    def _report(self, row: Row, tokens: list[int]) -> None:
        if self.drafter is not None and not row.done:
            self.drafter.advance(row.memory, tokens)
        if self.on_tokens is not None:
            self.on_tokens(row.index, tokens)


def _pick(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """One token for every row from logits (N, V), the rows of one decoder in one call."""
    members: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(id(row.decoder), []).append(i)
    picked = [0] * len(rows)
    for group in members.values():
        own = [rows[i] for i in group]
        tokens = own[0].decoder.pick(
            logits if len(group) == len(rows) else logits[group],
            [row.seed for row in own],
            [row.position for row in own],
            [row.text() for row in own],
        )
        for i, token in zip(group, tokens, strict=True):
            picked[i] = token
    return picked


def _refuse_nan(rows: Sequence[Row], law: Tensor) -> None:
    """One NaN among its logits makes a row's whole law NaN."""
    for row, first in zip(rows, law[:, 0].tolist(), strict=True):
        if math.isnan(first):
            raise ValueError(f"the model's logits must be finite; got NaN for row {row.index}, position {row.position}")


def _rows_of(state: State, rows: Sequence[int]) -> State:
    """These rows of a state; the state itself when they are all of them."""
    return state if len(rows) == state.batch_size else state.fork(rows)


def _in_order(states: Sequence[State], rows: Sequence[Row]) -> State:
    """The states of rows that left one after another, in the order of the prompts."""
    if len(states) == 1:
        return states[0]
    return State.cat(states).fork(sorted(range(len(rows)), key=lambda i: rows[i].index))

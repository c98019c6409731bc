"""The one loop of decoding: draft -> verify -> accept -> commit, for every model, decoder, drafter and acceptance rule.

The state covers all tokens of a row but the newest. Each round the newest token of every row is the root of that row's
tree and the drafts hang below it; one call of the model gives the logits after every node. An acceptance rule then
walks every row down its tree. What was walked over is committed, and the last token written is the newest. Plain
decoding is the tree of one root, for which the one-token form of the model is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from runnel.acceptance import Acceptance
from runnel.drafters import Draft, Drafter
from runnel.model import TextModel
from runnel.policies import LengthPolicy, Round
from runnel.rows import Forest, FreshDraw, Row, RowDraw, Said, Walk
from runnel.state import Place, State, gathered

OnTokens = Callable[[int, list[int]], None]
"""on_tokens(row, tokens): what a row gained in a round; all but the last token are accepted drafts."""


class Batch:
    """Rows that are written side by side, with their state, which is None while there are none. Rows join and leave
    between rounds.
    """

    def __init__(self, rows: Sequence[Row] = (), state: State | None = None) -> None:
        self.rows, self.state = list(rows), state

    def join(self, rows: Sequence[Row], state: State) -> None:
        self.rows += rows
        self.state = state if self.state is None else State.cat([self.state, state])

    def leave(self, places: Sequence[int]) -> State:
        """The state of the rows at these places, which are no longer of the batch."""
        assert self.state is not None
        whole, gone = self.state, set(places)
        staying = [i for i in range(len(self.rows)) if i not in gone]
        self.rows = [self.rows[i] for i in staying]
        self.state = gathered([(whole, i) for i in staying]) if staying else None
        return gathered([(whole, i) for i in places])


class Loop:
    """The loop with what it counts."""

    def __init__(
        self,
        model: TextModel,
        drafter: Drafter | None,
        acceptance: Acceptance,
        policy: LengthPolicy,
        on_tokens: OnTokens | None = None,
    ) -> None:
        self.model, self.drafter, self.acceptance, self.policy = model, drafter, acceptance, policy
        self.on_tokens = on_tokens
        self.target_calls = self.drafted = self.accepted = 0
        self.draft_seconds, self.resting = 0.0, 0

    def draw_for(self, row: Row) -> RowDraw:
        """The row's own way to pick a token, for drafters that draw."""
        return RowDraw(row) if self.acceptance.shares_noise else FreshDraw(row)

    def until_done(self, rows: Sequence[Row], state: State) -> State:
        """Run rounds until every row is done; rows leave the batch as they finish. Returns their states, in order."""
        batch = Batch(rows, state)
        places: dict[int, Place] = {}
        while True:
            done = [i for i, row in enumerate(batch.rows) if row.done]
            if done:
                indices, gone = [batch.rows[i].index for i in done], batch.leave(done)
                places |= {index: (gone, at) for at, index in enumerate(indices)}
            if batch.state is None:
                return gathered([places[row.index] for row in rows])
            batch.state = self.round(batch.rows, batch.state)

    def round(self, rows: Sequence[Row], state: State) -> State:
        """Draft, verify, accept, commit. Nothing is drafted, and nobody asked, for rounds that the policy rests."""
        if self.resting or not any(row.memory is not None for row in rows):
            self.resting = max(0, self.resting - 1)
            return self._written(rows, state, [])[-1]
        started = time.perf_counter()
        drafts, propose_seconds = self._drafts(rows, state)
        drafted = time.perf_counter()
        forest, walks, state = self._written(rows, state, drafts)
        ended = time.perf_counter()
        took = propose_seconds, ended - drafted, ended - started
        self.policy.observe(Round([row.index for row in rows], forest, walks, *took))
        self.resting = self.policy.rest()
        self.draft_seconds += drafted - started + time.perf_counter() - ended
        return state

    def _written(self, rows: Sequence[Row], state: State, drafts: Sequence[Draft]) -> tuple[Forest, list[Walk], State]:
        """Verify, accept, commit, and tell who wants to know."""
        before, forest = [len(row.tokens) for row in rows], Forest(rows, drafts)
        said, commit = self._verify(state, forest)
        walks = [Walk(row, root, forest, said) for root, row in enumerate(rows)]
        self.acceptance.accept(walks)
        state = commit([walk.path for walk in walks])
        if self.drafter is not None and self.drafter.looks_back:
            for walk in walks:
                if walk.row.memory is not None and not walk.row.done:
                    self.drafter.look_back(walk.row.memory, walk.seen())
                    self._tell(walk.row, (self.model.own_state(state), walk.path[0]))
        if self.on_tokens is not None:
            for row, count in zip(rows, before, strict=True):
                self.on_tokens(row.index, row.tokens[count:])
        self.target_calls += 1
        self.drafted += len(forest.tokens) - len(rows)
        self.accepted += sum(len(walk.path) - 1 for walk in walks)
        return forest, walks, state

    def _drafts(self, rows: Sequence[Row], state: State) -> tuple[list[Draft], float]:
        """What is drafted for every row that the drafter remembers something of, and the seconds that it took."""
        assert self.drafter is not None
        indices = [row.index for row in rows]
        room = [0 if row.memory is None else row.limit - len(row.tokens) - 1 for row in rows]
        budgets = self.policy.budgets(indices, room)
        if not any(budgets):
            return [], 0.0
        own = self.model.own_state(state)
        for place, row in enumerate(rows):
            if row.memory is not None:
                self._tell(row, (own, place))
        started = time.perf_counter()
        drafts = self.drafter.propose_all([row.memory for row in rows], budgets)
        seconds = time.perf_counter() - started
        return self.policy.trimmed(indices, drafts) if any(draft.tokens for draft in drafts) else [], seconds

    def _tell(self, row: Row, place: Place) -> None:
        """Let the drafter know what the row gained since it was last told."""
        assert self.drafter is not None
        if row.told < len(row.tokens):
            self.drafter.stand(row.memory, place)
            self.drafter.advance(row.memory, row.tokens[row.told :])
            row.told = len(row.tokens)

    def _verify(self, state: State, forest: Forest) -> tuple[Said, Callable[[list[list[int]]], State]]:
        """What the model says after every node, and what makes the next state of the accepted paths."""
        if not forest.children:
            tokens = torch.tensor(forest.tokens, device=self.model.device)[:, None]
            read = self.model.read(tokens, state)
            return Said(read.logits[:, -1].double().cpu(), read.hidden[:, -1]), lambda paths: read.state
        out = self.model.verify(state, forest.tree)
        return Said(out.logits.double().cpu(), out.hidden), lambda paths: state.commit(out.pending, paths)

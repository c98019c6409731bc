"""Goodput: as much is drafted as makes the tokens come fastest, by what this very run has measured; maybe nothing.

Paper: "Optimizing Speculative Decoding for Serving Large Language Models Using Goodput" (2024, 2406.14066), section 4.

    reach(node) = product of the chances of the guesses on its path                    (1)
    goodput(S)  = (rows + sum over S of reach) / seconds(|S| + rows),  S = {} being plain decoding    (2)
    verify the S that maximises (2): the nodes of largest reach                        (3)
    budget      = argmax_{n <= LONGEST} (1 + sum_{i <= n} reach_i) / (draft seconds(n) + seconds(n + 1))           (4)

The chances are those that the drafter gives (`Draft.chances`); else they are counted here by how far it trusts its
guess, by depth and by rank. The seconds of a call are a line in the number of tokens, fitted as they come, and one
number for a plain call. When drafting has cost more time than it saved, the drafter rests, twice as long each time; but
not longer than keeps the loss small, for texts change. Where no guess was worth its verification, it pauses: for a part
of the rounds since one was, nobody is asked, and they are rounds of plain decoding (`runnel.measured.Rests`).

Deviates: the paper chooses one length for all requests from an offline profile. Here the profile is measured on the way
and the choice is made node by node, after drafting where drafts are cheap (3) and before it where they are dear (4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter

from runnel.draft import Draft
from runnel.measured import Chances, Costs, Line, Mean, Rests, costs_of
from runnel.model import TextModel
from runnel.policies import LengthPolicy, Round

PAPERS = {"Optimizing Speculative Decoding for Serving Large Language Models Using Goodput": "2406.14066"}
CHEAP = 0.05
"""Drafting that takes less than this part of a plain call is not worth a decision."""
LONGEST = 16
LEAST = 0.02
"""A guess that is right less often is not looked at."""
PLAIN_ROUNDS = frozenset(8**power for power in range(8))
"""Rounds that draft nothing, so that what a plain call costs is known."""


@dataclass(frozen=True)
class Config:
    """first_cost >= 1, first_slope >= 0: as those of `Costs`."""

    first_cost: float = 1.3
    first_slope: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("first_cost", 1), ("first_slope", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")

    @classmethod
    def measured(cls, model: TextModel) -> Config:
        """What calls of this model cost on this machine."""
        return cls(*costs_of(model))


class Goodput(LengthPolicy):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.chances, self.trusts = Chances(), dict[int, int]()
        self.costs = Costs(config.first_cost, config.first_slope)
        self.drafting, self.draft_seconds = Line(), Mean()  # of a round, by the guesses of a row, and by and large
        self.rests = Rests()
        self.rounds, self.asked, self.cheap = 0, False, True

    def budgets(self, rows: Sequence[int], room: Sequence[int]) -> list[int]:
        self.rounds += 1
        self.asked = self.rests.over() and self.rounds not in PLAIN_ROUNDS
        if not self.asked:
            return [0] * len(room)
        self.cheap = self.draft_seconds.value(0.0, 1.0) <= CHEAP * self.costs.seconds(len(rows), 0)
        if self.cheap:
            return list(room)
        own = zip(rows, room, strict=True)
        return [self._best_length(len(rows), self.trusts.get(row, 0), tokens) for row, tokens in own]

    def trimmed(self, rows: Sequence[int], drafts: Sequence[Draft]) -> list[Draft]:
        self.trusts = {row: draft.trust for row, draft in zip(rows, drafts, strict=True) if not draft.chances}
        reach, best = [self.chances.reach(draft) for draft in drafts], len(rows) / self.costs.seconds(len(rows), 0)
        branched, most = any(draft.branches for draft in drafts), len(rows) + sum(map(sum, reach))
        if not branched and most <= best * self.costs.curve(len(rows), 1, False)[1]:
            return [Draft([], [])] * len(rows)  # all of it is not worth a call that verifies one
        places = [(value, at, n) for at, own in enumerate(reach) for n, value in enumerate(own) if value >= LEAST]
        shapes = [(False, places)]
        if branched:
            firsts = {(at, n) for at, draft in enumerate(drafts) for n in draft.first_path()}
            shapes = [(False, [place for place in places if place[1:] in firsts]), (True, places)]
        chosen: list[tuple[float, int, int]] = []
        for branching, nodes in shapes:
            nodes.sort(key=itemgetter(0), reverse=True)  # stable: of equal ones the upper first
            seconds, expected = self.costs.curve(len(rows), len(nodes), branching), float(len(rows))
            for count, (value, _, _) in enumerate(nodes, start=1):
                expected += value
                if expected > best * seconds[count]:
                    best, chosen = expected / seconds[count], nodes[:count]  # eq. (3)
        kept = [sorted(node for _, at, node in chosen if at == place) for place in range(len(drafts))]
        return [draft.part(own) for draft, own in zip(drafts, kept, strict=True)]

    def observe(self, round: Round) -> None:
        count, guesses = len(round.rows), len(round.forest.tokens) - len(round.rows)
        branching = guesses > 0 and any(len(children) > 1 for children in round.forest.children.values())
        self.costs.note(count, guesses, branching, round.verify_seconds)
        self.chances.tick()
        if not self.asked:
            return
        self.draft_seconds.note(round.draft_seconds)
        if not self.cheap:
            self.drafting.note(guesses / count, round.draft_seconds)
        if not guesses and self.cheap:
            self.rests.idled()
            return
        for row, walk in zip(round.rows, round.walks, strict=True):
            if row in self.trusts:
                self._count(self.trusts[row], round, walk.path, done=walk.row.done)
        written = count + sum(len(walk.path) - 1 for walk in round.walks)
        self.rests.tried(written / count, round.seconds, self.costs.seconds(count, 0))

    def rest(self) -> int:
        unseen = self.rests.unseen()
        self.chances.tick(unseen)
        return unseen

    def _count(self, trust: int, round: Round, path: Sequence[int], done: bool) -> None:
        """What became of the guesses below the accepted nodes; where a row ended, nothing is known of the last ones."""
        for depth, node in enumerate(path, start=1):
            below = None if depth == len(path) else path[depth]
            if below is None and done:
                return
            for rank, child in enumerate(round.forest.children.get(node, ())):
                self.chances.note(trust, depth, rank, child == below)

    def _best_length(self, rows: int, trust: int, room: int) -> int:
        """Eq. (4), at least one where there is room: that drafting pays at all is up to `Rests`."""
        reach, expected, rates = 1.0, 1.0, list[float]()
        for length in range(1, min(room, LONGEST) + 1):
            reach *= self.chances.of(trust, length, 0)
            expected += reach
            rates.append(expected / (self.drafting.at(length) + self.costs.seconds(rows, length * rows)))
        return 1 + rates.index(max(rates)) if rates else 0


def reference(rows: int, reach: Sequence[float], seconds: Callable[[int], float]) -> list[int]:
    """Eq. (2) and (3) by trying every set of nodes: those that make the tokens come fastest."""
    sets = [list(chosen) for size in range(len(reach) + 1) for chosen in combinations(range(len(reach)), size)]
    return max(sets, key=lambda chosen: (rows + sum(reach[node] for node in chosen)) / seconds(len(chosen)))

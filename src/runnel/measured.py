"""What a policy measures while a text is written: how long calls take, how often guesses are right, and whether it pays
to guess at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from runnel.draft import Draft
from runnel.model import TextModel
from runnel.tree import DraftTree

FORGET, FORGET_PLAIN = 0.98, 0.9
"""What a measurement still counts for after one more of its kind; plain calls are many and soon known."""


@dataclass
class Line:
    """seconds = base + slope * size, by least squares over what was measured, the newest counting most.

    Before enough is known, a guess stands in: `guess(size)` with the weight of one measurement at each of its sizes.
    """

    guesses: tuple[tuple[float, float], ...] = ()
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)

    def note(self, size: float, seconds: float) -> None:
        known = self.sums[0] >= 3
        seconds = min(seconds, 4 * self.at(size)) if known else seconds  # an interrupted call says nothing
        terms = (1.0, size, seconds, size * size, size * seconds)
        self.sums = [FORGET * old + new for old, new in zip(self.sums, terms, strict=True)]

    def fit(self) -> tuple[float, float]:
        """Base and slope."""
        weight, x, y, xx, xy = self.sums
        for size, guess in self.guesses:
            weight, x, y, xx, xy = weight + 1, x + size, y + guess, xx + size * size, xy + size * guess
        if weight == 0:
            return 0.0, 0.0
        spread = weight * xx - x * x
        slope = max(0.0, (weight * xy - x * y) / spread) if spread > 1e-9 * weight * weight else 0.0
        return (y - slope * x) / weight, slope

    def at(self, size: float) -> float:
        base, slope = self.fit()
        return max(0.0, base + slope * size)


@dataclass
class Mean:
    """A mean over what was measured, the newest counting most."""

    total: float = 0.0
    weight: float = 0.0

    def note(self, value: float, forget: float = FORGET) -> None:
        self.total, self.weight = forget * self.total + value, forget * self.weight + 1

    def value(self, prior: float = 0.0, prior_weight: float = 0.0, counts: float = 1.0) -> float:
        """The mean together with a prior; what was measured counts for a part."""
        return (counts * self.total + prior_weight * prior) / (counts * self.weight + prior_weight)


class Costs:
    """The seconds of a call of the model that verifies. A plain call: one number for every number of rows. Others: a
    line in their tokens, one for chains and one where a row branches.

    first_cost, first_slope: what is expected of a call that verifies, but for its guesses, and of each of these, in
    plain calls, before it was measured.
    """

    def __init__(self, first_cost: float, first_slope: float) -> None:
        self.first_cost, self.first_slope = first_cost, first_slope
        self.plain = dict[int, Mean]()
        self.verify = {False: Line(), True: Line()}
        self.curves = dict[tuple[int, bool], list[float]]()  # as they were asked for since the last verification

    def note(self, rows: int, guesses: int, branching: bool, seconds: float) -> None:
        if guesses:
            self._line(branching).note(rows + guesses, seconds)
            self.curves.clear()
            return
        if rows not in self.plain:
            self.plain[rows] = Mean()
        mean = self.plain[rows]
        known = mean.weight >= 3
        mean.note(min(seconds, 4 * mean.value()) if known else seconds, FORGET_PLAIN)
        if not known:
            self.curves.clear()

    def seconds(self, rows: int, guesses: int, branching: bool = False) -> float:
        """A plain call for no guesses; guesses never make it cheaper. One must have been noted."""
        nearest = rows if rows in self.plain else min(self.plain, key=lambda known: abs(known - rows))
        plain = self.plain[nearest].value()
        return plain if guesses == 0 else max(plain, self._line(branching).at(rows + guesses))

    def curve(self, rows: int, most: int, branching: bool) -> list[float]:
        """The seconds of 0, 1, ..., at least `most` guesses."""
        known = self.curves.get((rows, branching), [])
        if len(known) <= most:
            base, slope = self._line(branching).fit()
            plain = self.seconds(rows, 0)
            guesses = [max(plain, base + slope * (rows + more)) for more in range(1, most + 1)]
            known = self.curves[rows, branching] = [plain, *guesses]
        return known

    def _line(self, branching: bool) -> Line:
        """A tree is expected to cost what a chain does, until it was measured."""
        rows, mean = next(iter(self.plain.items()))
        chain, sizes, plain = self.verify[False], [rows + more for more in (1, 16)], mean.value()
        chain.guesses = tuple((size, plain * (self.first_cost + self.first_slope * (size - rows))) for size in sizes)
        if not branching:
            return chain
        tree = self.verify[True]
        tree.guesses = tuple((size, chain.at(size)) for size in sizes)
        return tree


DEEPEST, LAST_RANK, PRIOR_WEIGHT = 4, 3, 2.0
FIRST_CHANCE, NEXT_RANK = 0.6, 0.3
"""What is expected of a first guess before anything is known, and of a guess by what the one before it was worth."""
KINDS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Chances:
    """How likely a guess is to be right when the one above it was: by how far the drafter trusts it, its depth, and its
    rank among its siblings. What is not known yet is expected to be as what is less trusted, or nearer, or before it.
    """

    def __init__(self) -> None:
        self.seen: dict[Key, Mean] = {}
        self.last: dict[Key, int] = {}
        self.known: dict[Key, float] = {}  # what was asked for since the last round
        self.clock = 0

    def tick(self, rounds: int = 1) -> None:
        """More rounds: what was seen grows older, so that guesses which did not pay are tried again now and then."""
        self.clock += rounds
        self.known.clear()

    def note(self, trust: int, depth: int, rank: int, right: bool) -> None:
        key = _key(trust, depth, rank)
        self.seen.setdefault(key, Mean()).note(float(right), self._counts(key))
        self.last[key] = self.clock
        self.known.clear()

    def of(self, trust: int, depth: int, rank: int) -> float:
        return self._of(_key(trust, depth, rank))

    def reach(self, draft: Draft) -> list[float]:
        """For every node of a draft, the product of the chances on its path: those that the drafter gives, if any."""
        if draft.chances:
            return self._along(draft)
        reach, depth, children = list[float](), list[int](), dict[int, int]()
        for parent in draft.parents:
            rank = children.get(parent, 0)
            children[parent] = rank + 1
            depth.append(1 if parent < 0 else depth[parent] + 1)
            above = 1.0 if parent < 0 else reach[parent]
            reach.append(above * self.of(draft.trust, depth[-1], rank))
        return reach

    @staticmethod
    def _along(draft: Draft) -> list[float]:
        reach = list[float]()
        for parent, chance in zip(draft.parents, draft.chances, strict=True):
            reach.append(chance if parent < 0 else chance * reach[parent])
        return reach

    def _of(self, key: Key) -> float:
        if key not in self.known:
            mean, prior = self.seen.get(key), self._prior(key)
            self.known[key] = prior if mean is None else mean.value(prior, PRIOR_WEIGHT, self._counts(key))
        return self.known[key]

    def _prior(self, key: Key) -> float:
        kind, depth, rank = key
        if rank > 0:
            return NEXT_RANK * self._of((kind, depth, rank - 1))
        if depth > 1:
            return self._of((kind, depth - 1, rank))
        return self._of((kind - 1, depth, rank)) if kind > 0 else FIRST_CHANCE

    def _counts(self, key: Key) -> float:
        """What the chance of a kind of guess still counts for by now."""
        return FORGET ** (1 + self.clock - self.last.get(key, self.clock))


Key = tuple[int, int, int]


def _key(trust: int, depth: int, rank: int) -> Key:
    kind = sum(trust >= least for least in KINDS) - 1
    return kind, min(depth, DEEPEST), min(rank, LAST_RANK)


LONGEST_REST, BEARABLE = 256, 0.01
"""Rounds that a drafter rests at most; and no more than make what it loses this part of the time of all rounds."""
LONGEST_PAUSE, PAUSES = 8, 0.5
"""Rounds of a pause at most; and no more than this part of those since a guess was last worth its verification."""


class Rests:
    """Rounds that draft nothing as drafting did not pay.

    A rest follows rounds of drafts that wrote slower than plain ones: twice as long each time, but not longer than
    keeps the loss small, for texts change. A pause follows rounds in which no guess was worth its verification. It
    costs nothing, and of a text that begins to repeat it misses a few tokens.

    left, next: rounds to come of this rest, and of another. idle: rounds since a guess was worth its verification.
    """

    def __init__(self) -> None:
        self.gained, self.spent = Mean(), Mean()
        self.left, self.next, self.idle = 0, 1, 0

    def tried(self, gain: float, seconds: float, plain: float) -> None:
        """A round of drafts wrote so many tokens a row in so many seconds; plain ones take `plain` for one."""
        self.idle = 0
        self.gained.note(gain)
        self.spent.note(seconds)
        if self.gained.weight < 4:
            return
        lost = self.spent.total / (self.gained.total * plain) - 1
        if lost <= 0:
            self.next = 1
        else:
            self.left, self.next = self.next, min(2 * self.next, LONGEST_REST, 1 + int(lost / BEARABLE))

    def idled(self) -> None:
        """No guess was worth its verification."""
        self.idle += 1

    def over(self) -> bool:
        """Whether another round need not rest. If not, it is the last of the rest."""
        rested, self.left = self.left > 0, 0
        return not rested

    def unseen(self) -> int:
        """Rounds from now on that nobody need look at: all of a pause, and all but the last of a rest, which tells what
        plain rounds cost by now.
        """
        if self.left:
            unseen, self.left = self.left - 1, 1
        else:
            unseen = min(LONGEST_PAUSE, int(PAUSES * self.idle))
            self.idle += unseen
        return unseen


@torch.no_grad()
def verify_curve(
    model: TextModel,
    sizes: Sequence[int] = (1, 2, 4, 8, 16),
    context: int = 256,
    repeats: int = 15,
    seconds: float = math.inf,
) -> dict[int, float]:
    """v(m): the seconds of verifying a chain of m tokens and committing all of it, over those of one plain step.

    seconds: after so many no repeat begins; one is made in any case.
    """
    vocab_size, until = model.config.vocab_size or 1, time.perf_counter() + seconds
    text = torch.randint(0, vocab_size, (1, context), generator=torch.Generator().manual_seed(0)).to(model.device)
    _, state = model(text)

    def call(size: int) -> None:
        if size == 0:
            model(text[:, :1], state)
            return
        tree = DraftTree(text[0, :size].cpu(), list(range(-1, size - 1)), [0] * size)
        state.commit(model.verify(state, tree).pending, [list(range(size))])

    took: dict[int, list[float]] = {size: [] for size in (0, *sizes)}
    for repeat in range(repeats + 2):
        if repeat and time.perf_counter() > until:
            break
        for size, own in took.items():
            started = time.perf_counter()
            call(size)
            own.append(time.perf_counter() - started)
    warm = min(2, len(took[0]) - 1)
    return {
        size: median(own / one for own, one in zip(took[size][warm:], took[0][warm:], strict=True)) for size in sizes
    }


def costs_of(model: TextModel, seconds: float = 0.5) -> tuple[float, float]:
    """The first_cost and first_slope of `Costs` by v(m), measured for about so many seconds."""
    line = Line()
    for size, cost in verify_curve(model, (2, 4, 8, 16), repeats=5, seconds=seconds).items():
        line.note(size - 1, cost)
    base, slope = line.fit()
    return max(1.0, base), slope

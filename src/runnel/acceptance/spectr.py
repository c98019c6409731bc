"""SpecTr: several independent guesses at a place, accepted by a cheap transport that is nearly the best one.

Paper: "SpecTr: Fast Speculative Decoding via Optimal Transport" (2023, 2310.15141): the transport problem of section 4,
eq. (1) to (5) here, and K-SEQ, its algorithm 2.

    the best rule maximises P(y in {x_1..x_k}) over couplings of q^k and p; its value is     (1)
        min over sets A of p(A) + 1 - q(A)^k
    beta(rho)  = sum_v min(q(v), p(v) / rho)                                                 (2)
    accept x_i with probability min(1, p(x_i) / (rho q(x_i))), i = 1..k in turn              (3)
    else draw from p - min(q, p / rho) (1 - (1 - beta)^k) / beta, normalised                 (4)
    rho in [1, k] solves 1 - (1 - beta(rho))^k = rho beta(rho)                               (5)

| code | paper |
|---|---|
| law, taken | p, q |
| scale | rho, found by bisection |
| count | k |

K-SEQ accepts at least 1 - (1 - 1/k)^k >= 1 - 1/e as often as (1). The guesses must be independent, as those of the tree
builder `independent` are: of siblings drawn without replacement only the first is looked at (`recursive_rejection` has
a use for all), and so of tokens that were given. With one child the rule is `rejection`.
(1) is the minimal cut of the paper's linear program (a flow from tuples to their tokens); `transport` solves the flow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.acceptance import Acceptance, proposal
from runnel.rows import Walk

PAPERS = {"SpecTr: Fast Speculative Decoding via Optimal Transport": "2310.15141"}
LOSSLESS = True
HALVINGS = 60


@dataclass(frozen=True)
class Config:
    """There is nothing to set: k is the number of children."""


class Spectr(Acceptance):
    def step(self, walk: Walk) -> None:
        law = walk.law()
        if not walk.children:
            walk.end(walk.draw(law))
            return
        taken = proposal(walk, walk.children[0])
        children = walk.children if walk.independent else walk.children[:1]
        scale = scale_of(law, taken, len(children))
        for child, chance in zip(children, walk.chances(len(children)), strict=True):
            token = walk.token(child)
            if chance * (scale * float(taken[token])) < float(law[token]):  # eq. (3)
                # a guess that came twice has what follows it below the first of the two
                walk.step(token)
                return
        walk.end(walk.draw(rest_of(law, taken, len(children), scale)))


def scale_of(law: Tensor, taken: Tensor, count: int) -> float:
    """Eq. (5), rounded up: a scale that is too large stays lossless."""
    low, high = 1.0, float(count)
    for _ in range(HALVINGS if count > 1 else 0):
        scale = (low + high) / 2
        beta = _beta(law, taken, scale)
        if 1 - (1 - beta) ** count > scale * beta:
            low = scale
        else:
            high = scale
    return high


def rest_of(law: Tensor, taken: Tensor, count: int, scale: float) -> Tensor:
    """Eq. (4), not normalised; the law itself where nothing is left."""
    beta = _beta(law, taken, scale)
    if beta <= 0:
        return law
    rest = (law - torch.minimum(taken, law / scale) * ((1 - (1 - beta) ** count) / beta)).clamp(min=0)
    return rest if rest.sum() > 0 else law


def _beta(law: Tensor, taken: Tensor, scale: float) -> float:
    """Eq. (2)."""
    return min(1.0, float(torch.minimum(taken, law / scale).sum()))


def transport(law: Sequence[float], taken: Sequence[float], count: int) -> dict[tuple[tuple[int, ...], int], float]:
    """An optimal coupling's accepted part: {(guesses, written token among them): probability}. For small cases: it
    looks at V^k tuples, and sends flow along augmenting paths until there is none.
    """
    tuples = itertools.product(range(len(law)), repeat=count)
    unsent = {guess: math.prod(taken[token] for token in guess) for guess in tuples}
    room, flow = list(law), dict[tuple[tuple[int, ...], int], float]()
    while (path := _augmenting(unsent, room, flow)) is not None:
        forward, backward = path[::2], path[1::2]
        amount = min([unsent[path[0][0]], room[path[-1][1]], *[flow[edge] for edge in backward]])
        unsent[path[0][0]] -= amount
        room[path[-1][1]] -= amount
        for edge in forward:
            flow[edge] = flow.get(edge, 0.0) + amount
        for edge in backward:
            flow[edge] -= amount
    return flow


def _augmenting(
    unsent: dict[tuple[int, ...], float], room: list[float], flow: dict[tuple[tuple[int, ...], int], float]
) -> list[tuple[tuple[int, ...], int]] | None:
    """A shortest way for more flow: edges (tuple, token), taken forth and back in turn; None when there is none."""
    least = 1e-15
    paths = [[(guess, token)] for guess, mass in unsent.items() if mass > least for token in sorted(set(guess))]
    seen: set[int] = set()
    for path in paths:  # grows while it is read: breadth first
        token = path[-1][1]
        if token in seen:
            continue
        seen.add(token)
        if room[token] > least:
            return path
        users = [guess for (guess, used), mass in flow.items() if used == token and mass > least]
        paths += [[*path, (guess, token), (guess, other)] for guess in users for other in sorted(set(guess))]
    return None


def reference(law: Tensor, taken: Tensor, count: int) -> Tensor:
    """The law of the written token, by summing over all tuples of guesses and which of them is accepted."""
    scale, written = scale_of(law, taken, count), torch.zeros_like(law)
    rest = rest_of(law, taken, count, scale)
    for guesses in itertools.product(range(law.numel()), repeat=count):
        left = math.prod(float(taken[token]) for token in guesses)
        for token in guesses if left > 0 else ():
            kept = min(1.0, float(law[token]) / (scale * float(taken[token])))
            written[token] += left * kept
            left *= 1 - kept
        written += left * rest / rest.sum()
    return written

"""How long to draft: the decision process of a chain whose drafts differ in how likely they are to be accepted.

After every draft its chance a is known, that of the next is not. A draft costs c1, a call of the target c2; a round
gives the tokens up to the first rejection and one more. The best policy goes on while

    a_1 .. a_k E[a] >= g c1,  g the most tokens per cost of any policy                 (1)

that is while the chance of a rejection so far, 1 - a_1 .. a_k, is at most 1 - g c1 / E[a]: a threshold ("SpecDec++:
Boosting Speculative Decoding via Adaptive Candidate Lengths", 2024, 2405.19715, section 4). Going on a step further
never pays where one step does not, as the left side of (1) only falls.
"""

from __future__ import annotations

from collections.abc import Sequence

Kinds = Sequence[tuple[float, float]]
"""Chances of acceptance that a draft may have, each with its probability."""


def best_threshold(kinds: Kinds, draft_cost: float, call_cost: float, longest: int) -> float:
    """The threshold of eq. (1): g is raised to what its own threshold reaches, until it stays (Dinkelbach's method)."""
    mean, rate, threshold = sum(a * share for a, share in kinds), 0.0, 1.0
    while True:
        tokens, cost = expected(kinds, threshold, draft_cost, call_cost, longest)
        if tokens / cost <= rate * (1 + 1e-12):
            return threshold
        rate = tokens / cost
        threshold = max(0.0, 1 - rate * draft_cost / mean)


def expected(kinds: Kinds, threshold: float, draft_cost: float, call_cost: float, longest: int) -> tuple[float, float]:
    """Mean tokens and mean cost of a round of one to `longest` drafts that stops above a threshold."""
    tokens, cost = 1.0, call_cost
    going = [(1.0, 1.0, 1)]  # the chance that all drafts so far are kept, how likely it is to be there, the next draft
    for kept, likely, number in going:  # grows while it is read
        cost += likely * draft_cost
        for a, share in kinds:
            tokens += likely * share * kept * a
            if number < longest and 1 - kept * a <= threshold:
                going.append((kept * a, likely * share, number + 1))
    return tokens, cost

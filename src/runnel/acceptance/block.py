"""Block verification: a chain of drafts is judged as a whole, which accepts more than judging token by token.

Paper: "Block Verification Accelerates Speculative Decoding" (2024, 2403.10444), algorithm 2.

    w_0 = 1,  w_i = min(1, w_{i-1} p(x_i | x_<i) / q(x_i | x_<i))                            (1)
    r_i = sum_v max(0, w_i p(v | x_<=i) - q(v | x_<=i))                                      (2)
    h_i = r_i / (r_i + 1 - w_i) for i < n,  h_n = w_n                                        (3)
    accept the first t drafts, t the largest i with u_i <= h_i, or 0                         (4)
    then draw from max(0, w_t p - q), normalised, for t < n, and from p for t = n            (5)

| code | paper |
|---|---|
| weights | p_i, here w_i |
| excess | the sum of eq. (2) |
| n, t | gamma, tau |

The chain may be of any length, also one that depends on its tokens, as long as it was settled before the next was
drawn. In another tree the chain is that of first children, the first drawn below each node; the others are not looked
at. Drafts must be new in every round: what a round rejects says something about the noise that it was drawn with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.acceptance import Acceptance, proposal
from runnel.processors import Exhausted
from runnel.rows import Walk

PAPERS = {"Block Verification Accelerates Speculative Decoding": "2403.10444"}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Block(Acceptance):
    def step(self, walk: Walk) -> None:
        chain, laws, taken = _chain(walk)
        weights, rests = _weights([walk.token(node) for node in chain], laws, taken)
        chances = walk.chances(len(chain))
        kept = [i for i, chance in enumerate(chances, start=1) if chance < _cut(i, weights, rests)]
        taken_whole = max(kept, default=0)  # eq. (4)
        for node in chain[:taken_whole]:
            if walk.walking:
                walk.go(node)
        if walk.walking:
            rest = rests[taken_whole]
            walk.end(walk.draw(rest if rest.sum() > 0 else laws[taken_whole]))  # eq. (5)


def _chain(walk: Walk) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """The first children below the walk, the model's law after each number of them, and what each was drawn from."""
    chain, laws, taken = list[int](), [walk.law()], list[Tensor]()
    children = walk.children
    while children:
        child = children[0]
        try:
            law = walk.law([*chain, child])
        except Exhausted:  # a path that plain decoding cannot take
            break
        taken.append(proposal(walk, child, chain))
        chain.append(child)
        laws.append(law)
        children = walk.forest.children.get(child, ())
    return chain, laws, taken


def _weights(
    tokens: Sequence[int], laws: Sequence[Tensor], taken: Sequence[Tensor]
) -> tuple[list[float], list[Tensor]]:
    """Eq. (1), and what is summed in (2): after the whole chain that is the law."""
    weights = [1.0]
    for token, law, proposed in zip(tokens, laws, taken, strict=False):
        weights.append(min(1.0, weights[-1] * float(law[token]) / float(proposed[token])))
    rests = [(w * p - q).clamp(min=0) for w, p, q in zip(weights, laws, taken, strict=False)]
    return weights, [*rests, laws[len(tokens)]]


def _cut(i: int, weights: Sequence[float], rests: Sequence[Tensor]) -> float:
    """Eq. (3). Without excess the law has no need of a cut here."""
    if i == len(weights) - 1:
        return weights[i]
    excess = float(rests[i].sum())
    return excess / (excess + (1 - weights[i])) if excess > 0 else 0.0


def reference(laws: Sequence[float], taken: Sequence[float], count: int) -> dict[tuple[int, ...], float]:
    """The law of the first `count` + 1 tokens when laws (V,) and taken (V,) are those after any text: by summing over
    the drafts and the place where the chain is cut, and going on plainly behind it.
    """
    p, q = torch.tensor(laws, dtype=torch.float64), torch.tensor(taken, dtype=torch.float64)
    texts = torch.cartesian_prod(*[torch.arange(len(p))] * (count + 1)).reshape(-1, count + 1).tolist()
    written = dict.fromkeys(map(tuple, texts), 0.0)
    for drafts in {tuple(text[:count]) for text in texts}:
        if float(q[list(drafts)].prod()) == 0:
            continue
        weights, rests = _weights(drafts, [p] * (count + 1), [q] * count)
        above = float(q[list(drafts)].prod())  # the probability of these drafts, and of no cut at a longer prefix
        for cut in range(count, -1, -1):
            excess = float(rests[cut].sum())
            kept = _cut(cut, weights, rests) if cut else 1.0
            rest = rests[cut] / rests[cut].sum() if excess > 0 else p
            for text in written:
                if text[:cut] == drafts[:cut]:
                    written[text] += above * kept * float(rest[text[cut]]) * float(p[list(text[cut + 1 :])].prod())
            above *= 1 - kept
    return written

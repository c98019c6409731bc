"""Recursive rejection: siblings are tried one after another, each against what the ones before it left of the law.

Paper: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement" (2024, 2402.14160),
section 3.1 and algorithm 5. With siblings that may repeat it is the multi-round sampling of "SpecInfer" (2305.09781).

    q_1 = q,  q_i = q without x_1..x_{i-1}, normalised;  p_1 = p                       (1)
    accept x_i ~ q_i with probability min(1, p_i(x_i) / q_i(x_i))                      (2)
    else p_{i+1} = max(0, p_i - q_i), normalised                                       (3)
    when all siblings were rejected, draw from what is left                            (4)

| code | paper |
|---|---|
| left | the residual laws p_i |
| proposed | q_i; one at x_i for a token that was given, or that q has no mass left for |

A repeated sibling is skipped by itself: its chance in (2) is 0, and that the next one differs makes its law q_i. With
one child the rule is `rejection`. The children must have been drawn in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.acceptance import Acceptance, offered
from runnel.rows import Walk

PAPERS = {
    "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement": "2402.14160",
}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class RecursiveRejection(Acceptance):
    def step(self, walk: Walk) -> None:
        offered(walk, walk.law())


def reference(law: Tensor, taken: Tensor, count: int, drawn: Sequence[int] = ()) -> Tensor:
    """The law of the token that is written from p = law (V,) after `count` siblings drawn from q = taken (V,), by
    summing over what is drawn next, given what was drawn and rejected before, and both outcomes.
    """
    proposed = taken.index_fill(0, torch.tensor(drawn, dtype=torch.long), 0.0)
    if count == 0 or proposed.sum() <= 0:
        return law
    proposed = proposed / proposed.sum()
    rest = (law - proposed).clamp(min=0)
    rest = rest / rest.sum() if rest.sum() > 0 else law
    written = torch.zeros_like(law)
    for token, q in enumerate(proposed.tolist()):
        if q > 0:
            kept = min(1.0, float(law[token]) / q)
            written[token] += q * kept
            if kept < 1:
                written += q * (1 - kept) * reference(rest, taken, count - 1, [*drawn, token])
    return written

"""Rejection: a drafted token is kept with probability min(1, p/q), else the residual law is drawn from.

Papers: "Fast Inference from Transformers via Speculative Decoding" (2022, 2211.17192), algorithm 1; the same rule in
"Accelerating Large Language Model Decoding with Speculative Sampling" (2023, 2302.01318), theorem 1.

    accept x ~ q with probability min(1, p(x) / q(x))                                  (1)
    else draw from max(0, p - q), normalised                                           (2)

p and q are the laws after the row's processors, temperature and truncation; q of a token that was given, not drawn, is
one at that token. Of several children only the first is looked at: more need `recursive_rejection` or `spectr`.
The law of the text is that of plain decoding; the text itself depends on the drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runnel.acceptance import Acceptance, proposal, residual
from runnel.rows import Walk

PAPERS = {
    "Fast Inference from Transformers via Speculative Decoding": "2211.17192",
    "Accelerating Large Language Model Decoding with Speculative Sampling": "2302.01318",
}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Rejection(Acceptance):
    def step(self, walk: Walk) -> None:
        law = walk.law()
        if not walk.children:
            walk.end(walk.draw(law))
            return
        child = walk.children[0]
        token = walk.token(child)
        taken = proposal(walk, child)
        if walk.chances(1)[0] * float(taken[token]) < float(law[token]):  # eq. (1)
            walk.go(child)
        else:
            walk.end(walk.draw(residual(law, taken)))  # eq. (2)


def reference(law: Sequence[float], taken: Sequence[float]) -> list[float]:
    """The law of the token that is written, by summing over the drafted token and both outcomes."""
    written = [0.0] * len(law)
    rest = residual(torch.tensor(law), torch.tensor(taken)).tolist()
    for token, q in enumerate(taken):
        kept = min(1.0, law[token] / q) if q > 0 else 0.0
        written[token] += q * kept
        for other, r in enumerate(rest):
            written[other] += q * (1 - kept) * r
    return written

"""Medusa-1: each head learns the token that stands as far ahead as it looks; the target is frozen.

Paper: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads" (2024, 2401.10774), section
2.2.1.

    loss = sum over k of lambda^k L_k / sum over k of lambda^k,  L_k = -mean of log p_k(x_{t+k+1})          (1)

| code | paper |
|---|---|
| DECAY | lambda, whose powers are lambda_k |

Deviates: a mean over the heads instead of a sum, so that the loss is in nats per token. It trains every drafter with
heads. Self-distillation is text written by the target: give such a text as data.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from runnel.ops.precision import widen
from runnel.trained.heads import Guesser, weighted
from runnel.types import Batch

PAPERS = {"Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads": "2401.10774"}
DECAY = 0.8


def loss(drafter: Guesser, batch: Batch) -> Float[Tensor, ""]:
    """Nats per guessed token, near heads first."""
    return weighted(
        [(cross_entropy(widen(g.logits), g.tokens), DECAY**g.head) for g in drafter.guesses(batch)]  # eq. (1)
    )

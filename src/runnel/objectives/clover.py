"""Clover's loss: each head learns the token that it guesses, the true tokens of the branch before it given.

Paper: "Clover: Regressive Lightweight Speculative Decoding with Sequential Knowledge" (2024, 2405.00263), section 4.1.

    loss = (1 / K) sum over k of L_k,  L_k = -mean of log p_k(x_{t+k+1} | h_t, x_{t+1}, ..., x_{t+k})         (1)

The heads count alike: one state runs through all of them, so that later heads teach earlier ones. It trains every
drafter with heads.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from runnel.ops.precision import widen
from runnel.trained.heads import Guesser, weighted
from runnel.types import Batch

PAPERS = {"Clover: Regressive Lightweight Speculative Decoding with Sequential Knowledge": "2405.00263"}


def loss(drafter: Guesser, batch: Batch) -> Float[Tensor, ""]:
    """Nats per guessed token."""
    return weighted([(cross_entropy(widen(g.logits), g.tokens), 1.0) for g in drafter.guesses(batch)])  # eq. (1)

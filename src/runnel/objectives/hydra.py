"""Hydra's teacher loss: each head learns the whole law of the frozen target at the place that it guesses.

Paper: "Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding" (2024, 2402.05109), section 4.1.

    loss = sum over k of lambda^k L_k / sum over k of lambda^k,  L_k = -mean of sum over v of p(v) log p_k(v)        (1)

p is the target's law after x_0..x_k, which head k has seen the tokens of too.

| code | paper |
|---|---|
| DECAY | Medusa's lambda |

It trains every drafter with heads; the objective `medusa` is the same with the token of the text in place of p.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from runnel.ops.precision import widen
from runnel.trained.heads import Guesser, weighted
from runnel.types import Batch

PAPERS = {"Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding": "2402.05109"}
DECAY = 0.8


def loss(drafter: Guesser, batch: Batch) -> Float[Tensor, ""]:
    """Nats per guessed token, near heads first; the entropy of the target is its floor."""
    pairs = [(widen(g.logits), widen(g.taught).softmax(-1), DECAY**g.head) for g in drafter.guesses(batch)]
    return weighted([(cross_entropy(logits, law), weight) for logits, law, weight in pairs])  # eq. (1)

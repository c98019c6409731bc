"""Hidden transfer's loss: each pseudo vector is to say what the target says where the text really stands there.

Paper: "Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration" (2024, 2404.12022),
section 3.3.

    loss = (1 / k) sum over i of the mean over t of KL(p(. | x_1..x_{t+i}) || p_i(. | x_1..x_t))                (1)

The gradient runs through the frozen upper layers into the transfer matrices alone. It trains every drafter that guesses
several places from one; it is `hydra` without its weights, less the entropy of the target, so that its floor is zero.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from runnel.ops.precision import widen
from runnel.trained.heads import Guesser, weighted
from runnel.types import Batch

PAPERS = {"Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration": "2404.12022"}


def loss(drafter: Guesser, batch: Batch) -> Float[Tensor, ""]:
    """Nats per guessed token above those of the target itself."""
    pairs = [(log_softmax(widen(g.logits), -1), log_softmax(widen(g.taught), -1)) for g in drafter.guesses(batch)]
    return weighted([(kl_div(own, law, reduction="batchmean", log_target=True), 1.0) for own, law in pairs])  # eq. (1)

"""EAGLE's loss: the next feature by regression, and the target's law at it by distillation.

Papers: "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty" (2024, 2401.15077), section 3.2; "Boosting
Lossless Speculative Decoding via Feature Sampling and Partial Alignment Distillation" (2024, 2408.15562), section 3.2.

    loss = mean of SmoothL1(f'_{t+1}, f_{t+1}) + w_cls mean of -sum over v of p(v) log q(v),
    p = softmax(head(f_{t+1})),  q = softmax(head(g_t))                                              (1)

| code | papers |
|---|---|
| CLASSES | w_cls |
| NOISE | features are read with uniform noise of this size, so that errors of guessed ones do harm less |

In EAGLE itself g_t = f'_{t+1}, so both terms pull at one vector; with partial alignment each has a part of its own.
The noise is drawn in training only, from PyTorch's generator, which the trainer keeps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from runnel.ops.precision import widen
from runnel.trained.pairs import Pairs
from runnel.types import Batch

PAPERS = {
    "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty": "2401.15077",
    "Boosting Lossless Speculative Decoding via Feature Sampling and Partial Alignment Distillation": "2408.15562",
}
CLASSES, NOISE = 0.1, 0.1


def loss(drafter: Pairs, batch: Batch) -> Float[Tensor, ""]:
    """The regression of features plus the distillation of laws, over all places with a true next feature."""
    taught = drafter.taught(batch)
    if not bool(taught.kept.any()):
        raise ValueError("batch must hold documents of at least two tokens; it holds none")
    noise = (2 * torch.rand_like(taught.features) - 1) * NOISE if drafter.training else 0.0
    guessed, following = drafter.foresee(taught.features + noise, taught.tokens, taught.lineage)
    regression = smooth_l1_loss(widen(following[taught.kept]), widen(taught.nexts[taught.kept]))
    law = widen(taught.laws[taught.kept]).softmax(-1)
    return regression + CLASSES * cross_entropy(widen(drafter.law(guessed[taught.kept])), law)  # eq. (1)

"""FastDraft's alignment: the target writes on from each prompt, and the draft learns its law at every place it wrote.

Paper: "FastDraft: How to Train Your Draft" (2024, 2411.11055), section 3.3.

    x_{m+1}..x_T ~ p( . | x_1..x_m),   loss = -mean over t > m, sum over v of p(v | x_<t) log q(v | x_<t)          (1)

| code | paper |
|---|---|
| PROMPT | m / T: the share of a row that is prompt |

The target samples at temperature 1, with PyTorch's generator, which the trainer keeps: text that it would write is
what a draft has to guess. Deviates: the sequences are written anew for every batch instead of once beforehand, so that
none is seen twice; the paper also tries the plain loss on them, which is data written by the target for `nested`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from runnel.model import Model
from runnel.ops.precision import widen
from runnel.trained.staged import Staged
from runnel.types import Batch

PAPERS = {"FastDraft: How to Train Your Draft": "2411.11055"}
PROMPT = 0.25


def loss(drafter: Staged, batch: Batch) -> Float[Tensor, ""]:
    """Nats per written token, a mean over the exits; the entropy of the target is its floor."""
    length = batch.inputs.shape[1]
    known = max(1, round(PROMPT * length))
    if known == length:
        raise ValueError("batch must hold rows of at least two tokens, so that something can be written; got one")
    tokens, laws = written(drafter.target, batch.inputs[:, :known], length - known)
    exits = [logits[:, known - 1 :].flatten(0, 1) for logits in drafter.exits(tokens[:, :-1])]
    return torch.stack([cross_entropy(widen(logits), laws.flatten(0, 1)) for logits in exits]).mean()  # eq. (1)


@torch.no_grad()
def written(
    target: Model, prompts: Int[Tensor, "B S"], count: int
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B N V"]]:
    """The prompts with `count` tokens that the target wrote after them, and the laws that it drew these from."""
    logits, state = target(prompts)
    tokens, laws = [prompts], []
    for _ in range(count):
        laws.append(widen(logits[:, -1]).softmax(-1))
        tokens.append(torch.multinomial(laws[-1], 1))
        logits, state = target(tokens[-1], state)
    return torch.cat(tokens, dim=1), torch.stack(laws, dim=1)

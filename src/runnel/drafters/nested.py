"""Nested: sub-models of one network, each a prefix of its layers; the shallowest that is sure of itself drafts.

Paper: "S2D: Sorted Speculative Decoding For More Efficient Deployment of Nested Large Language Models" (2024,
2407.01955), sections 3.1 and 3.2; the sub-models are trained together by the objective `nested`.

    f_n(x) = head(norm(layers 1..d_n (x))),  d_1 < d_2 < ... < d_N                                   (1)
    draft from f_n with n the least for which max over v of softmax(f_n)(v) >= threshold, else n = N         (2)

| code | paper |
|---|---|
| exits | d_n, the depths of the sub-models |
| threshold | tau |
| embedding, norm, head | of the whole network, one for all sub-models |

The network begins as the first layers of the target, and is then trained on its own: the target keeps its weights.
It looks at nothing but the text, so one network drafts for every model of the same tokens, whatever its size.

Deviates: a token that an exit was enough for is read by deeper layers only when one of them is asked again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from runnel.trained import ChainedConfig
from runnel.trained.stack import Leading, Stack, sliced
from runnel.trained.staged import Staged

PAPERS = {
    "S2D: Sorted Speculative Decoding For More Efficient Deployment of Nested Large Language Models": "2407.01955"
}
TRAINED = True


@dataclass(frozen=True)
class Config(ChainedConfig):
    """exits: rising depths, the last of at most the target's layers; threshold in [0, 1]."""

    exits: Sequence[int] = (1, 2)
    threshold: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        exits, layers = list(self.exits), len(self.target.layers)
        if exits != sorted(set(exits)) or not exits or exits[0] < 1 or exits[-1] > layers:
            raise ValueError(f"exits must be rising depths in [1, {layers}], the target's layers; got {exits}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1]; got {self.threshold}")


class Nested(Staged):
    config: Config

    def make(self, d_model: int) -> None:
        self.embedding, self.norm, self.head = copy.deepcopy((self.target.embed, self.target.norm, self.target.head))
        *cuts, deepest = self.config.exits
        layers = copy.deepcopy(list(self.target.layers[:deepest]))
        self.stages = nn.ModuleList(sliced(layers, cuts, nn.Identity(), d_model, self.embedding))
        if any(stage.after for stage in self.parts):
            self.norm = Leading(self.norm, d_model)

    def enough(self, logits: Float[Tensor, "N V"]) -> Bool[Tensor, "N"]:
        return logits.softmax(-1).amax(-1) >= self.config.threshold  # eq. (2)


@torch.no_grad()
def reference(drafter: Nested, text: Sequence[int]) -> tuple[Float[Tensor, "V"], int]:
    """Eq. (1) and (2) after a text, which every sub-model reads anew: the logits, and the depth that gave them."""
    logits, depth = torch.empty(0), 0
    for depth in drafter.config.exits:
        layers = [layer for stage in drafter.parts for layer in stage.layers][:depth]
        x, _ = Stack(layers, nn.Identity())(drafter.embedding(torch.tensor([text])))
        logits = drafter.head(drafter.norm(x[0, -1]))
        if float(logits.softmax(-1).max()) >= drafter.config.threshold:
            break
    return logits, depth

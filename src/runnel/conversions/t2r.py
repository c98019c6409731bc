"""Attention becomes T2R: the same projections, and learned features in place of the softmax.

Paper: "Finetuning Pretrained Transformers into RNNs" (2021, 2103.13076), sections 2 and 3: swap, then finetune.

    every weight of the attention = the layer's of the same name;   phi = relu(W_phi x + b_phi) is new

What is computed is on the page of the mixer. Deviates: the paper finetunes the whole model on text; here the converted
layers learn from the teacher, as with the other recipes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.conversions import Conversion, same, shapes
from runnel.mixers import t2r
from runnel.mixers.attention import Attention
from runnel.patterns import Part

PAPERS = {"Finetuning Pretrained Transformers into RNNs": "2103.13076"}


@dataclass(frozen=True)
class Config:
    """features: size of the map."""

    features: int = 32


class ToT2R(Conversion):
    carries = ("bias", "out_bias")
    config: Config

    def part(self, attention: Attention) -> Part:
        return Part("t2r", {**shapes(attention), "features": self.config.features, **same(attention, t2r.Config)})

    def transfer(self, attention: Attention, made: t2r.T2R) -> None:
        made.load_state_dict({**made.state_dict(), **attention.state_dict()})


def reference(attention: Attention, made: t2r.T2R, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Attention's own queries, keys and values, and the weights of every token over its past; phi is the mixer's."""
    q, k, v = attention._project(u, torch.arange(u.shape[1])[None])
    each = attention.heads // attention.groups
    heads = []
    for h in range(attention.heads):
        g = h // each
        features = [(x @ made.phi.weight[g].mT + made.phi.bias[g]).relu() + t2r.LEAST for x in (q[:, :, h], k[:, :, g])]
        weights = (features[0] @ features[1].mT).tril()
        heads.append(weights @ v[:, :, g] / weights.sum(-1, keepdim=True))
    return attention.out(torch.stack(heads, dim=-2).flatten(-2))

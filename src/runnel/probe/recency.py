"""Recency and over-smoothing of a model: how fast influence fades with distance, and how alike tokens grow with depth.

Paper: "Understanding and Mitigating Bottlenecks of State Space Models through the Lens of Recency and Over-smoothing"
(2025, 2501.00658), sections 3 and 4.

    influence of the token d places back = || d h_T / d e_{T-d} ||, h before the head, e the embedding      (1)
    likeness at a depth = mean cosine of the vectors of two different tokens there                          (2)

A state that only decays gives (1) an exponential fall; (2) near one says that depth has averaged the tokens away.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from runnel.model import Model


def influence_by_distance(model: Model, tokens: Int[Tensor, "T"]) -> Float[Tensor, "T"]:
    """(1) for the last of the tokens, itself first: Frobenius norms. One backward pass for every channel."""
    seen: list[Tensor] = []

    def note(module: Any, arguments: Any, embedded: Tensor) -> Tensor:
        seen.append(embedded.detach().requires_grad_())
        return seen[0]

    hook = model.embed.register_forward_hook(note)
    try:
        with torch.enable_grad():
            last = model.features(tokens[None])[0][0, -1]
    finally:
        hook.remove()
    squares = torch.zeros(len(tokens), dtype=last.dtype)
    for channel in range(len(last)):
        (gradient,) = torch.autograd.grad(last[channel], seen[0], retain_graph=True)
        squares += gradient[0].square().sum(-1)
    return squares.sqrt().flip(0)


@torch.no_grad()
def likeness_by_depth(model: Model, tokens: Int[Tensor, "T"]) -> Float[Tensor, "L"]:
    """(2) before every layer and after the last; two tokens at least."""
    if len(tokens) < 2:
        raise ValueError(f"likeness is of two tokens or more; got {len(tokens)}")
    seen: list[Tensor] = []
    places = [*model.layers, model.norm]
    hooks = [place.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0])) for place in places]
    try:
        model.features(tokens[None])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([_likeness(x) for x in seen])


def _likeness(x: Float[Tensor, "T D"]) -> Tensor:
    unit = normalize(x, dim=-1)
    count = len(x)
    return ((unit @ unit.T).sum() - count) / (count * (count - 1))

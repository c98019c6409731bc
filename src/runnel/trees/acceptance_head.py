"""Acceptance head: a chain that ends where a trained head expects a rejection.

Paper: "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths" (2024, 2405.19715), sections 4 and 5.

    a(x_i) = sigmoid(f(law that x_i was drawn from, x_i)),  f a residual network                       (1)
    stop after x_k when 1 - a(x_1) .. a(x_k) > threshold                                               (2)
    loss = -mean of P log a + w (1 - P) log(1 - a),  P = min(1, p(x_i) / q(x_i))                       (3)
    learnt on texts of the target in which a share r of tokens was drawn by the drafter instead        (4)
    with chances of acceptance that are independent draws, cost c1 a draft and c2 a call, and g tokens per cost at
        best: go on while a(x_1) .. a(x_k) E[a] >= g c1, that is up to a threshold 1 - g c1 / E[a]     (5)

| code | paper |
|---|---|
| threshold | h |
| rejection_weight, mixing | w_rej / w_acc, r |

`ops/drafting_costs.py` solves (5). The last draft is kept: whether to go on is known before the next token is drawn,
and the law of every draft stands.

Deviates: f reads four numbers of the drafter's law (`features`), not its hidden vector, so that it fits any drafter
with a law; it does not read the token's own embedding, and so learns from every place of (4).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from runnel.draft import Draw
from runnel.model import Model
from runnel.ops.drafting_costs import Kinds
from runnel.trees import ROOT, Growth, Sketch, TreeBuilder

PAPERS = {"SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths": "2405.19715"}
TINY = 1e-12


class Head(nn.Module):
    """f of eq. (1). layers: residual blocks."""

    def __init__(self, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(4, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.leave = nn.Linear(width, 1)

    def forward(self, x: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
        x = self.enter(x.to(self.enter.weight.dtype))
        for block in self.blocks:
            x = x + silu(block(x))
        return self.leave(x)[..., 0]


@dataclass(frozen=True)
class Config:
    """head: as `fit` trains it. threshold in [0, 1]: 1 for a chain as long as may be, 0 for one draft."""

    head: Head
    threshold: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1]; got {self.threshold}")


class AcceptanceHead(TreeBuilder):
    config: Config

    @torch.no_grad()
    def grow(self, sketch: Sketch, draw: Draw, budget: int) -> Growth:
        node, kept = ROOT, 1.0
        for ahead in range(budget):
            logits = (yield [node])[0]
            path = sketch.path(node)
            token = draw(logits, ahead, path)
            known = features(draw.chances(logits, ahead, path), torch.tensor(token))
            kept *= float(torch.sigmoid(self.config.head(known)))  # eq. (1)
            node = sketch.add(token, node, logits)
            if 1 - kept > self.config.threshold:  # eq. (2)
                return


def features(law: Float[Tensor, "*B V"], tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B 4"]:
    """log q of the token, of the likeliest and of the second, and the entropy of q."""
    own, top = law.gather(-1, tokens[..., None])[..., 0], law.topk(2, dim=-1).values
    return torch.stack([*(p.clamp(min=TINY).log() for p in (own, *top.unbind(-1))), -law.xlogy(law).sum(-1)], -1)


@torch.no_grad()
def examples(
    target: Model, drafter: Model, texts: Int[Tensor, "B T"], mixing: float = 0.15, temperature: float = 1.0
) -> tuple[Float[Tensor, "N 4"], Float[Tensor, "N"]]:
    """Features and P of eq. (3) at all places of (4); what is random comes from PyTorch's generator."""
    p, q = ((model(texts[:, :-1])[0] / temperature).softmax(-1) for model in (target, drafter))
    drawn = q.flatten(0, 1).multinomial(1).view(texts[:, 1:].shape)
    chances = (p / q.clamp(min=TINY)).gather(-1, drawn[..., None])[..., 0].clamp(max=1)
    mixed = torch.where(torch.rand(drawn.shape, device=drawn.device) < mixing, drawn, texts[:, 1:])
    context = torch.cat([texts[:, :1], mixed[:, :-1]], dim=1)
    law = (drafter(context)[0] / temperature).softmax(-1)
    return features(law, drawn).flatten(0, 1), chances.flatten()


def fit(
    head: Head,
    known: Float[Tensor, "N 4"],
    chances: Float[Tensor, "N"],
    rejection_weight: float = 6.0,
    steps: int = 300,
) -> float:
    """Train a head in place by Adam on all examples at once. Returns the last loss (3)."""
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    value = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(head(known), chances, rejection_weight)
        value.backward()
        optimizer.step()
    return float(value.detach())


def loss(logits: Float[Tensor, "N"], chances: Float[Tensor, "N"], rejection_weight: float) -> Float[Tensor, ""]:
    """Eq. (3)."""
    rejected = rejection_weight * (1 - chances) * logsigmoid(-logits)
    return -(chances * logsigmoid(logits) + rejected).mean()


def reference(kinds: Kinds, draft_cost: float, call_cost: float, longest: int) -> float:
    """The most tokens per cost of any policy: all choices of the histories of chances to go on after are tried."""
    histories = [own for size in range(1, longest) for own in itertools.product(kinds, repeat=size)]
    mean, best = sum(a * share for a, share in kinds), 0.0
    for choice in itertools.product([False, True], repeat=len(histories)):
        going = {own for own, on in zip(histories, choice, strict=True) if on}
        drafted = [own for own in [(), *going] if all(own[:size] in going for size in range(1, len(own)))]
        cost = call_cost + sum(draft_cost * math.prod(share for _, share in own) for own in drafted)
        tokens = 1 + sum(mean * math.prod(a * share for a, share in own) for own in drafted)
        best = max(best, tokens / cost)
    return best

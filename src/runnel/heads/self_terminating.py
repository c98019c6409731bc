"""Self-terminating: tokens whose end token becomes certain as the text goes on, so that no decoding runs for ever.

Paper: "A Non-monotonic Self-terminating Language Model" (2022, 2210.00660), definition 3.

    bound(t)   = 1 - (1 - epsilon)^t                                                   (1)
    p(eos)     = (1 - s) bound(t) + s,  s = sigmoid(u_eos . h_t)                       (2)
    p(v)       = (1 - p(eos)) softmax over the other tokens of u_v . h_t               (3)

| code | paper |
|---|---|
| ends_by(mass) | t_1/2 for mass 1/2 (proof of theorem 3) |
| bound | f_lb; f_ub is 1 |

t counts the tokens that stand before the one that is predicted, from the start of the document: its counter is the
state's `lengths`. p(eos) is above bound(t) and may fall and rise (it is not monotonic), yet greedy decoding ends at the
latest after `ends_by(1/2)` tokens, nucleus sampling after `ends_by(top_p)`, a beam `width` tokens after the former. A
draw at temperature 1 that never removes the likeliest token goes on to T > t = ends_by(1/2) with a probability of at
most (1 - epsilon)^(t + ... + T). `generate` must be told the same eos.

Deviates: the authors' program counts t from the end of the context of its task; here the whole document counts. The
parameters are log-probabilities, taken in logarithms: log(1 - p(eos)) = log(1 - s) + t log(1 - epsilon).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from runnel.head import TokenHead
from runnel.ops.precision import widen

PAPERS = {"A Non-monotonic Self-terminating Language Model": "2210.00660"}


@dataclass(frozen=True)
class Config:
    """eos: the token that ends a text. epsilon in (0, 1)."""

    eos: int
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon of self_terminating must lie in (0, 1); got {self.epsilon}")

    def ends_by(self, mass: float) -> int:
        """The first t from which on p(eos) is at least `mass` in [0, 1), whatever the text."""
        return math.ceil(math.log1p(-mass) / math.log1p(-self.epsilon))


class SelfTerminating(TokenHead):
    positional = True

    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        if not 0 <= config.eos < outcomes or outcomes < 2:
            raise ValueError(f"eos of self_terminating must be one of at least two tokens; got {config.eos}")
        self.config = config
        self.logits = nn.Linear(d_model, outcomes, bias=False)
        nn.init.normal_(self.logits.weight, std=0.1 * d_model**-0.5)

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B V"]:
        assert positions is not None, "the end depends on where a token stands"
        eos, scores = self.config.eos, widen(self.logits(hidden))
        t = positions.to(scores.dtype) + 1  # of what stands before the next token, the newest one included
        going = logsigmoid(-scores[..., eos]) + t * math.log1p(-self.config.epsilon)  # log(1 - p(eos)), eq. (1), (2)
        is_eos = torch.arange(scores.shape[-1], device=scores.device) == eos
        others = log_softmax(scores.masked_fill(is_eos, -math.inf), dim=-1) + going[..., None]  # eq. (3)
        ending = (-torch.expm1(going)).log()
        return torch.where(is_eos, ending[..., None], others)


def reference(scores: Sequence[float], t: int, config: Config) -> list[float]:
    """The probability of every token after t others, by the definition; scores: u_v . h_t."""
    bound = 1 - (1 - config.epsilon) ** t
    s = 1 / (1 + math.exp(-scores[config.eos]))
    ending = (1 - s) * bound + s
    total = sum(math.exp(score) for token, score in enumerate(scores) if token != config.eos)
    law = [(1 - ending) * math.exp(score) / total for score in scores]
    law[config.eos] = ending
    return law

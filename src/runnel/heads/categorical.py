"""Categorical: the distribution of tokens. Its parameters are the logits."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from runnel.head import Head
from runnel.ops.precision import widen
from runnel.types import IGNORE

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class Categorical(Head):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.logits = nn.Linear(d_model, outcomes, bias=False)
        nn.init.normal_(self.logits.weight, std=0.1 * d_model**-0.5)  # starts near the uniform law

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B V"]:
        return self.logits(hidden)

    def log_prob(self, parameters: Float[Tensor, "*B V"], target: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Zero where the target is `IGNORE`."""
        scores = log_softmax(widen(parameters), dim=-1)
        picked = scores.gather(-1, target.clamp(min=0)[..., None])[..., 0]
        return picked.masked_fill(target == IGNORE, 0.0)

    def sample(self, parameters: Float[Tensor, "*B V"], uniform: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        """Gumbel-max."""
        return (parameters - (-uniform.log()).log()).argmax(-1)

    def mean(self, parameters: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        return parameters.argmax(-1)

    def quantile(self, parameters: Float[Tensor, "*B V"], level: float) -> Float[Tensor, "*B V"]:
        raise ValueError("categorical outcomes have no order, so no quantiles")

"""Categorical: the distribution of tokens. Its parameters are the logits."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.head import TokenHead

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """cap: logits are kept within +-cap by its tanh, as in Gemma 2. scale: what they are multiplied by before."""

    cap: float | None = None
    scale: float = 1.0


class Categorical(TokenHead):
    def __init__(self, d_model: int, outcomes: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.logits = nn.Linear(d_model, outcomes, bias=False)
        nn.init.normal_(self.logits.weight, std=0.1 * d_model**-0.5)  # starts near the uniform law

    def forward(
        self, hidden: Float[Tensor, "*B D"], positions: Int[Tensor, "*B"] | None = None
    ) -> Float[Tensor, "*B V"]:
        logits, cap = self.logits(hidden), self.config.cap
        logits = logits if self.config.scale == 1 else logits * self.config.scale
        return logits if cap is None else cap * (logits / cap).tanh()

"""SwiGLU: a gated two-layer perceptron over channels.

Paper: "GLU Variants Improve Transformer" (2020, 2002.05202), eq. 6:  y = W2 (silu(W x) * V x).

| code | paper |
|---|---|
| expand | d_ff / d; 8/3 keeps the parameters of an ungated block with d_ff = 4 d |
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.mixer import linear

PAPERS = {"GLU Variants Improve Transformer": "2002.05202"}


@dataclass(frozen=True)
class Config:
    expand: float = 8 / 3


class SwiGLU(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        hidden = 8 * max(1, round(config.expand * d_model / 8))
        self.gate_and_value = linear(d_model, 2 * hidden)
        self.out = linear(hidden, d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(silu(gate) * value)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token."""
        w, v = self.gate_and_value.weight.chunk(2)
        rows = [self.out.weight @ (silu(w @ token) * (v @ token)) for token in x.flatten(0, 1)]
        return x.new_tensor([row.tolist() for row in rows]).view_as(x)

"""SwiGLU: a gated two-layer perceptron over channels.

Paper: "GLU Variants Improve Transformer" (2020, 2002.05202), eq. 6:  y = W2 (f(W x) * V x), f being silu for SwiGLU.

| code | paper |
|---|---|
| expand | d_ff / d; 8/3 keeps the parameters of an ungated block with d_ff = 4 d |
| hidden | d_ff, where it is not a round multiple of d |
| gate_scale, out_scale | what W x and the output are multiplied by, as in Falcon-H1 |
| activation | gelu makes it GEGLU (eq. 5), as in Gemma |
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear
from runnel.ops.activations import activation

PAPERS = {"GLU Variants Improve Transformer": "2002.05202"}


@dataclass(frozen=True)
class Config:
    expand: float = 8 / 3
    hidden: int | None = None
    activation: str = "silu"
    bias: bool = False
    gate_scale: float = 1.0
    out_scale: float = 1.0


class SwiGLU(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 8 * max(1, round(config.expand * d_model / 8))
        self.config, self.activation = config, activation(config.activation)
        self.gate_and_value = linear(d_model, 2 * hidden, config.bias)
        self.out = linear(hidden, d_model, config.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        gate_scale, out_scale = self.config.gate_scale, self.config.out_scale
        y = self.out(self.activation(gate if gate_scale == 1 else gate * gate_scale) * value)
        return y if out_scale == 1 else y * out_scale

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token, without biases."""
        w, v = self.gate_and_value.weight.chunk(2)
        w, out = self.config.gate_scale * w, self.config.out_scale * self.out.weight
        rows = [out @ (self.activation(w @ token) * (v @ token)) for token in x.flatten(0, 1)]
        return x.new_tensor([row.tolist() for row in rows]).view_as(x)

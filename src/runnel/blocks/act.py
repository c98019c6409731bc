"""Adaptive computation time: a cell that thinks about each token as often as it needs to, and pays for every step.

Paper: "Adaptive Computation Time for Recurrent Neural Networks" (2016, 1603.08983), section 2.

    s^n = S(s^(n-1), x^n),   x^n = (x, 1 where n = 1),   s^0 = 0                     (eq. 5)
    h^n = sigmoid(W_h s^n + b_h)                                                     (eq. 6)
    N = the first n with h^1 + ... + h^n >= 1 - eps, at most M;   R = 1 - (h^1 + ... + h^(N-1))     (eq. 8, 9)
    p^n = h^n for n < N, R for n = N;   y = W_o sum over n of p^n s^n                (eq. 7, 12, 13)
    cost = tau * (N + R), in the mean over tokens, with the gradient of N taken as zero             (eq. 14-16)

The cost never shows in an output: its gradient is added to that of R. `steps` says how often a token was thought about.

| code | paper |
|---|---|
| most, spare | M, eps |
| price | tau |
| hidden | width of s; None: d |

Deviates: in the paper S is the network's recurrent cell, which goes on from the last token's mean state; here a state
lives for one token (S is a tanh cell), and the past comes from the mixer before the block. So it stands beside any.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.mixer import linear, parameter
from runnel.ops.balance import Costed

PAPERS = {"Adaptive Computation Time for Recurrent Neural Networks": "1603.08983"}


@dataclass(frozen=True)
class Config:
    most: int = 6
    spare: float = 0.01
    price: float = 0.001
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 < self.spare < 1 or self.price < 0:
            required = "most >= 1, 0 < spare < 1 and price >= 0"
            raise ValueError(f"act needs {required}; got {self.most}, {self.spare}, {self.price}")


class ACT(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config, hidden = config, config.hidden or d_model
        self.input, self.again = linear(d_model, hidden, bias=True), linear(hidden, hidden)
        self.first = parameter(torch.zeros(hidden))
        self.halt = linear(hidden, 1, bias=True)
        nn.init.ones_(self.halt.bias)  # few steps at the start, as the paper has it
        self.out = linear(hidden, d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self._think(x)[0]

    def steps(self, x: Float[Tensor, "B T D"]) -> Int[Tensor, "B T"]:
        """N of every token."""
        return self._think(x)[1]

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token, as often as it takes."""
        rows = []
        for token in x.flatten(0, 1):
            state, mean, left, n = torch.zeros_like(self.first), torch.zeros_like(self.first), torch.ones(()).to(x), 0
            while n < self.config.most and left > 0:
                n += 1
                state = torch.tanh(self.input(token) + self.again(state) + (self.first if n == 1 else 0))
                h = self.halt(state).sigmoid()[0]
                last = n == self.config.most or bool(left - h <= self.config.spare)
                mean = mean + (left if last else h) * state
                left = torch.zeros_like(left) if last else left - h
            rows.append(self.out(mean))
        return torch.stack(rows).view_as(x)

    def _think(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y, and N of every token. Tokens that are done keep their place in the batch with a weight of zero."""
        read = self.input(x)
        state, mean = torch.tanh(read + self.first), torch.zeros_like(read)
        left, steps = torch.ones_like(read[..., :1]), torch.zeros_like(read[..., :1], dtype=torch.long)
        thinking = torch.ones_like(steps, dtype=torch.bool)
        for n in range(1, self.config.most + 1):
            steps = steps + thinking
            h = self.halt(state).sigmoid().to(left.dtype)
            last = thinking & ((left - h <= self.config.spare) | (n == self.config.most))
            rest = Costed.apply(left, last, self.config.price)
            mean = mean + torch.where(last, rest, torch.where(thinking, h, 0)) * state
            left, thinking = left - torch.where(thinking & ~last, h, 0), thinking & ~last
            if not bool(thinking.any()):
                break
            state = torch.tanh(read + self.again(state))
        return self.out(mean), steps[..., 0]

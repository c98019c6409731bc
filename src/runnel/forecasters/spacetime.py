"""SpaceTime: companion-matrix state spaces; the last layer feeds its own outputs back to roll out any horizon.

Paper: "Effectively Modeling Time Series with Simple Discrete State Spaces" (2023, 2303.09489), sections 3.1 to 3.4.

    A = S + a e_d^T, S shifting down by one; |a|_1 <= 1                                (1, companion matrix)
    x_{t+1} = A x_t + B u_t,  y_t = C x_{t+1} = sum_i C A^i B u_{t-i}                  (2, open loop)
    x_{t+1} = A x_t + B u_t,  y_t = C x_{t+1},  u_{t+1} = K x_{t+1}                    (3, closed loop)
    so after u_1 .. u_T:  y_{T+h-1} = C (A + B K)^(h-1) x_{T+1}                        (4)

| code | paper |
|---|---|
| d_state | d; with B = e_1 and a = 0 the state is the last d inputs, and (2) is an AR(d) predictor |
| d_model | heads of one input and one output each; None: the channels themselves, nothing around the last layer |
| layers | encoder layers of (2), each with a perceptron, before the decoder layer of (3) |

Kernels come from powers of A by doubling, A^m [B .. A^(m-1) B] (`krylov`): as exact as a loop, in log T products of
d x d matrices. The paper has an FFT over A's characteristic polynomial instead, with the same results. Its fixed
differencing and averaging kernels, and the loss on what K feeds back, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.blocks import mlp
from runnel.mixer import linear, parameter
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import check_dropout, check_positive
from runnel.windows.model import check_norm

PAPERS = {"Effectively Modeling Time Series with Simple Discrete State Spaces": "2303.09489"}


@dataclass(frozen=True)
class Config:
    """layers: before the decoder; none where d_model is None. dropout: after every encoder layer."""

    d_model: int | None = 64
    d_state: int = 64
    layers: int = 2
    dropout: float = 0.25
    norm: str = "mean"

    def __post_init__(self) -> None:
        check_norm(self.norm, "spacetime")
        check_positive("spacetime", self, "d_state")
        check_dropout("spacetime", self.dropout)
        if self.layers < 0 or (self.d_model is None and self.layers):
            raise ValueError(f"layers of spacetime must be at least 0, and 0 without a d_model; got {self.layers}")
        if self.d_model is not None and self.d_model < 1:
            raise ValueError(f"d_model of spacetime must be at least 1 or None; got {self.d_model}")


class SpaceTime(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        if config.d_model is None and shape.outputs != 1:
            raise ValueError("spacetime without a d_model gives points: use it without a head")
        self.config, self.norm = config, config.norm
        width = config.d_model or 1
        self.embed: nn.Module = nn.Identity() if config.d_model is None else linear(1, width, bias=True)
        self.layers = nn.ModuleList(EncoderLayer(width, config.d_state, config.dropout) for _ in range(config.layers))
        self.decoder = Companion(width, config.d_state, closed=True)
        self.out: nn.Module = nn.Identity() if config.d_model is None else linear(width, shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        u = self.embed(window.history.transpose(1, 2).flatten(0, 1)[..., None])  # channels apart: (BC, L, D)
        for layer in self.layers:
            u = layer(u)
        y = self.out(self.decoder.rollout(u, self.shape.horizon))
        return y.unflatten(0, (window.batch_size, -1)).transpose(1, 2)


class Companion(nn.Module):
    """A companion system for every head; u and y are (B, T, heads)."""

    def __init__(self, heads: int, d_state: int, closed: bool = False) -> None:
        super().__init__()
        self.a = parameter(torch.zeros(heads, d_state))
        self.b = parameter(torch.eye(1, d_state).repeat(heads, 1))
        self.c = parameter(torch.randn(heads, d_state) * d_state**-0.5)
        self.feedback = parameter(torch.randn(heads, d_state) * d_state**-0.5 / 2) if closed else None

    def matrix(self) -> Float[Tensor, "heads N N"]:
        """Equation (1)."""
        size = self.a.shape[-1]
        shift = torch.diag(torch.ones(size - 1, dtype=self.a.dtype, device=self.a.device), -1)
        column = self.a / self.a.abs().sum(-1, keepdim=True).clamp(min=1)
        return shift + torch.cat([shift.new_zeros(*self.a.shape, size - 1), column[..., None]], dim=-1)

    def kernel(self, length: int) -> Float[Tensor, "heads T"]:
        """C A^i B for i < length: how much an input matters i steps later."""
        return (self.c[:, None] @ krylov(self.matrix(), self.b, length))[:, 0]

    def forward(self, u: Float[Tensor, "B T heads"]) -> Float[Tensor, "B T heads"]:
        """Equation (2), as a convolution."""
        size = 2 * u.shape[1]
        spectrum = torch.fft.rfft(self.kernel(u.shape[1]), size) * torch.fft.rfft(u.transpose(1, 2), size)
        return torch.fft.irfft(spectrum, size)[..., : u.shape[1]].transpose(1, 2)

    def rollout(self, u: Float[Tensor, "B T heads"], horizon: int) -> Float[Tensor, "B horizon heads"]:
        """Equation (4)."""
        assert self.feedback is not None, "only a closed loop feeds back"
        matrix = self.matrix()
        x = torch.einsum("hni,bih->bhn", krylov(matrix, self.b, u.shape[1]).flip(-1), u)
        looped = (matrix + self.b[..., None] * self.feedback[:, None]).transpose(1, 2)
        return torch.einsum("hni,bhn->bih", krylov(looped, self.c, horizon), x)  # columns (A + B K)^T^i C^T


class EncoderLayer(nn.Module):
    """u = u + y of (2) with its skip, then u = u + mlp(u), norms before both."""

    def __init__(self, width: int, d_state: int, dropout: float) -> None:
        super().__init__()
        self.system, self.skip = Companion(width, d_state), parameter(torch.ones(width))
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp, self.dropout = mlp.MLP(width, mlp.Config(expand=2)), nn.Dropout(dropout)

    def forward(self, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        inside = self.norm(u)
        u = u + self.dropout(self.system(inside) + self.skip * inside)
        return u + self.dropout(self.mlp(self.mlp_norm(u)))


def krylov(matrix: Float[Tensor, "*B N N"], start: Float[Tensor, "*B N"], length: int) -> Float[Tensor, "*B N T"]:
    """Columns M^i s for i < length, by doubling."""
    columns, power = start[..., None], matrix
    while columns.shape[-1] < length:
        columns = torch.cat([columns, power @ columns], dim=-1)
        power = power @ power
    return columns[..., :length]


def reference(system: Companion, u: Sequence[float], horizon: int) -> tuple[list[float], list[float]]:
    """Equations (2) and (3) step by step for the first head: open-loop outputs, then the closed loop's `horizon`."""
    matrix, b, c = system.matrix()[0], system.b[0], system.c[0]
    x, open_loop, closed = torch.zeros_like(b), [], []
    for value in u:
        x = matrix @ x + b * value
        open_loop.append((c @ x).item())
    assert system.feedback is not None, "only a closed loop feeds back"
    for _ in range(horizon):
        closed.append((c @ x).item())
        x = matrix @ x + b * (system.feedback[0] @ x)
    return open_loop, closed

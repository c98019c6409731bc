"""LS4: a latent path that follows a state space of its own, and a series that is written from it.

Paper: "Deep Latent State Space Models for Time-Series Generation" (2022, 2212.12749), section 4.

    q(z_t | x_1 .. x_t) = N(m, s^2), from a state space over x                         (1, inference)
    p(z_t | z_1 .. z_{t-1}) = N(m, s^2), from a state space over z                     (2, prior)
    p(x_t | x_1 .. x_{t-1}, z_1 .. z_t) = N(m, s^2), from a state space over both      (3, decoder)
    ELBO = sum_t log p(x_t | ..) - KL(q(z_t | ..) | p(z_t | ..)),  z from q             (4)
    forecast: z from q over the history, then from p row by row; x from (3)            (5)

| code | paper |
|---|---|
| pattern | the layers of each of the three; S4D, whose scan over a whole window and whose steps are one function |
| latent | width of z |
| draws | sample paths whose mean is the point forecast |

In training all rows are scanned at once, as z comes from x alone (4); in (5) the prior and the decoder go on from their
states. A row is all channels; log s is kept in [-7, 3]. Deviates: times between rows are alike, without intervals; each
scan has a perceptron after it. The point forecast has fixed noise, `paths` that of their generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from runnel.mixer import linear
from runnel.windows import FitConfig, Window, WindowModel, WindowShape
from runnel.windows.layers import Carried, Trunk, check_positive
from runnel.windows.model import check_norm, normalised

PAPERS = {"Deep Latent State Space Models for Time-Series Generation": "2212.12749"}


@dataclass(frozen=True)
class Config:
    """pattern: of mixers (see `runnel.patterns`). norm: see `WindowModel`."""

    pattern: str = "s4d(d_state=32)*2"
    d_model: int = 32
    latent: int = 5
    draws: int = 16
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "ls4")
        check_positive("ls4", self, "d_model", "latent", "draws")


class LS4(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        self.inference = Conditional(shape.channels, config.latent, config)
        self.prior = Conditional(config.latent, config.latent, config)
        self.decoder = Conditional(config.latent + shape.channels, shape.channels, config)

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        generator = torch.Generator(window.history.device).manual_seed(0)
        return self.paths(window.history, self.config.draws, generator).mean(0)[..., None]

    def paths(
        self, history: Float[Tensor, "B L C"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "count B H C"]:
        """Equation (5): what may come after a normalised history, in units of the window."""
        rows = history.repeat(count, 1, 1)
        mean, log_scale, _ = self.inference(rows)
        z = drawn(mean, log_scale, _noise(mean, generator))
        mean, log_scale, past = self.prior(_shifted(z, whole=True))
        _, _, written = self.decoder(torch.cat([z, _shifted(rows, whole=False)], -1))
        x = rows[:, -1:]
        parts: list[Tensor] = []
        while len(parts) < self.shape.horizon:
            if parts:
                mean, log_scale, past = self.prior(z, past)
            z = drawn(mean[:, -1:], log_scale[:, -1:], _noise(mean[:, -1:], generator))
            x_mean, x_scale, written = self.decoder(torch.cat([z, x], -1), written)
            parts.append(x := drawn(x_mean, x_scale, _noise(x, generator)))
        return torch.cat(parts, dim=1).unflatten(0, (count, -1))

    def loss(self, window: Window, config: FitConfig) -> Tensor:
        """The negative of (4) per known value, in units of the window; outside training with fixed noise."""
        assert window.target is not None
        inside, loc, scale = normalised(window, self.norm)
        rows = torch.cat([inside.history, (window.target - loc) / scale], dim=1)
        generator = None if self.training else torch.Generator(rows.device).manual_seed(0)
        noise = _noise(rows[..., :1].expand(-1, -1, self.config.latent), generator)
        return -self.elbo(rows.nan_to_num(), known := ~rows.isnan(), noise).sum() / known.sum().clamp(min=1)

    def elbo(
        self, rows: Float[Tensor, "B T C"], known: Bool[Tensor, "B T C"], noise: Float[Tensor, "B T Z"]
    ) -> Float[Tensor, "B"]:
        """Equation (4) with z = m + s noise; values that are not known do not count."""
        q_mean, q_scale, _ = self.inference(rows)
        z = drawn(q_mean, q_scale, noise)
        p_mean, p_scale, _ = self.prior(_shifted(z, whole=False))
        x_mean, x_scale, _ = self.decoder(torch.cat([z, _shifted(rows, whole=False)], -1))
        score = Normal(x_mean, x_scale.exp()).log_prob(rows).where(known, 0.0)
        wider = q_scale - p_scale
        divergence = 0.5 * ((2 * wider).exp() + ((q_mean - p_mean) / p_scale.exp()) ** 2 - 1) - wider
        return score.sum((1, 2)) - divergence.sum((1, 2))


class Conditional(nn.Module):
    """A Gaussian for every row from all rows up to it: means, log standard deviations, and what is carried on."""

    def __init__(self, inputs: int, outputs: int, config: Config) -> None:
        super().__init__()
        self.embed = linear(inputs, config.d_model, bias=True)
        self.trunk = Trunk.of(config.pattern, "mlp", config.d_model)
        self.out = linear(config.d_model, 2 * outputs, bias=True)

    def forward(self, rows: Float[Tensor, "B T I"], before: Carried | None = None) -> tuple[Tensor, Tensor, Carried]:
        hidden, after = self.trunk(self.embed(rows), before)
        mean, log_scale = self.out(hidden).chunk(2, dim=-1)
        return mean, log_scale.clamp(-7, 3), after


def drawn(mean: Tensor, log_scale: Tensor, noise: Tensor) -> Tensor:
    return mean + log_scale.exp() * noise


def _shifted(z: Float[Tensor, "B T Z"], whole: bool) -> Tensor:
    """Every row's predecessor, zeros first; whole: also the last row, which precedes the next one."""
    return torch.cat([torch.zeros_like(z[:, :1]), z if whole else z[:, :-1]], dim=1)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def reference(model: LS4, rows: Float[Tensor, "T C"], noise: Float[Tensor, "T Z"]) -> Float[Tensor, ""]:
    """Equation (4) of one window row by row: three states, carried from step to step."""
    seen = past = written = None
    z, last, total = torch.zeros_like(noise[0]), torch.zeros_like(rows[0]), torch.zeros((), dtype=rows.dtype)
    for x, e in zip(rows, noise, strict=True):
        p_mean, p_scale, past = model.prior(z[None, None], past)
        q_mean, q_scale, seen = model.inference(x[None, None], seen)
        z = drawn(q_mean, q_scale, e)[0, 0]
        x_mean, x_scale, written = model.decoder(torch.cat([z, last])[None, None], written)
        q, p = Normal(q_mean, q_scale.exp()), Normal(p_mean, p_scale.exp())
        total = total + Normal(x_mean, x_scale.exp()).log_prob(x).sum() - kl_divergence(q, p).sum()
        last = x
    return total

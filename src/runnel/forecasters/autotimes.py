"""AutoTimes: a causal model of tokens, read and written in segments of a series; any horizon by going on.

Paper: "AutoTimes: Autoregressive Time Series Forecasters via Large Language Models" (2024, 2402.02370), section 3.

    s_i: the i-th segment of S rows, none in two                                       (1)
    e_i = W_in s_i + b_in + W_m m_i, m_i the calendar features of its last row         (2, 3)
    h = trunk(e_1 .. e_i), causal                                                      (4)
    s_{i+1} = W_out h_i + b_out                                                        (5)
    loss = mean over i of |s_{i+1} - forecast|^2                                       (6)
    forecast: (5) after the last segment, fed back until the horizon is reached        (7)

| code | paper |
|---|---|
| segment | S = 96 of 672 rows |
| trunk | the folder of a language model (`runnel.save`), whose layers are kept as they are; None: `pattern`, trained |

Channels are apart. (7) carries the trunk's state: no segment is read twice, and other lookbacks and horizons than those
of training are served by the same weights (`forecast`). Deviates: calendar features are whatever covariates are known
ahead (`future`), where the paper has a language model read timestamps as text. Prompts by another series are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from runnel import model as models
from runnel.mixer import linear
from runnel.model import Layer
from runnel.windows import FitConfig, Window, WindowModel, WindowShape
from runnel.windows.layers import Trunk, check_positive, patched
from runnel.windows.model import check_norm, normalised

PAPERS = {"AutoTimes: Autoregressive Time Series Forecasters via Large Language Models": "2402.02370"}


@dataclass(frozen=True)
class Config:
    """pattern, channel, d_model: of a trunk that is trained; not used where a `trunk` is given."""

    segment: int = 24
    trunk: str | None = None
    pattern: str = "attention*2"
    channel: str | None = "swiglu"
    d_model: int = 64
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "autotimes")
        check_positive("autotimes", self, "segment", "d_model")


class AutoTimes(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        self.trunk, width = _trunk(config)
        self.embed, self.out = linear(config.segment, width, bias=True), linear(width, config.segment, bias=True)
        self.marks = linear(shape.future, width) if shape.future else None

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        return self.forecast(window, self.shape.horizon)

    def forecast(self, window: Window, horizon: int) -> Float[Tensor, "B H C 1"]:
        """Equation (7), from a history of any length to any horizon."""
        size, carried, parts = self.config.segment, None, []
        segments = self.segments(window.history)
        for place in range(-(-horizon // size)):
            last = window.history.shape[1] + place * size
            hidden, carried = self.trunk(self.embed(segments) + self._marked(window, last, segments), carried)
            segments = self.out(hidden[:, -1:])  # eq. (5)
            parts.append(segments[:, 0])
        return torch.cat(parts, dim=1)[:, :horizon].unflatten(0, (window.batch_size, -1)).transpose(1, 2)[..., None]

    def loss(self, window: Window, config: FitConfig) -> Tensor:
        """Equation (6) over the segments of history and target; missing targets do not count."""
        assert window.target is not None
        size, (inside, loc, scale) = self.config.segment, normalised(window, self.norm)
        lacking = -self.shape.horizon % size  # the last segment may reach beyond the target
        later = pad((window.target - loc) / scale, (0, 0, 0, lacking), value=torch.nan)
        segments = torch.cat([self.segments(inside.history), self.segments(later)], dim=1)
        read, last = segments[:, :-1].nan_to_num(), inside.history.shape[1] + later.shape[1] - size
        hidden, _ = self.trunk(self.embed(read) + self._marked(inside, last, read))
        error, known = self.out(hidden) - segments[:, 1:], ~segments[:, 1:].isnan()
        return config.of_errors(error.where(known, 0.0)).sum() / known.sum().clamp(min=1)

    def segments(self, rows: Float[Tensor, "B L C"]) -> Float[Tensor, "M N S"]:
        """Equation (1) of every channel; the oldest row is repeated in front where the first segment lacks rows."""
        return patched(rows.transpose(1, 2).flatten(0, 1), self.config.segment, self.config.segment)

    def _marked(self, window: Window, end: int, segments: Tensor) -> Tensor:
        """What equation (3) adds to segments of which the last one ends before row `end` of history and horizon."""
        if self.marks is None:
            return segments.new_zeros(())
        assert window.future is not None, "a model made for covariates is given them"
        count, channels = segments.shape[1], window.history.shape[2]
        place = end - 1 + self.config.segment * torch.arange(1 - count, 1)
        rows = window.future[:, place.clamp(0, window.future.shape[1] - 1)]
        return self.marks(rows).repeat_interleave(channels, 0)


def _trunk(config: Config) -> tuple[Trunk, int]:
    """The layers of equation (4), and their width."""
    if config.trunk is None:
        return Trunk.of(config.pattern, config.channel, config.d_model), config.d_model
    model = models.load(config.trunk)
    if model.positions is not None:
        raise ValueError("the trunk of autotimes must not have learned positions; use a model with rotary or no ones")
    return Trunk(model.layers, model.norm).requires_grad_(False), model.config.d_model  # type: ignore[arg-type]


def reference(model: AutoTimes, x: Float[Tensor, "L"], horizon: int) -> Float[Tensor, "H"]:
    """Equations (1), (2), (4), (5) and (7) for one normalised channel, all segments read anew for every next one."""
    size = model.config.segment
    rows = [x[max(i, 0)] for i in range(len(x) - size * -(-len(x) // size), len(x))]
    known = len(rows)
    while len(rows) < known + horizon:
        segments = [torch.stack(rows[at : at + size]) for at in range(0, len(rows), size)]
        h = torch.stack([model.embed.weight @ s + model.embed.bias for s in segments])[None]
        for layer in model.trunk.layers:
            assert isinstance(layer, Layer)
            h = h + layer.mixer.reference(layer.mixer_norm(h))
            h = h if layer.block is None else h + layer.block.reference(layer.block_norm(h))  # type: ignore[operator]
        rows += list(model.out.weight @ model.trunk.norm(h)[0, -1] + model.out.bias)
    return torch.stack(rows[known : known + horizon])

"""Backbone: any pattern of Runnel's mixers over values, patches, variates or binned tokens of a window.

The embedding decides what a token is:

    value     a row of all channels                                L tokens, channels mixed        (1)
    patch     `patch` rows of one channel, every `stride` rows     channels apart                  (2)
    inverted  the whole history of one channel                     C tokens, read in both orders   (3)
    binned    the bin that a value of one channel falls into       L tokens, channels apart        (4)

(2) is PatchTST's (2211.14730), (3) iTransformer's (2310.06625), (4) Chronos' (2403.07815); their pages, where there
are such, are the papers' own models. After `value` and `binned` the newest hidden vector gives the forecast, which is
what a stream can carry on; after `patch` all of them together do, after `inverted` each that of its channel.

Variates have no order: the pattern runs over them forwards and backwards and the results are added. Covariates known
up to now (`past`) and static ones are further channels of a `value` token, and are left alone by the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import patterns
from runnel.lineage import Lineage
from runnel.links import EMBEDDING
from runnel.mixer import RMSNorm, linear
from runnel.model import Layer, layers_of, through
from runnel.state import Memory
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.model import check_norm

PAPERS: dict[str, str] = {}

EMBEDDINGS = ("value", "patch", "inverted", "binned")
BIN_RANGE = 5.0
"""Bins lie evenly in [-5, 5] of a normalised window; what is beyond falls into the first or last."""


@dataclass(frozen=True)
class Config:
    """pattern: of mixers, e.g. "mamba2*2" (see `runnel.patterns`). embed: what a token is.

    patch, stride: rows of a patch and between patches. bins: of `binned`. dropout: before the output.
    """

    pattern: str = "mamba2*2"
    embed: str = "patch"
    d_model: int = 64
    channel: str | None = "swiglu"
    patch: int = 16
    stride: int = 8
    bins: int = 256
    dropout: float = 0.1
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "backbone")
        if self.embed not in EMBEDDINGS:
            raise ValueError(f"embed of backbone must be one of {', '.join(EMBEDDINGS)}; got {self.embed!r}")
        for name in ("d_model", "patch", "stride", "bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of backbone must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout of backbone must be in [0, 1); got {self.dropout}")


class Backbone(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        width, per_value = config.d_model, shape.horizon * shape.outputs
        tokens = 1
        if config.embed == "value":
            self.embed: nn.Module = linear(shape.channels + shape.past + shape.static, width, bias=True)
            per_value *= shape.channels
        elif config.embed == "binned":
            self.embed = nn.Embedding(config.bins, width)
        elif config.embed == "inverted":
            self.embed = linear(shape.history, width, bias=True)
        else:
            tokens = max(1, -(-(shape.history - config.patch) // config.stride) + 1)
            self.embed = linear(config.patch, width, bias=True)
        self.layers = nn.ModuleList(layers_of(patterns.parse(config.pattern, config.channel), width))
        self.norm_out = RMSNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(tokens * width, per_value, bias=True)
        nn.init.normal_(self.out.weight, std=0.1 * (tokens * width) ** -0.5)  # starts near the level of the window

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        shape, (rows, _, channels) = self.shape, window.history.shape
        if self.config.embed == "value":
            return self.read_out(self.mixed(self.embed(_with_covariates(window)))[:, -1])
        series = window.history.transpose(1, 2)  # (B, C, L)
        if self.config.embed == "inverted":
            tokens = self.embed(series)
            hidden = self.mixed(tokens) + self.mixed(tokens.flip(1)).flip(1)  # eq. (3)
        elif self.config.embed == "binned":
            hidden = self.mixed(self.embed(self.bins(series.flatten(0, 1))))[:, -1]  # eq. (4)
        else:
            hidden = self.mixed(self.embed(self.patches(series.flatten(0, 1)))).flatten(1)  # eq. (2)
        y = self.out(self.dropout(hidden)).view(rows, channels, shape.horizon, shape.outputs)
        return y.transpose(1, 2)

    def mixed(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The layers over fresh rows."""
        return self.carried(x, self.start(x.shape[0]), Lineage.sequence(x.shape[0], x.shape[1], x.device))[0]

    def start(self, rows: int) -> Memory:
        """The zero state of the layers."""
        return tuple(layer.mixer.init_state(rows) for layer in self._layers())

    def carried(
        self, x: Float[Tensor, "B T D"], memory: Memory, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        """The layers after what the memory holds, and the memory after that: what a stream of values goes on with."""
        x, after, _ = through(self.layers, x, memory, lineage, {EMBEDDING: x})
        return self.norm_out(x), after

    def read_out(self, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B H C K"]:
        """The forecast after the newest row of values, eq. (1)."""
        y = self.out(self.dropout(hidden))
        return y.unflatten(-1, (self.shape.horizon, self.shape.channels, self.shape.outputs))

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def patches(self, x: Float[Tensor, "B L"]) -> Float[Tensor, "B T W"]:
        """Patches that end with the newest row; the oldest row is repeated in front where the first one lacks rows."""
        patch, stride = self.config.patch, self.config.stride
        lacking = patch - x.shape[1] if x.shape[1] < patch else -(x.shape[1] - patch) % stride
        return torch.cat([x[:, :1].expand(-1, lacking), x], dim=1).unfold(1, patch, stride)

    def bins(self, x: Float[Tensor, "B L"]) -> Tensor:
        """The bin of every value."""
        place = (x / BIN_RANGE + 1) / 2 * self.config.bins
        return place.long().clamp(0, self.config.bins - 1)


def _with_covariates(window: Window) -> Float[Tensor, "B L C"]:
    length = window.history.shape[1]
    beside = [] if window.past is None else [window.past]
    if window.static is not None:
        beside.append(window.static[:, None].expand(-1, length, -1))
    return torch.cat([window.history, *beside], dim=-1)

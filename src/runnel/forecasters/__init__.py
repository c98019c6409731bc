"""Forecasters by name: one model of windows a file. File name = the name of the model.

A page has the docstring and `PAPERS` of every method's page, a frozen `Config`, and one `WindowModel`:

    @dataclass(frozen=True)
    class Config:                       # only this model's knobs; check_norm(self.norm, "dlinear") among its checks
        norm: str = "last"

    class DLinear(WindowModel):
        def __init__(self, shape: WindowShape, config: Config) -> None:
            super().__init__(shape)     # shape: history L, horizon H, channels C, outputs K, covariates, season
            self.norm = config.norm     # taken off before `forward` and put back after: none, last, mean, revin
            ...
        def forward(self, window: Window) -> Tensor:        # window.history (B, L, C), window.future (B, L+H, F) ...
            ...                                             # -> (B, H, C, K)

- `forward` sees a normalised history without missing values and gives K = shape.outputs numbers for every value: the
  point itself when K is 1, else the features from which a page of `heads/` makes its parameters.
- Covariates come standardised: `past` (B, L, P) known up to now, `future` (B, L+H, F) known over the horizon too,
  `static` (B, S). A model that has no use for them leaves them alone.
- Training is `WindowModel.fit(train, valid, FitConfig(...))`: the loop of `windows/fitting.py`. A model in closed form
  overrides `fit(train, valid, config, progress) -> FitReport`, reads `train.batches(size)`, and keeps what it finds in
  buffers, so that saving it is saving its `state_dict`; one with nothing to learn returns a FitReport at once.
- `points_only = True` where there is no use for a head (closed forms of squared error).
- State, decoding, frames, scaling per series and evaluation belong to `runnel.forecast`, not to a page. The standard
  table is `runnel bench forecast`.

What pages share is here, and layers in `runnel.windows.layers`: their own imports go down, never to each other.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def moving_average(x: Float[Tensor, "B L C"], width: int) -> Float[Tensor, "B L C"]:
    """The mean of the `width` rows around each row; the first and last row are repeated beyond the ends."""
    front, back = (width - 1) // 2, width // 2
    padded = torch.cat([x[:, :1].expand(-1, front, -1), x, x[:, -1:].expand(-1, back, -1)], dim=1)
    return padded.unfold(1, width, 1).mean(-1)

"""Words that every room shares.

Shape letters, used in every docstring and signature:

| letter | axis |
|---|---|
| B | rows of a batch |
| T | tokens (or time steps) of one call |
| N | nodes of a draft tree, flat over all rows; in Mamba pages also the state size per channel |
| D | model width (channels) |
| H | heads |
| K, V | key and value width of a head; V alone is also the vocabulary where logits are meant |
| S | tokens held by an attention memory |
| W | taps of a short convolution |
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

IGNORE = -100
"""Target value that carries no loss (the value that PyTorch's cross-entropy ignores by default)."""


@dataclass(frozen=True)
class Batch:
    """One training or scoring batch.

    inputs: (B, T) int64 tokens, or (B, T, C) float values.
    targets: (B, T) int64, `IGNORE` where there is no loss; or (B, T, C) float values.
    segments: (B, T) int64, constant inside a document; where it changes, the state starts from zero. None: one
        document a row.
    """

    inputs: Tensor
    targets: Tensor
    segments: Tensor | None = None

    @property
    def n_targets(self) -> int:
        """How many targets carry a loss."""
        if self.targets.is_floating_point():
            return self.targets.shape[0] * self.targets.shape[1]
        return int((self.targets != IGNORE).sum())

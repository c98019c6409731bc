"""Words that every room shares.

Shape letters, used in every docstring and signature:

| letter | axis |
|---|---|
| B | rows of a batch |
| T | tokens (or time steps) of one call |
| N | nodes of a draft tree, flat over all rows; in Mamba pages also the state size per channel |
| D | model width (channels) |
| H | heads |
| G | key and value heads of grouped attention |
| K, V | key and value width of a head; V alone is also the vocabulary where logits are meant |
| C | channels of a value; in `ops/paths.py`, tokens of a chunk |
| P | parameters of a distribution |
| M | rows of one step, of whatever batch or tree they come from; slots of a bounded memory |
| F | features of a kernel |
| L | levels of a hierarchical memory; latent vectors |
| S | tokens held by an attention memory |
| W | taps of a short convolution |

Signatures say shapes in jaxtyping's words: `Float[Tensor, "B T D"]`; `#H` may be 1 where others have H, `*B` is any
number of axes. Nothing is checked at run time; the tests check every call into ops, mixers, blocks and
heads (`tests/conftest.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from runnel.lineage import Lineage

Elements = Int[Tensor, "B T"] | Float[Tensor, "B T C"]
"""What a sequence is made of: int64 tokens (or mixtures of tokens, C = V weights each), or float values."""

IGNORE = -100
"""Target value that carries no loss (the value that PyTorch's cross-entropy ignores by default)."""


@dataclass(frozen=True)
class Batch:
    """One training or scoring batch.

    targets: `IGNORE` where there is no loss of a token.
    segments: constant inside a document; where it changes, the state starts from zero. None: one document a row.
    part: the lineage of rows that are slices of longer ones, on several processes.
    """

    inputs: Elements
    targets: Elements
    segments: Int[Tensor, "B T"] | None = None
    part: Lineage | None = None

    @property
    def lineage(self) -> Lineage | None:
        """Who precedes whom; None for ordinary sequences."""
        if self.part is not None or self.segments is None:
            return self.part
        return Lineage.packed(self.segments)

    @property
    def n_targets(self) -> int:
        """How many targets carry a loss."""
        if self.targets.is_floating_point():
            return self.targets.shape[0] * self.targets.shape[1]
        return int((self.targets != IGNORE).sum())

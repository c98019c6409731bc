"""Greedy: always the likeliest token.

    y_t = argmax_v p(v | y_<t)                                                         (1)

Ties go to the lower token. The seed plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.decoders import Decoder
from runnel.ops.sampling import certain
from runnel.processors import Text

PAPERS: dict[str, str] = {}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """Greedy decoding has nothing to set."""


class Greedy(Decoder):
    reads_text = False

    def law(self, logits: Tensor, texts: Sequence[Text] = ()) -> Tensor:
        return certain(logits)

    def scores(
        self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int], texts: Sequence[Text] = ()
    ) -> Tensor:
        return logits  # eq. (1)


def reference(logits: Sequence[float]) -> int:
    """The token of one row, by looking at every outcome."""
    best = 0
    for token, logit in enumerate(logits):
        if logit > logits[best]:
            best = token
    return best

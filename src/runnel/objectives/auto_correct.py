"""Semi-autoregressive fine-tuning: the model learns to go on behind mask tokens, for the drafter `auto_correct`.

Paper: "Generation Meets Verification: Accelerating Large Language Model Inference with Smart Parallel Auto-Correct
Decoding" (2024, 2402.11809), section 3.1.

    with probability PLAIN a row is learnt as it is; else, at a random place m,                             (1)
    loss = -sum_{t <= m} log p(y_t | y_<t) - sum_{t = m+1}^{m+k} log p(y_t | y_<m, k masks)                 (2)

| code | paper |
|---|---|
| MASKS | k |
| PLAIN | p_ar |

The mask is the last token of the model's vocabulary, which the text must not have: of bytes it is 255, which UTF-8 does
not use; else give the model one token more. y_m, the first token that is hidden, is still the model's ordinary guess;
what comes after the masks is not learnt from.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runnel.lineage import Lineage
from runnel.model import Model
from runnel.types import IGNORE, Batch

PAPERS = {
    "Generation Meets Verification: Accelerating Large Language Model Inference with Smart Parallel Auto-Correct "
    "Decoding": "2402.11809"
}
MASKS, PLAIN = 4, 0.5


def loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """Mean nats per target that is learnt from. The places come from PyTorch's generator."""
    rows, length = batch.inputs.shape[:2]
    places = torch.randint(1, max(2, length), (rows,))
    places[torch.rand(rows) < PLAIN] = length
    masked = hidden(batch, places.to(batch.inputs.device), _vocabulary(model) - 1)
    if masked.n_targets == 0:
        raise ValueError(f"batch must hold at least one target; all {batch.targets.numel()} are IGNORE or behind masks")
    lineage = None if batch.segments is None else Lineage.packed(batch.segments)
    parameters, _ = model(masked.inputs, lineage=lineage)
    return -model.head.log_prob(parameters, masked.targets).sum() / masked.n_targets  # eq. (2)


def hidden(batch: Batch, places: Int[Tensor, "B"], mask: int) -> Batch:
    """The batch with MASKS tokens of each row hidden from its place on, as far as the document there goes on, and
    nothing to learn behind them in that document. A place at the end of the row hides nothing.
    """
    columns = torch.arange(batch.inputs.shape[1], device=places.device)
    behind = columns >= places[:, None]
    if batch.segments is not None:
        own = batch.segments.gather(1, places[:, None].clamp(max=len(columns) - 1))
        behind &= batch.segments == own
    covered = behind & (columns < places[:, None] + MASKS)
    inputs = torch.where(covered, mask, batch.inputs)
    return Batch(inputs, torch.where(behind & ~covered, IGNORE, batch.targets), batch.segments)


def _vocabulary(model: Model) -> int:
    if model.config.vocab_size is None:
        raise ValueError("masks are tokens: auto_correct trains a model of tokens; this one is of values")
    return model.config.vocab_size

"""Reading text into a state: ragged rows, in chunks, without computing logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runnel.lineage import Lineage
from runnel.model import Model
from runnel.state import State

CHUNK = 512


def prefill(model: Model, texts: Sequence[Sequence[int]], state: State, chunk: int = CHUNK) -> State:
    """The state after each row has read its text, which may be empty: one list of tokens per row of the state.

    chunk: most columns per call; memory grows with it, and the state does not depend on it but by rounding.
    """
    assert len(texts) == state.batch_size
    for start in range(0, max(len(text) for text in texts), chunk):
        pieces = [text[start : start + chunk] for text in texts]
        width = max(len(piece) for piece in pieces)
        tokens = torch.tensor([[*piece, *[0] * (width - len(piece))] for piece in pieces], device=model.device)
        ragged = any(len(piece) < width for piece in pieces)
        _, state = model.features(tokens, state, _padded(pieces, width).to(model.device) if ragged else None)
    return state


def _padded(pieces: Sequence[Sequence[int]], width: int) -> Lineage:
    taken = torch.tensor([len(piece) for piece in pieces])
    return Lineage.padded(torch.arange(width) < taken[:, None])
